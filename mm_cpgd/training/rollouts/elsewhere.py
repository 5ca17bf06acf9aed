"""Rows from elsewhere: completions that an iteration did not sample, learned from beside its rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.rollout import Completion, Group
from mm_cpgd.training.experience import MicroBatch


@dataclass(frozen=True)
class Source:
    """One source of such rows.

    Attributes:
        name: begins the names of its metrics.
        objective: its surrogate, regularizers and aggregation are the loss on its rows, whose denominators
            count its rows alone; no other part of it acts.
    """

    name: str
    objective: Objective

    @property
    def metric_names(self) -> list[str]:
        """Names of its metrics, in ``losses_elsewhere`` and in the log."""
        return [f"{self.name}/loss", f"{self.name}/nll"]


@dataclass(frozen=True)
class OtherCompletions:
    """One source's completions for the P prompts of an iteration, up to K for each.

    Attributes:
        usable: (P, K) bool, which there are, of all processes.
        lengths: (P, K) tokens; any value where there is none.
        advantages: (P, K) likewise.
        groups: of each prompt of this process its completions by column, None where there is none; their
            ``logprobs`` are what the loss compares with.
    """

    usable: Tensor
    lengths: Tensor
    advantages: Tensor
    groups: list[list[Completion | None]]


@dataclass(frozen=True)
class Columns:
    """Tables of an iteration's completions, those from elsewhere in columns after the G that were sampled.

    Attributes:
        usable: (P, C) bool, of all processes.
        lengths: (P, C) tokens.
        advantages: (P, C), or (P, G, turns) where there are no others.
        source_of: (C,) 0 for sampled completions, s for those of the s-th other source.
        groups: of each prompt of this process its sampled completions.
        others: of each other source.
    """

    usable: Tensor
    lengths: Tensor
    advantages: Tensor
    source_of: Tensor
    groups: list[Group]
    others: Sequence[OtherCompletions]

    def completion(self, prompt: int, column: int) -> Completion:
        """Return the completion in a column of this process's prompt."""
        source = int(self.source_of[column])
        if not source:
            return self.groups[prompt][column]
        first = int((self.source_of < source).sum())
        found = self.others[source - 1].groups[prompt][column - first]
        assert found is not None
        return found


def beside(
    usable: Tensor,
    lengths: Tensor,
    advantages: Tensor,
    groups: list[Group],
    others: Sequence[OtherCompletions],
) -> Columns:
    """Return the tables (P, G) of sampled completions with columns for those from elsewhere."""
    widths = [usable.shape[1], *(other.usable.shape[1] for other in others)]
    source_of = torch.arange(len(widths)).repeat_interleave(torch.tensor(widths))
    if others:
        usable = torch.cat([usable, *(other.usable for other in others)], 1)
        lengths = torch.cat([lengths, *(other.lengths.to(lengths) for other in others)], 1)
        advantages = torch.cat([advantages, *(other.advantages.to(advantages) for other in others)], 1)
    return Columns(usable, lengths, advantages, source_of, groups, others)


def losses_elsewhere(
    sources: Sequence[Source],
    batch: MicroBatch,
    logprobs: Tensor,
    lengths: Sequence[Tensor],
    iteration: int,
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return the share of each source's loss that a micro-batch's rows contribute, and their metrics.

    Args:
        sources: of all rows but the sampled ones.
        batch: rows of any source.
        logprobs: (n, T) of the current policy, with gradient.
        lengths: of each source's rows in the whole mini-batch, over all processes.
        iteration: the running iteration, from 1.

    Returns:
        A scalar for each source that has rows in the mini-batch; and by source ``NAME/loss``, its share of
        the mini-batch's loss, and ``NAME/nll``, the mean of −log π in nats per token, both to be summed over
        micro-batches and processes.
    """
    assert batch.source is not None
    assert batch.given_logprobs is not None
    device = logprobs.device
    given, advantages = batch.given_logprobs.to(device), batch.advantages.to(device)
    losses: list[Tensor] = []
    metrics: dict[str, Tensor] = {}
    for number, (source, own) in enumerate(zip(sources, lengths, strict=True), 1):
        if not len(own):
            continue
        mask = (batch.mask & (batch.source == number).unsqueeze(1)).to(device)
        loss, _ = source.objective.loss(logprobs, given, advantages, mask, own, iteration=iteration)
        nll = -torch.where(mask, logprobs.detach(), 0.0).sum() / float(own.sum())
        losses.append(loss)
        metrics |= dict(zip(source.metric_names, (loss.detach(), nll), strict=True))
    return losses, metrics
