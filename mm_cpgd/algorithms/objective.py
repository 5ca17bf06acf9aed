"""One objective composed from parts: what the trainer calls at each station of the step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mm_cpgd.algorithms.checks import check_mix, check_surrogate_options
from mm_cpgd.algorithms.parts import Part, make_part
from mm_cpgd.algorithms.regularizers import LARGEST_LOG_RATIO, capped_k3, kl_estimate

if TYPE_CHECKING:
    from mm_cpgd.config import AlgorithmConfig, PartConfig


@dataclass(frozen=True)
class Objective:
    """A composition; see ``docs/algorithms.md`` for the order in which a step calls it.

    Attributes:
        advantage: rewards to advantages.
        surrogate: what is maximised for each token.
        regularizers: what is subtracted.
        aggregation: how tokens are weighted.
        selection: which prompts are kept.
        shaping: what is added to rewards.
        max_tokens: longest completion that may be sampled.
    """

    advantage: Part
    surrogate: Part
    regularizers: tuple[Part, ...]
    aggregation: Part
    selection: tuple[Part, ...]
    shaping: tuple[Part, ...]
    max_tokens: int

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts."""
        return (
            self.advantage,
            self.surrogate,
            *self.regularizers,
            self.aggregation,
            *self.selection,
            *self.shaping,
        )

    @property
    def needs_reference(self) -> bool:
        """Whether ``loss`` needs ``reference_logprobs``; if not, no reference policy has to be held."""
        return any("reference_log_ratio" in part.inputs for part in self.parts)

    @property
    def max_rounds(self) -> int:
        """Rollout batches at most until enough prompts are kept; 1 without dynamic sampling."""
        return max((part.options.get("max_rounds", 1) for part in self.selection), default=1)

    def shape(self, rewards: Tensor, lengths: Tensor, max_tokens: int | None = None) -> Tensor:
        """Rewards with every shaping part's addition.

        Args:
            rewards: (P, G) or (N,), NaN where unscored, which stays NaN.
            lengths: completion tokens, as many as rewards.
            max_tokens: as in ``rollout.max_new_tokens``; None: the one that the objective was built for.

        Returns:
            In the shape of rewards.
        """
        limit = self.max_tokens if max_tokens is None else max_tokens
        available = {"lengths": lengths.reshape(rewards.shape), "max_tokens": limit}
        return sum((part(available) for part in self.shaping), start=rewards)

    def keep(self, accuracy: Tensor, rewards: Tensor) -> Tensor:
        """Which prompts are worth an update.

        Args:
            accuracy: (P, G) in [0, 1] over all processes, NaN where unscored.
            rewards: (P, G), likewise, before shaping.

        Returns:
            (P,) bool; all True without selection.
        """
        everything = torch.ones(rewards.shape[0], dtype=torch.bool, device=rewards.device)
        available = {"accuracy": accuracy, "rewards": rewards}
        return reduce(torch.logical_and, (part(available) for part in self.selection), everything)

    def advantages(self, rewards: Tensor) -> Tensor:
        """Advantages (P, G) of rewards (P, G): the kept prompts of all processes; 0 where a reward is NaN."""
        return self.advantage({"rewards": rewards})

    def loss(
        self,
        logprobs: Tensor,
        old_logprobs: Tensor,
        advantages: Tensor,
        mask: Tensor,
        lengths: Tensor,
        reference_logprobs: Tensor | None = None,
        entropy: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The part of the mini-batch's loss that these rows carry, to be minimised.

        The sum over all micro-batches and processes is the mini-batch's loss: nothing is to be averaged. An
        optimizer wrapper that averages gradients over processes (DDP) needs the loss times the number of
        processes. What is written at masked positions, NaN included, has no influence and receives gradient
        0.

        Args:
            logprobs: (n, T) of the policy now, with gradient.
            old_logprobs: (n, T) of the policy that sampled.
            advantages: (n,), or (n, T) for one a token.
            mask: (n, T) bool, True where the token is the completion's own.
            lengths: (M,) completion lengths of the whole mini-batch over all processes.
            reference_logprobs: (n, T), required if ``needs_reference``; else only logged.
            entropy: (n, T) of the policy's token distributions; only logged unless a part takes it.

        Returns:
            The scalar loss, and metrics without gradient: sums over micro-batches and processes, but
            ``max/…`` and ``min/…``, which are extremes over them.
        """
        if mask.dtype is not torch.bool:
            raise TypeError(f"mask must be bool, True at the completion's own tokens; it is {mask.dtype}")
        if self.needs_reference and reference_logprobs is None:
            raise ValueError("this objective needs reference_logprobs (needs_reference is True)")
        available = _inputs(logprobs, old_logprobs, advantages, mask, lengths, reference_logprobs, entropy)
        available["max_tokens"] = self.max_tokens
        terms, clipped = self.surrogate(available)
        penalty = sum((part(available) for part in self.regularizers), start=torch.zeros_like(terms))
        weights = self.aggregation(available)
        loss = (weights * (penalty - terms)).sum()
        metrics = _metrics(available, clipped)
        metrics["penalty"] = (weights * penalty).detach().sum()
        return loss, metrics


def build_objective(config: AlgorithmConfig, *, completions: int, max_new_tokens: int) -> Objective:
    """Compose the objective that the config describes, its recipe already resolved.

    Args:
        config: the parts and their options.
        completions: G, completions a prompt.
        max_new_tokens: longest completion that may be sampled.

    Raises:
        UserError: an unknown part or option, an impossible value, or parts that do not go together.
    """
    check_surrogate_options(config.surrogate.name, list(config.surrogate.options))

    def make(kind: str, part: PartConfig) -> Part:
        return make_part(kind, part.name, part.options)

    objective = Objective(
        advantage=make("advantage", config.advantage),
        surrogate=make("surrogate", config.surrogate),
        regularizers=tuple(make("regularizers", part) for part in config.regularizers),
        aggregation=make("aggregation", config.aggregation),
        selection=tuple(make("selection", part) for part in config.selection),
        shaping=tuple(make("shaping", part) for part in config.shaping),
        max_tokens=max_new_tokens,
    )
    check_mix(objective.parts, completions, max_new_tokens)
    return objective


def _inputs(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    lengths: Tensor,
    reference_logprobs: Tensor | None,
    entropy: Tensor | None,
) -> dict[str, Any]:
    """Everything a part may ask for by name, at least float32, with 0 at masked positions."""
    dtype = torch.promote_types(logprobs.dtype, torch.float32)
    zero = torch.zeros((), dtype=dtype, device=logprobs.device)

    def clean(values: Tensor) -> Tensor:
        return torch.where(mask, values.to(dtype), zero)

    available: dict[str, Any] = {
        "log_ratio": clean(logprobs.to(dtype) - old_logprobs),
        "advantages": (advantages[:, None] if advantages.dim() == 1 else clean(advantages)).to(dtype),
        "mask": mask,
        "lengths": lengths.to(device=logprobs.device, dtype=dtype),
    }
    if reference_logprobs is not None:
        available["reference_log_ratio"] = clean(logprobs.to(dtype) - reference_logprobs)
    if entropy is not None:
        available["entropy"] = clean(entropy)
    return available


@torch.no_grad()
def _metrics(available: Mapping[str, Any], clipped: Tensor) -> dict[str, Tensor]:
    """Token means over the mini-batch, as sums over these rows, and extremes of the ratio."""
    mask, log_ratio = available["mask"], available["log_ratio"]
    tokens = available["lengths"].sum().clamp(min=1)
    ratio = log_ratio.clamp(max=LARGEST_LOG_RATIO).exp()
    by_token = {"policy_drift": capped_k3(log_ratio), "clip_fraction": clipped, "ratio": ratio}
    if "reference_log_ratio" in available:
        by_token["kl"] = kl_estimate(available["reference_log_ratio"], "k3")
    if "entropy" in available:
        by_token["entropy"] = available["entropy"]
    metrics = {name: (values * mask).sum() / tokens for name, values in by_token.items()}
    # An infinite fill is the neutral element of the reduction, for rows that have no token at all.
    metrics["max/ratio"] = ratio.masked_fill(~mask, float("-inf")).amax()
    metrics["min/ratio"] = ratio.masked_fill(~mask, float("inf")).amin()
    return metrics
