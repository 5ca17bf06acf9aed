"""Experience of one process in one iteration, as tensors, divided into mini-batches and micro-batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from data import Example
from mm_cpgd.algorithms.inputs.outcomes import Outcomes
from mm_cpgd.interrupt import ShouldStop
from mm_cpgd.policy import EncodedPrompt
from mm_cpgd.policy.conversation.suffix import Suffix, suffix_lengths
from mm_cpgd.policy.distribution import KeptTokens
from mm_cpgd.tracking import PromptRollout


@dataclass(frozen=True)
class MicroBatch:
    """The rows of one forward pass.

    Attributes:
        prompts: one per row.
        tokens: (n, T).
        mask: (n, T) True where a token is the completion's own.
        advantages: (n,).
        old_logprobs: (n, T), or None as in ``Experience``.
        reference_logprobs: (n, T), or None.
        sampled_logprobs: (n, T), or None.
        kept_mass: (n, T), or None.
        kept: of n rows and T positions, or None.
        prepared: (n, T) for each part of the objective that needs whole mini-batches, or None.
        suffixes: one per row as in ``Experience``, or None.
        blind_logprobs: (n, T), or None.
        blind_prompts: one per row, or None.
        source: (n,) as in ``Experience``, or None.
        given_logprobs: (n, T), or None.
    """

    prompts: list[EncodedPrompt]
    tokens: Tensor
    mask: Tensor
    advantages: Tensor
    old_logprobs: Tensor | None
    reference_logprobs: Tensor | None
    sampled_logprobs: Tensor | None = None
    kept_mass: Tensor | None = None
    kept: KeptTokens | None = None
    prepared: dict[str, Tensor] | None = None
    suffixes: list[Suffix | None] | None = None
    blind_logprobs: Tensor | None = None
    blind_prompts: list[EncodedPrompt] | None = None
    source: Tensor | None = None
    given_logprobs: Tensor | None = None

    @property
    def sampled_mask(self) -> Tensor:
        """As in ``Experience``."""
        return sampled_only(self.mask, self.source)

    def behind_both(self) -> MicroBatch:
        """Return its rows twice: behind their pictures, then behind the changed ones; for the policy only."""
        assert self.blind_prompts is not None
        kept = None
        if self.kept is not None:
            kept = KeptTokens(self.kept.counts.repeat(2, 1), self.kept.ids.repeat(2))
        return replace(
            self,
            prompts=self.prompts + self.blind_prompts,
            tokens=self.tokens.repeat(2, 1),
            mask=self.mask.repeat(2, 1),
            kept=kept,
            suffixes=self.suffixes and self.suffixes * 2,
        )


@dataclass
class Experience:
    """The completions of this process that take part in the update: n rows.

    Attributes:
        examples: dataset index of each prompt.
        prompts: the encoded prompts, in the same order; at least one, even without rows.
        prompt_of: (n,) which prompt each row belongs to.
        tokens: (n, T); of conversations of several turns those of observations too.
        mask: (n, T) True where a token is the completion's own.
        advantages: (n,), or (n, T) for one per token.
        mini_batch: (n,) which optimizer step of an inner epoch each row belongs to.
        lengths: for each mini-batch the lengths of its sampled completions of all processes, (M_k,).
        old_logprobs: (n, T) of the old policy; None while the policy still is the old one; NaN in rows whose
            values are taken from the first optimizer step, at which the policy is still the old one.
        reference_logprobs: (n, T), None without a reference policy.
        sampled_logprobs: (n, T) as reported by an engine whose distribution is not π_old to the last digit:
            numerics of its own, or cuts that π_old is not normalised over; None elsewhere.
        kept_mass: (n, T) ln of the probability that the cuts left under π_old, where π_old is over all tokens
            and another engine's ``sampled_logprobs`` are over the kept ones; None elsewhere.
        kept: the tokens that the sampler's cuts left, over which all log-probabilities are normalised; None:
            all tokens.
        suffixes: positions and images of each row with observations, None for the others; None: no row has
            observations.
        prepared: values that parts of the objective computed from whole mini-batches, (n, T) each, or None.
        facts: what is known of each row, (n,) each: ``prompt_of`` and ``completion_of``, its prompt's place
            among those of the iteration and its own in the group; ``rewards``, ``accuracy``, ``finished``.
            Of solutions the first two alone.
        outcomes: what is noted in the parts' memory after the update; None where none has one.
        blind_logprobs: (n, T) of the policy before the update behind changed pictures, where a part of the
            objective compares with them; None elsewhere.
        blind_prompts: the prompts behind changed pictures, where the update runs them; None elsewhere.
        source: (n,) 0 where a row was sampled in this iteration, s where it is of the s-th of the run's other
            sources, whose loss is another; None: all were sampled.
        other_lengths: for each mini-batch the lengths of each other source's rows of all processes; none
            where ``source`` is None.
        given_logprobs: (n, T) that rows of other sources are compared with in place of the old policy's; None
            where ``source`` is None.
    """

    examples: list[int]
    prompts: list[EncodedPrompt]
    prompt_of: Tensor
    tokens: Tensor
    mask: Tensor
    advantages: Tensor
    mini_batch: Tensor
    lengths: list[Tensor]
    old_logprobs: Tensor | None = None
    reference_logprobs: Tensor | None = None
    sampled_logprobs: Tensor | None = None
    kept_mass: Tensor | None = None
    kept: KeptTokens | None = None
    prepared: dict[str, Tensor] | None = None
    suffixes: list[Suffix | None] | None = None
    facts: dict[str, Tensor] | None = None
    outcomes: Outcomes | None = None
    blind_logprobs: Tensor | None = None
    blind_prompts: list[EncodedPrompt] | None = None
    source: Tensor | None = None
    other_lengths: list[list[Tensor]] = field(default_factory=list)
    given_logprobs: Tensor | None = None

    @property
    def sampled_mask(self) -> Tensor:
        """``mask`` (n, T) of the rows that were sampled in this iteration; False in the others."""
        return sampled_only(self.mask, self.source)

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def split(self, mini_batch: int, tokens: int, *, shared_prefix: bool) -> list[Tensor]:
        """Split a mini-batch's rows into micro-batches of at most ``tokens`` tokens, longest first.

        Args:
            mini_batch: index of the mini-batch.
            tokens: limit of a forward pass; a longer row is a micro-batch of its own.
            shared_prefix: whether the rows of a prompt share it, so that they stay together where they fit.

        Returns:
            The row indices of each micro-batch.
        """
        rows = (self.mini_batch == mini_batch).nonzero().squeeze(1)
        prompt_of = self.prompt_of[rows].tolist()
        prompts = [len(self.prompts[prompt]) for prompt in prompt_of]
        completions = suffix_lengths(self.mask[rows]).tolist()
        if shared_prefix:
            micro_batches = fill_with_groups(prompt_of, prompts, completions, tokens)
        else:
            micro_batches = fill_with_rows([p + c for p, c in zip(prompts, completions, strict=True)], tokens)
        return [rows[chosen] for chosen in micro_batches]

    def select(self, rows: Tensor) -> MicroBatch:
        """Return rows, trimmed to their longest completion; for no rows one masked stand-in.

        The stand-in has no influence; it keeps the forward and backward passes of all processes in step.
        """
        if not len(rows):
            return self._stand_in()
        width = int(suffix_lengths(self.mask[rows]).max())

        def cut(values: Tensor) -> Tensor:
            return values[rows, :width]

        prompt_of = self.prompt_of[rows].tolist()
        return MicroBatch(
            prompts=[self.prompts[prompt] for prompt in prompt_of],
            tokens=cut(self.tokens),
            mask=cut(self.mask),
            advantages=self.advantages[rows] if self.advantages.dim() == 1 else cut(self.advantages),
            old_logprobs=None if self.old_logprobs is None else cut(self.old_logprobs),
            reference_logprobs=None if self.reference_logprobs is None else cut(self.reference_logprobs),
            sampled_logprobs=None if self.sampled_logprobs is None else cut(self.sampled_logprobs),
            kept_mass=None if self.kept_mass is None else cut(self.kept_mass),
            kept=self.kept and self.kept.select(rows, width),
            prepared=self.prepared and {part: cut(values) for part, values in self.prepared.items()},
            suffixes=self.suffixes and [self.suffixes[row] for row in rows.tolist()],
            blind_logprobs=None if self.blind_logprobs is None else cut(self.blind_logprobs),
            blind_prompts=self.blind_prompts and [self.blind_prompts[prompt] for prompt in prompt_of],
            source=None if self.source is None else self.source[rows],
            given_logprobs=None if self.given_logprobs is None else cut(self.given_logprobs),
        )

    def note_old_logprobs(self, rows: Tensor, values: Tensor) -> None:
        """Store the old policy's log-probabilities (rows, width) of these rows."""
        if self.old_logprobs is not None:
            self.old_logprobs[rows] = 0.0
            self.old_logprobs[rows, : values.shape[1]] = values.float().cpu()

    def gaps(self) -> Tensor:
        """Return π_old's minus the engine's log-probability of each own token (k,), over the same tokens.

        Tokens that π_old has no number for are left out: nothing can be learned from them either.
        """
        assert self.old_logprobs is not None
        assert self.sampled_logprobs is not None
        sampled = self.sampled_logprobs if self.kept_mass is None else self.sampled_logprobs + self.kept_mass
        return (self.old_logprobs - sampled)[self.sampled_mask & ~self.old_logprobs.isnan()]

    def _stand_in(self) -> MicroBatch:
        nothing = torch.zeros(1, 1)
        return MicroBatch(
            prompts=self.prompts[:1],
            tokens=nothing.long(),
            mask=nothing.bool(),
            advantages=nothing[0],
            old_logprobs=None if self.old_logprobs is None else nothing,
            reference_logprobs=None if self.reference_logprobs is None else nothing,
            sampled_logprobs=None if self.sampled_logprobs is None else nothing,
            kept_mass=None if self.kept_mass is None else nothing,
            kept=self.kept and KeptTokens(nothing.int(), torch.zeros(0, dtype=torch.int32)),
            prepared=self.prepared and dict.fromkeys(self.prepared, nothing),
            blind_logprobs=None if self.blind_logprobs is None else nothing,
            blind_prompts=self.blind_prompts and self.blind_prompts[:1],
            source=None if self.source is None else nothing[0].long(),
            given_logprobs=None if self.given_logprobs is None else nothing,
        )

    def state(self) -> dict[str, Any]:
        """Return everything except the encoded prompts, which are encoded again from ``examples``."""
        again = ("prompts", "blind_prompts")
        state = {name: value for name, value in vars(self).items() if name not in again}
        known = None if self.suffixes is None else [one.state() if one else None for one in self.suffixes]
        outcomes = self.outcomes and dict(vars(self.outcomes))
        return state | {"kept": self.kept and vars(self.kept), "suffixes": known, "outcomes": outcomes}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], prompts: list[EncodedPrompt]) -> Experience:
        """Rebuild the experience that ``state`` describes."""
        kept, suffixes, outcomes = (state.get(name) for name in ("kept", "suffixes", "outcomes"))
        rebuilt = {
            "kept": kept and KeptTokens(**kept),
            "suffixes": suffixes and [Suffix.from_state(one) if one else None for one in suffixes],
            "outcomes": outcomes and Outcomes(**outcomes),
        }
        return cls(prompts=prompts, **{**state, **rebuilt})


@dataclass
class Collected:
    """Result of the first half of a step: the experience, and what is reported about it.

    Attributes:
        experience: input of the learner.
        metrics: metrics over all processes.
        rollouts: this process's completions with their rewards and reasons.
        examples: the dataset row of each of ``rollouts``.
        lost: a line for each row of all processes whose image has vanished.
    """

    experience: Experience
    metrics: dict[str, float]
    rollouts: list[PromptRollout] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


class RowsLost(Exception):
    """No row of an iteration can be read any more; the message names the first."""


class ExperienceSource(Protocol):
    """First half of a step: the collector, or worked solutions in its place."""

    def collect(self, iteration: int, should_stop: ShouldStop) -> Collected:
        """Return the next iteration's experience. Raises ``Interrupted`` if a stop is requested meanwhile."""
        ...

    def reencode(self, indices: Sequence[int]) -> list[EncodedPrompt]:
        """Encode the prompts of a checkpoint's experience again."""
        ...

    def discard(self) -> None:
        """Drop what was sampled for later iterations: the weights that sampled it are gone. Does not wait."""
        ...

    def close(self) -> None:
        """End background threads."""
        ...


def sampled_only(mask: Tensor, source: Tensor | None) -> Tensor:
    """Return mask (n, T) with False in rows whose ``source`` (n,) is not 0; None: all are sampled."""
    return mask if source is None else mask & (source == 0).unsqueeze(1)


def pad_tokens(completions: Sequence[Tensor], own: Sequence[Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """Return tokens (n, T) and completion_mask (n, T) of n completions (T_i,).

    ``own`` (T_i,) says which tokens are a completion's own; None: all.
    """
    if not completions:
        return torch.zeros(0, 1, dtype=torch.long), torch.zeros(0, 1, dtype=torch.bool)
    lengths = torch.tensor([tokens.numel() for tokens in completions])
    tokens = pad_sequence(list(completions), batch_first=True)
    if own is not None:
        return tokens, pad_sequence(list(own), batch_first=True)
    return tokens, torch.arange(tokens.shape[1]) < lengths.unsqueeze(1)


@dataclass(frozen=True)
class MiniBatchPlan:
    """The optimizer steps of one inner epoch.

    Attributes:
        step_of: (P,) optimizer step of each prompt; arbitrary for prompts without usable completions.
        lengths: for each step the lengths of its sampled completions, (M_k,) float32, of all processes.
        other_lengths: likewise of each other source.
    """

    step_of: Tensor
    lengths: list[Tensor]
    other_lengths: list[list[Tensor]]


def plan_mini_batches(
    usable: Tensor, lengths: Tensor, prompts_per_step: int, source_of: Tensor | None = None
) -> MiniBatchPlan:
    """Assign prompts with usable completions to optimizer steps, in prompt order; the last may get fewer.

    Args:
        usable: (P, C) bool, completions that take part in the update, of all processes.
        lengths: (P, C) tokens.
        prompts_per_step: prompts per optimizer step.
        source_of: (C,) source of each column, as in ``Experience``; None: all were sampled.
    """
    taking_part = usable.any(1)
    step_of = torch.div(taking_part.cumsum(0) - 1, prompts_per_step, rounding_mode="floor")
    steps = -(-int(taking_part.sum()) // prompts_per_step)
    members = [usable & (step_of == step).unsqueeze(1) for step in range(steps)]
    columns = torch.zeros(usable.shape[1], dtype=torch.long) if source_of is None else source_of
    others = range(1, int(columns.max()) + 1 if columns.numel() else 1)

    def of(source: int, member: Tensor) -> Tensor:
        return lengths[member & (columns == source)].float()

    return MiniBatchPlan(
        step_of=step_of,
        lengths=[of(0, member) for member in members],
        other_lengths=[[of(source, member) for source in others] for member in members],
    )


def fill_with_rows(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Divide rows into micro-batches padded to their longest row; longest first.

    Args:
        lengths: tokens of each row, its prompt included.
        budget: tokens per micro-batch, padding included; a longer row is a micro-batch of its own.

    Returns:
        Row indices of each micro-batch.
    """
    micro_batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if micro_batches and (len(micro_batches[-1]) + 1) * lengths[micro_batches[-1][0]] <= budget:
            micro_batches[-1].append(row)
        else:
            micro_batches.append([row])
    return micro_batches


def fill_with_groups(
    prompt_of: Sequence[int], prompts: Sequence[int], completions: Sequence[int], budget: int
) -> list[list[int]]:
    """Divide groups of rows that share a prompt into micro-batches: first fit, largest group first.

    A group beyond the budget is split, and its prompt counts in each of its micro-batches.

    Args:
        prompt_of: which prompt each row belongs to.
        prompts: tokens of each row's prompt.
        completions: tokens of each row's completion.
        budget: tokens per micro-batch; a single row may exceed it.

    Returns:
        Row indices of each micro-batch.
    """
    groups: dict[int, list[int]] = {}
    for row in sorted(range(len(prompt_of)), key=lambda row: -completions[row]):
        groups.setdefault(prompt_of[row], []).append(row)
    pieces: list[tuple[int, list[int]]] = []
    for rows in groups.values():
        prompt = prompts[rows[0]]
        size = prompt
        piece: list[int] = []
        for row in rows:
            if piece and size + completions[row] > budget:
                pieces.append((size, piece))
                size, piece = prompt, []
            size += completions[row]
            piece.append(row)
        pieces.append((size, piece))
    return _first_fit(sorted(pieces, key=lambda piece: -piece[0]), budget)


def _first_fit(pieces: Sequence[tuple[int, list[int]]], budget: int) -> list[list[int]]:
    micro_batches: list[list[int]] = []
    free: list[int] = []
    for size, rows in pieces:
        place = next((number for number, space in enumerate(free) if space >= size), None)
        if place is None:
            micro_batches.append(list(rows))
            free.append(budget - size)
        else:
            micro_batches[place] += rows
            free[place] -= size
    return micro_batches
