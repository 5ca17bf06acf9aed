"""Parity of a sampling engine and the trainer: log-probabilities of the same tokens by the same weights.

They differ by rounding, kernels and batching. A larger difference means that the samples come from another
policy than the one that learns from them, and no metric of the training need show it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

TRIMMED = 0.01
"""Share of the tokens, those with the largest differences, that the trimmed mean leaves out.

A token at the edge of top-p, top-k or min-p may be kept by one side and cut by the other, and in bfloat16 a
token of low probability may differ by more than a nat, with the right weights on both sides.
"""
LARGEST_DIFFERENCE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 5e-2}
"""Default bound of the trimmed mean by the coarsest number format of both sides (docs/vllm.md)."""
_STALE = 10.0
"""Growth over the difference of the batch before that points at weights which did not arrive."""


class EngineMismatch(Exception):
    """A rollout batch whose log-probabilities the trainer does not find; no step was taken on it."""


@dataclass(frozen=True)
class Differences:
    """Absolute differences between the log-probabilities of engine and trainer, over a rollout batch.

    Attributes:
        tokens: number of tokens that were compared.
        mean: mean over those with a number, nats.
        largest: their maximum, nats.
        trimmed: mean without the largest hundredth of all tokens, nats; no number counts as the largest.
        missing: share of tokens that the engine gave no number for.
    """

    tokens: int
    mean: float
    largest: float
    trimmed: float
    missing: float

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics by their logged names; none without a token."""
        if not self.tokens:
            return {}
        return {
            "rollout/logprob_difference_mean": self.mean,
            "rollout/logprob_difference_max": self.largest,
            "rollout/logprob_difference_trimmed": self.trimmed,
            "rollout/logprob_missing": self.missing,
        }


def compare_logprobs(gaps: Tensor) -> Differences:
    """Return statistics of the gaps of all tokens of a rollout batch.

    Args:
        gaps: (K,) trainer's minus engine's log-probability, in any order; NaN or infinite without a number.
    """
    # Sorted, so that sums depend neither on micro-batches nor on the order of processes.
    ordered = gaps.double().abs().nan_to_num(nan=math.inf, posinf=math.inf).sort().values
    numbers = ordered[ordered.isfinite()]
    compared = ordered[: len(ordered) - math.ceil(TRIMMED * len(ordered))]
    if not len(compared):  # the only token
        compared = ordered
    return Differences(
        tokens=len(ordered),
        mean=float(numbers.mean()) if len(numbers) else math.nan,
        largest=float(numbers[-1]) if len(numbers) else math.nan,
        trimmed=float(compared.mean()) if len(compared) else 0.0,
        missing=1 - len(numbers) / max(len(ordered), 1),
    )


class ParityGate:
    """Ends a run at the first rollout batch whose log-probabilities differ too much.

    Args:
        bound: largest trimmed mean of the absolute differences, nats.
        source: where the bound comes from, for the message.
    """

    def __init__(self, bound: float, source: str) -> None:
        self.bound = bound
        self.source = source
        self._before: float | None = None

    def check(self, found: Differences, iteration: int) -> None:
        """Compare the batch of an iteration, counted from 1, with the bound.

        Raises:
            EngineMismatch: it is beyond; the message says what to check.
        """
        if not found.tokens:
            return
        if not found.trimmed <= self.bound:
            raise EngineMismatch(self._message(found, iteration))
        self._before = found.trimmed

    def _message(self, found: Differences, iteration: int) -> str:
        missing = f", {found.missing:.1%} of them without a number" if found.missing else ""
        return (
            f"the log-probabilities of vLLM and of the trainer differ by {found.trimmed:.2g} nats (trimmed "
            f"mean over {found.tokens:,} tokens{missing}; largest {found.largest:.2g}); allowed are "
            f"{self.bound:g} ({self.source}). No step was taken on these samples. "
            f"{self._tell_tale(found, iteration)} Check the weights that vLLM loads and is sent (model, "
            "revision, rollout.vllm.weights, rollout.vllm.adapters); chat template and image limits "
            "(policy.min_pixels and max_pixels, a server's --mm-processor-kwargs); number formats "
            "(policy.dtype and training.mixed_precision here, dtype and quantization there); temperature and "
            "cuts (a server needs --logprobs-mode processed_logprobs). If it is rounding alone, raise "
            "rollout.vllm.max_difference"
        )

    def _tell_tale(self, found: Differences, iteration: int) -> str:
        """Return what the batches before say about the cause."""
        if self._before is None and iteration > 1:
            return "It is the first batch since the run was resumed: vLLM may still have its first weights."
        if self._before is None:
            return (
                "It is the first batch of the run; stale weights would show from the second on, so vLLM has "
                "other weights from the start, or computes something else than the trainer."
            )
        before = f"It was {self._before:.2g} in the batch before"
        if found.trimmed <= _STALE * self._before:
            return f"{before}: if it keeps growing with the iterations, vLLM misses part of the weights."
        return f"{before}: so it looks when new weights did not arrive at vLLM, or only in part."


def largest_difference(formats: Iterable[torch.dtype]) -> tuple[float, torch.dtype]:
    """Return the default bound and the coarsest of the number formats that weights or activations have."""
    coarsest = max(formats, key=lambda one: torch.finfo(one).eps)
    # A format that is coarser still, such as an 8-bit one, has no bound of its own.
    return LARGEST_DIFFERENCE.get(coarsest, LARGEST_DIFFERENCE[torch.bfloat16]), coarsest
