"""Rows from elsewhere: completions that an iteration did not sample, learned from beside its rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mm_cpgd.algorithms.inputs.schedules import Schedule, progress_of
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.algorithms.parts import Part
from mm_cpgd.rollout import Completion, Group
from mm_cpgd.training.experience import MicroBatch


@dataclass(frozen=True)
class Source:
    """One source of such rows.

    Attributes:
        name: begins the names of its metrics.
        objective: its surrogate, regularizers and aggregation are the loss on its rows, whose denominators
            count its rows alone; no other part of it acts but ``token_weights``.
        weight: factor on its loss.
        from_old: whether its rows are compared with the old policy, not with ``given_logprobs``.
        more: further metrics of its objective that are logged.
    """

    name: str
    objective: Objective
    weight: float | Schedule = 1.0
    from_old: bool = False
    more: tuple[str, ...] = ()

    @property
    def metric_names(self) -> list[str]:
        """Names of its metrics, in ``losses_elsewhere`` and in the log."""
        return [f"{self.name}/{name}" for name in ("loss", "nll", *self.more)]

    def weight_at(self, iteration: int) -> float:
        """Return ``weight`` in an iteration, from 1."""
        if isinstance(self.weight, Schedule):
            return self.weight.at(progress_of(iteration, self.objective.iterations))
        return self.weight


def surrogate_alone(objective: Objective, token_weights: tuple[Part, ...] = ()) -> Objective:
    """Return the objective's surrogate and aggregation, with other token weights, as a source's loss."""
    return replace(
        objective,
        regularizers=(),
        token_weights=token_weights,
        selection=(),
        shaping=(),
        completions=(),
        token_advantages=(),
        prompts=None,
        budget=None,
        replay=None,
        tempered=None,
        states={},
        memories={},
    )


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
    old_logprobs: Tensor,
    lengths: Sequence[Tensor],
    iteration: int,
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return the share of each source's loss that a micro-batch's rows contribute, and their metrics.

    Args:
        sources: of all rows but the sampled ones.
        batch: rows of any source.
        logprobs: (n, T) of the current policy, with gradient.
        old_logprobs: (n, T) of the old policy.
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
        objective, before = source.objective, old_logprobs if source.from_old else given
        needed = [part.where for part in objective.prepared_parts]
        prepared = {where: values.to(device) for where, values in (batch.prepared or {}).items()}
        loss, found = objective.loss(
            *(logprobs, before, advantages, mask, own),
            prepared={where: prepared[where] for where in needed},
            iteration=iteration,
        )
        loss = loss * source.weight_at(iteration)
        nll = -torch.where(mask, logprobs.detach(), 0.0).sum() / float(own.sum())
        losses.append(loss)
        logged = (loss.detach(), nll, *(found[name] for name in source.more))
        metrics |= dict(zip(source.metric_names, logged, strict=True))
    return losses, metrics
