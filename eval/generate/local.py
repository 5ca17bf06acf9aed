"""Local generator: a model on this machine, sampled through the trainer's rollout engine."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from data import DataError, Example
from eval.benchmark import Failure
from eval.generate.cache import Generation, folder_fingerprint, hub_commit
from eval.generate.decoding import Decoding
from eval.generate.generate import Job, Question
from eval.generate.processes import ALONE, Processes
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import EMBEDDED, EncodedPrompt, Policy, PromptEncoder, load_policy
from mm_cpgd.rollout import Completion, LocalEngine, RolloutEngine, Sampling
from mm_cpgd.rollout.vllm import VllmEngine

# An encoded prompt with the jobs that sample it.
_Batched = tuple[EncodedPrompt, Sequence[Job]]


class LocalGenerator:
    """Generator with a model on this machine, which is loaded at the first job.

    Args:
        model: hub name, folder, or ``embedded:…``.
        revision: revision of a hub name.
        dtype: number format of the weights; ``auto`` is bfloat16 on a GPU that supports it, else float32.
        min_pixels: area that smaller images are scaled up to, None for the processor's own limit.
        max_pixels: area that larger images are scaled down to, likewise.
        batch: responses decoded together; vLLM needs hundreds to be efficient.
        engine: rollout engine, ``local`` or ``vllm``.
        tensor_parallel: GPUs that share one vLLM.
        processes: the processes of the evaluation, all of which generate.
        device: ``cuda``, ``cpu`` …; None for a GPU if there is one, of several processes each its own.
        trust_remote_code: run code that comes with the model.
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        batch: int = 16,
        engine: str = "local",
        tensor_parallel: int = 1,
        processes: Processes = ALONE,
        device: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self.device = torch.device(device or _device(processes))
        self.batch, self.engine_name = batch, engine
        self.tensor_parallel, self.processes = tensor_parallel, processes
        folder = EMBEDDED.get(model) or Path(model).expanduser()
        commit = None if folder.is_dir() else hub_commit(model, revision)
        # The commit that cache keys are made of, even if the name is updated on the hub meanwhile.
        self.config = PolicyConfig(
            model=model,
            revision=commit or revision,
            dtype=_dtype(dtype, self.device),
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            trust_remote_code=trust_remote_code,
        )
        if folder.is_dir():
            self.model_id = folder_fingerprint(folder)
        else:
            # Without a known commit the model cannot be loaded either; the error of loading it is clearest.
            self.model_id = commit or (f"{model}@{revision}" if self.policy else "")

    @property
    def identity(self) -> Mapping[str, Any]:
        """See ``Generator.identity``."""
        config = self.config
        return {
            "engine": self.engine_name,
            "model": config.model,
            "model_id": self.model_id,
            "revision": config.revision,
            "dtype": config.dtype,
            "min_pixels": config.min_pixels,
            "max_pixels": config.max_pixels,
        }

    @cached_property
    def policy(self) -> Policy:
        """The model. Raises ``UserError`` if it cannot be loaded."""
        # With vLLM, which holds the weights on the GPU, this copy only encodes prompts.
        local = self.engine_name == "local"
        return load_policy(self.config, samples=local).to(self.device if local else "cpu")

    @cached_property
    def engine(self) -> RolloutEngine:
        """The rollout engine. Raises ``UserError`` if vLLM is required and not installed."""
        return (
            self._vllm()
            if self.engine_name == "vllm"
            else LocalEngine(self.policy, self.batch, report_kept=False)
        )

    def _vllm(self) -> RolloutEngine:
        from mm_cpgd.rollout.vllm.colocated import open_colocated

        config = self.config
        limits = {"min_pixels": config.min_pixels, "max_pixels": config.max_pixels}
        backend = open_colocated(
            self.policy.model.name_or_path,
            processes=self.processes.count,
            tensor_parallel=self.tensor_parallel,
            own_workers=True,
            memory_share=0.9,
            trust_remote_code=config.trust_remote_code,
            revision=config.revision,
            image_limits={name: value for name, value in limits.items() if value},
            options={"dtype": config.dtype},
        )
        return VllmEngine(self.policy, backend)

    def generate(self, jobs: Iterable[Job], decoding: Decoding) -> Iterator[tuple[Job, Generation | Failure]]:
        """Run the jobs in batches of questions; only the images of one batch are in memory."""
        sampling = Sampling(
            decoding.max_new_tokens, decoding.temperature, decoding.top_p, decoding.top_k, decoding.min_p
        )
        if self.engine_name == "local":
            yield from self._batches(jobs, sampling, decoding.stop)
            return
        waiting = iter(jobs)
        first = list(itertools.islice(waiting, 1))
        # vLLM starts in all processes at once, or in none.
        if not any(self.processes.of_all(bool(first))):
            return
        assert isinstance(self.engine, VllmEngine)
        self.engine.extras = decoding.extras() | (_STOP if decoding.stop else {})
        if not self.processes.asks:
            self._take_part(sampling)
            return
        try:
            yield from self._batches(itertools.chain(first, waiting), sampling, decoding.stop)
        finally:
            self._call(False)

    def _take_part(self, sampling: Sampling) -> None:
        """Compute what another process of this vLLM asks, until it has asked everything."""
        while self._call(None):
            self.engine.generate([], sampling, [])

    def _call(self, goes_on: bool | None) -> bool:
        """Exchange, among the processes of this vLLM, whether there is another batch."""
        backend: Any = self.engine.backend if isinstance(self.engine, VllmEngine) else None
        if backend is None or backend.group.size == 1:
            return False
        said, _ = backend.group.gather([goes_on] if goes_on is not None else [])
        return bool(said[0])

    def close(self) -> None:
        """End what was started."""
        if "engine" in self.__dict__:
            self.engine.close()

    def _batches(
        self, jobs: Iterable[Job], sampling: Sampling, stop: Sequence[str]
    ) -> Iterator[tuple[Job, Generation | Failure]]:
        asked: list[_Batched] = []
        for question, same in itertools.groupby(jobs, key=lambda job: job.question):
            own = list(same)
            prompt = self._encode(question)
            if isinstance(prompt, Failure):
                yield from ((job, prompt) for job in own)
                continue
            # In one call the engine samples the same number of completions of each prompt.
            for part in _cut(own, self.batch):
                if asked and (len(part) != len(asked[0][1]) or _full(asked, part, self.batch)):
                    yield from self._sample(asked, sampling, stop)
                    asked = []
                asked.append((prompt, part))
        if asked:
            yield from self._sample(asked, sampling, stop)

    def _encode(self, question: Question) -> EncodedPrompt | Failure:
        encoder = PromptEncoder(
            self.policy.processor,
            self.policy.model,
            question.system_prompt,
            video=self.policy.encoder.video,
        )
        try:
            example = Example(question.id, question.text, "", question.images, videos=question.videos)
            prompt = encoder.encode(example, question.beginning)
        except DataError as error:
            return Failure(str(error))
        except Exception as error:  # processors raise many types; one row must not end a long run
            return Failure(f"the model's processor rejects it: {type(error).__name__}: {error}"[:300])
        limit = _context(self.policy.model)
        if limit is not None and len(prompt) >= limit:
            return Failure(
                f"the prompt has {len(prompt):,} tokens, the model's limit is {limit:,}; lower --max-pixels"
            )
        return prompt

    def _sample(
        self, asked: Sequence[_Batched], sampling: Sampling, stop: Sequence[str] = ()
    ) -> Iterator[tuple[Job, Generation | Failure]]:
        prompts, jobs = zip(*asked, strict=True)
        seeds = [[job.seed for job in own] for own in jobs]
        self._call(True)
        try:
            groups = self.engine.generate(prompts, sampling, seeds)
        except torch.cuda.OutOfMemoryError as error:
            yield from self._sample_halves(asked, sampling, error, stop)
            return
        except ValueError as error:
            # Some chat templates change or leave out parts of a turn, which then cannot be continued.
            if not jobs[0][0].question.beginning:
                raise
            if len(asked) > 1:
                for one in asked:
                    yield from self._sample([one], sampling, stop)
                return
            failure = Failure(f"vLLM cannot continue it: {error}"[:300])
            yield from ((job, failure) for own in jobs for job in own)
            return
        for own, group in zip(jobs, groups, strict=True):
            if group:
                yield from ((job, _generation(one, stop)) for job, one in zip(own, group, strict=True))
            else:
                yield from ((job, Failure("its image cannot be opened any more")) for job in own)

    def _sample_halves(
        self, asked: Sequence[_Batched], sampling: Sampling, error: Exception, stop: Sequence[str]
    ) -> Iterator[tuple[Job, Generation | Failure]]:
        """Retry with half the batch; a single response that does not fit into memory becomes a failure."""
        torch.cuda.empty_cache()
        if len(asked) > 1:
            halves = [asked[: len(asked) // 2], asked[len(asked) // 2 :]]
        elif len(asked[0][1]) > 1:
            halves = [[(asked[0][0], [job])] for job in asked[0][1]]
        else:
            yield asked[0][1][0], Failure(f"not enough memory on {self.device}: {error}"[:300])
            return
        for half in halves:
            yield from self._sample(half, sampling, stop)


# Found in the text, which vLLM otherwise ends before it.
_STOP = {"include_stop_str_in_output": True}


def _device(processes: Processes) -> str:
    if not torch.cuda.is_available():
        return "cpu"
    return "cuda" if processes.count == 1 else f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def _cut(jobs: Sequence[Job], size: int) -> list[Sequence[Job]]:
    return [jobs[start : start + size] for start in range(0, len(jobs), size)]


def _full(asked: Sequence[_Batched], own: Sequence[Job], batch: int) -> bool:
    return sum(len(jobs) for _, jobs in asked) + len(own) > batch


def _generation(completion: Completion, stop: Sequence[str]) -> Generation:
    tokens, text = completion.tokens.numel(), completion.text
    ends = [end for end in (text.find(one) for one in stop) if end >= 0]
    if ends:
        return Generation(text[: min(ends)], True, tokens)
    return Generation(text, completion.finished, tokens)


def _dtype(wanted: str, device: torch.device) -> Any:
    if wanted != "auto":
        return wanted
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def _context(model: Any) -> int | None:
    """Return the maximum number of tokens of the model, None if its config does not state it."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return limit if isinstance(limit, int) else None
