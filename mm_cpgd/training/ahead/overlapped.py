"""Rollout batches sampled in a thread while the policy learns, by an engine with weights of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import NoReturn

import torch
from accelerate.utils import gather_object

from mm_cpgd.distributed import SHARED_ERRORS, together
from mm_cpgd.errors import RunEnded
from mm_cpgd.interrupt import Interrupted, ShouldStop, check
from mm_cpgd.training.ahead.prefetch import encode_rows
from mm_cpgd.training.collector import Collector
from mm_cpgd.training.experience import Collected, Experience, pad_tokens
from mm_cpgd.training.rollouts.batches import Sampled

Compare = Callable[[Experience, int], dict[str, float]]
PROBED_PROMPTS, PROBED_TOKENS = 8, 16
"""Prompts per process and tokens of each one's completion that are compared after weights were sent."""
POLL = 0.25
"""Seconds between two questions to all processes, whether one has failed or the run is to stop."""
RUNNING, DONE, FAILED = 0, 1, 2


class OverlappedBatches:
    """Batches that are sampled and scored in one background thread, one after the other.

    The thread does only what a process does alone. What all processes do together happens in the main
    thread: sending the weights in ``begin``, statistics in ``take``. The run's sampler advances in ``take``;
    until then the prompts of a batch count as not drawn: neither a checkpoint nor ``discard`` loses them.

    When a batch arrives, the policy has changed and cannot be compared with the engine any more. So ``begin``
    compares the beginnings of a few completions, while engine and policy still have the same weights.

    Args:
        collector: samples, scores and collects; its engine reports log-probabilities over all tokens.
        compare: returns the metrics of the difference between engine and trainer on samples of an
            iteration's weights, and raises if it is too large.
    """

    def __init__(self, collector: Collector, compare: Compare) -> None:
        self.collector = collector
        self.compare = compare
        self.accelerator = collector.accelerator
        self._held: dict[int, Future[Sampled]] = {}
        self._thread: ThreadPoolExecutor | None = None
        self._dropped = threading.Event()
        self._differences: dict[str, float] = {}

    def __contains__(self, iteration: int) -> bool:
        """Return whether the iteration's batch has begun."""
        return iteration in self._held

    def __len__(self) -> int:
        """Return how many batches have begun and are not taken."""
        return len(self._held)

    def begin(self, iterations: Sequence[int], should_stop: ShouldStop) -> float:
        """See ``Batches.begin``; returns once the weights are sent and compared.

        Raises:
            EngineMismatch: on all processes, if engine and trainer differ.
        """
        if not iterations:
            return 0.0
        self._join()
        collector, size = self.collector, self.collector.config.prompts
        drawn = collector.sampler.peek(size * (len(iterations) + 1))
        if collector.prefetcher.in_processes:
            collector.prefetcher.begin(collector.own(drawn[:size]))
        collector.engine.load_weights(collector.policy)
        samples = together(self.accelerator, lambda: probe(collector, drawn[:size]))
        self._differences = self.compare(samples, iterations[0] - 1)  # which the weights are of
        self._thread, self._dropped = ThreadPoolExecutor(1, thread_name_prefix="ahead"), threading.Event()
        for place, iteration in enumerate(iterations):
            prompts, following = (drawn[at * size : (at + 1) * size] for at in (place, place + 1))
            self._held[iteration] = self._thread.submit(
                collector.sample,
                prompts,
                iteration,
                should_stop=self._dropped.is_set,
                following=following if iteration < collector.prefetch_until else (),
            )
        self._thread.shutdown(wait=False)  # the thread ends after the last batch
        return 0.0

    def take(self, iteration: int, should_stop: ShouldStop) -> Collected:
        """See ``Batches.take``: π_old are the engine's own log-probabilities.

        Raises:
            EngineFailed, UserError, RuleError: on all processes, if sampling has failed on one.
        """
        future = self._held[iteration]
        if self._wait([future], should_stop) == FAILED:
            self._fail(future)
        sampled = self._held.pop(iteration).result()
        if not any(sampled.prompts):
            # A stand-in will be encoded, and tokenizers need not be thread-safe.
            self._join()
        collected = self.collector.collect(iteration, should_stop, sampled)
        collected.metrics |= self._differences
        experience = collected.experience
        assert experience.sampled_logprobs is not None
        experience.old_logprobs, experience.sampled_logprobs = experience.sampled_logprobs, None
        return collected

    def settle(self, should_stop: ShouldStop) -> None:
        """See ``Batches.settle``; an error is raised when its batch is taken."""
        if self._held:
            self._wait(list(self._held.values()), should_stop)
        self._join()

    def discard(self) -> None:
        """Drop all batches; the thread ends before its next ``rollout.batch_prompts`` prompts."""
        self._dropped.set()
        if self._thread:
            self._thread.shutdown(wait=False, cancel_futures=True)
        self._held.clear()

    def close(self) -> None:
        """Drop all batches; the thread has ended when this returns."""
        self.discard()
        self._join()

    def _join(self) -> None:
        if self._thread:
            self._thread.shutdown(wait=True)
        self._thread = None

    def _wait(self, futures: Sequence[Future[Sampled]], should_stop: ShouldStop) -> int:
        """Wait until all processes are done or one has failed; return which, the same on all.

        Every process asks the others equally often.
        """
        while True:
            left = wait(futures, timeout=POLL).not_done
            check(should_stop)
            errors = [error for one in futures if one.done() and (error := one.exception())]
            # This process was asked to stop since: soon all processes know.
            stopped = [error for error in errors if isinstance(error, Interrupted)]
            mine = FAILED if len(errors) > len(stopped) else RUNNING if left or stopped else DONE
            everywhere = self.accelerator.gather(torch.tensor([mine], device=self.accelerator.device))
            if (everywhere == FAILED).any():
                return FAILED
            if (everywhere == DONE).all():
                return DONE

    def _fail(self, future: Future[Sampled]) -> NoReturn:
        """Raise the error of sampling on all processes: a bug on its own, with its traceback."""
        error = future.exception() if future.done() else None
        expected = isinstance(error, SHARED_ERRORS)
        told = error if error is None or expected else RunEnded(f"sampling failed: {error!r}")
        found = [one for one in gather_object([told]) if one is not None]
        self.discard()
        raise found[0] if expected or error is None else error


def probe(collector: Collector, drawn: Sequence[int]) -> Experience:
    """Sample the beginnings of a few completions, one for each of this process's first prompts.

    Args:
        collector: its engine and policy have the same weights.
        drawn: dataset indices of a rollout batch's prompts.

    Returns:
        Rows without advantages in one mini-batch, with the engine's log-probabilities; none if the images of
        these prompts have vanished.
    """
    indices = collector.own(drawn)[:PROBED_PROMPTS]
    encoded, _ = encode_rows(
        collector.policy.encoder,
        [collector.examples[index] for index in indices],
        collector.prefetcher.first(indices),
    )
    prompts = [prompt for prompt in encoded if prompt is not None]
    tokens = min(PROBED_TOKENS, collector.sampling.max_new_tokens)
    sampling = replace(collector.sampling, max_new_tokens=tokens)
    with collector.accelerator.autocast():
        groups = collector.engine.generate(prompts, sampling, [[0]] * len(prompts))
    pairs = [(prompt, group[0]) for prompt, group in zip(prompts, groups, strict=True) if group]
    completions = [completion for _, completion in pairs]
    padded, mask = pad_tokens([one.tokens for one in completions])
    return Experience(
        examples=[],
        prompts=[prompt for prompt, _ in pairs] or [collector.stand_in()],
        prompt_of=torch.arange(len(pairs)),
        tokens=padded,
        mask=mask,
        advantages=torch.zeros(len(pairs)),
        mini_batch=torch.zeros(len(pairs), dtype=torch.long),
        lengths=[mask.sum(1).float()],
        sampled_logprobs=pad_tokens([one.logprobs for one in completions])[0].float(),
    )
