"""Local generator: a model on this machine, sampled through the trainer's rollout engine."""

from __future__ import annotations

import itertools
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
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import EMBEDDED, EncodedPrompt, Policy, PromptEncoder, load_policy
from mm_cpgd.rollout import Completion, LocalEngine, RolloutEngine, Sampling

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
        device: ``cuda``, ``cpu`` …; None for a GPU if there is one.
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
        device: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.batch, self.engine_name = batch, engine
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
        from mm_cpgd.rollout.vllm import VllmEngine
        from mm_cpgd.rollout.vllm.colocated import open_colocated

        config = self.config
        limits = {"min_pixels": config.min_pixels, "max_pixels": config.max_pixels}
        backend = open_colocated(
            self.policy.model.name_or_path,
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
                    yield from self._sample(asked, sampling)
                    asked = []
                asked.append((prompt, part))
        if asked:
            yield from self._sample(asked, sampling)

    def _encode(self, question: Question) -> EncodedPrompt | Failure:
        encoder = PromptEncoder(self.policy.processor, self.policy.model, question.system_prompt)
        try:
            prompt = encoder.encode(Example(question.id, question.text, "", question.images))
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
        self, asked: Sequence[_Batched], sampling: Sampling
    ) -> Iterator[tuple[Job, Generation | Failure]]:
        prompts, jobs = zip(*asked, strict=True)
        seeds = [[job.seed for job in own] for own in jobs]
        try:
            groups = self.engine.generate(prompts, sampling, seeds)
        except torch.cuda.OutOfMemoryError as error:
            yield from self._sample_halves(asked, sampling, error)
            return
        for own, group in zip(jobs, groups, strict=True):
            if group:
                yield from ((job, _generation(one)) for job, one in zip(own, group, strict=True))
            else:
                yield from ((job, Failure("its image cannot be opened any more")) for job in own)

    def _sample_halves(
        self, asked: Sequence[_Batched], sampling: Sampling, error: Exception
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
            yield from self._sample(half, sampling)


def _cut(jobs: Sequence[Job], size: int) -> list[Sequence[Job]]:
    return [jobs[start : start + size] for start in range(0, len(jobs), size)]


def _full(asked: Sequence[_Batched], own: Sequence[Job], batch: int) -> bool:
    return sum(len(jobs) for _, jobs in asked) + len(own) > batch


def _generation(completion: Completion) -> Generation:
    return Generation(completion.text, completion.finished, completion.tokens.numel())


def _dtype(wanted: str, device: torch.device) -> Any:
    if wanted != "auto":
        return wanted
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def _context(model: Any) -> int | None:
    """Return the maximum number of tokens of the model, None if its config does not state it."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return limit if isinstance(limit, int) else None
