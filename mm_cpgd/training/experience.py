"""Experience of one process in one iteration, as tensors, divided into mini-batches and micro-batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from data import Example
from mm_cpgd.interrupt import ShouldStop
from mm_cpgd.policy import EncodedPrompt
from mm_cpgd.tracking import PromptRollout


@dataclass(frozen=True)
class MicroBatch:
    """The rows of one forward pass.

    Attributes:
        prompts: one a row.
        tokens: (n, T).
        mask: (n, T) True where a token is the completion's own.
        advantages: (n,).
        old_logprobs: (n, T), or None as in ``Experience``.
        reference_logprobs: (n, T), or None.
        sampled_logprobs: (n, T), or None.
        prepared: (n, T) for each part of the objective that sees whole mini-batches, or None.
    """

    prompts: list[EncodedPrompt]
    tokens: Tensor
    mask: Tensor
    advantages: Tensor
    old_logprobs: Tensor | None
    reference_logprobs: Tensor | None
    sampled_logprobs: Tensor | None = None
    prepared: dict[str, Tensor] | None = None


@dataclass
class Experience:
    """The completions of this process that take part in the update: n rows.

    Attributes:
        examples: dataset index of each prompt.
        prompts: encoded, in the same order; at least one, also if there are no rows.
        prompt_of: (n,) which prompt each row belongs to.
        tokens: (n, T).
        mask: (n, T) True where a token is the completion's own.
        advantages: (n,).
        mini_batch: (n,) which optimizer step of an inner epoch each row belongs to.
        lengths: for each mini-batch the completion lengths of all processes, (M_k,).
        old_logprobs: (n, T) of the policy that sampled; None while the policy still is that one; NaN in rows
            that are noted only when the first optimizer step, which still sees it, comes by.
        reference_logprobs: (n, T), None where no reference is asked for.
        sampled_logprobs: (n, T) as an engine with numerics of its own gives them; None where the policy
            itself samples.
        prepared: what parts of the objective know of whole mini-batches, (n, T) each; None where none asks.
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
    prepared: dict[str, Tensor] | None = None

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def split(self, mini_batch: int, tokens: int, *, shared_prefix: bool) -> list[Tensor]:
        """Split a mini-batch's rows into index tensors of at most so many tokens, longest first.

        Args:
            mini_batch: which one.
            tokens: that go through the model together; a longer row is a part of its own.
            shared_prefix: whether rows of a prompt share it, so that they stay together where they fit.
        """
        rows = (self.mini_batch == mini_batch).nonzero().squeeze(1)
        prompt_of = self.prompt_of[rows].tolist()
        prompts = [len(self.prompts[prompt]) for prompt in prompt_of]
        completions = self.mask[rows].sum(1).tolist()
        if shared_prefix:
            parts = fill_with_groups(prompt_of, prompts, completions, tokens)
        else:
            parts = fill_with_rows([p + c for p, c in zip(prompts, completions, strict=True)], tokens)
        return [rows[part] for part in parts]

    def select(self, rows: Tensor) -> MicroBatch:
        """Cut out rows, as wide as their longest completion; for no rows one masked stand-in.

        The stand-in has no influence, but the forward and backward passes of all processes stay in step.
        """
        if not len(rows):
            return self._stand_in()
        width = int(self.mask[rows].sum(1).max())

        def cut(values: Tensor) -> Tensor:
            return values[rows, :width]

        return MicroBatch(
            prompts=[self.prompts[prompt] for prompt in self.prompt_of[rows].tolist()],
            tokens=cut(self.tokens),
            mask=cut(self.mask),
            advantages=self.advantages[rows],
            old_logprobs=None if self.old_logprobs is None else cut(self.old_logprobs),
            reference_logprobs=None if self.reference_logprobs is None else cut(self.reference_logprobs),
            sampled_logprobs=None if self.sampled_logprobs is None else cut(self.sampled_logprobs),
            prepared=self.prepared and {part: cut(values) for part, values in self.prepared.items()},
        )

    def note_old_logprobs(self, rows: Tensor, values: Tensor) -> None:
        """Keep what the policy that sampled says of these rows, (rows, width)."""
        if self.old_logprobs is not None:
            self.old_logprobs[rows] = 0.0
            self.old_logprobs[rows, : values.shape[1]] = values.float().cpu()

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
            prepared=self.prepared and dict.fromkeys(self.prepared, nothing),
        )

    def state(self) -> dict[str, Any]:
        """Return everything but the encoded prompts, which are made again from ``examples``."""
        return {name: value for name, value in vars(self).items() if name != "prompts"}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], prompts: list[EncodedPrompt]) -> Experience:
        """Rebuild what ``state`` describes."""
        return cls(prompts=prompts, **state)


@dataclass
class Collected:
    """What an iteration learns from, and what there is to report of it.

    Attributes:
        experience: for the learner.
        metrics: of all processes.
        rollouts: what this process's prompts were answered, and why it was rewarded so.
        examples: the dataset row of each of ``rollouts``.
    """

    experience: Experience
    metrics: dict[str, float]
    rollouts: list[PromptRollout] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)


class ExperienceSource(Protocol):
    """First half of the training step: the collector, or worked solutions in its place."""

    def collect(self, iteration: int, should_stop: ShouldStop) -> Collected:
        """Return the next iteration's experience. Raises ``Interrupted`` if it is to stop on the way."""
        ...

    def reencode(self, indices: Sequence[int]) -> list[EncodedPrompt]:
        """Encode the prompts of a checkpoint's experience again."""
        ...

    def close(self) -> None:
        """End what runs in the background."""
        ...


def pad_tokens(completions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return tokens (n, T) and completion_mask (n, T) of n completions (T_i,)."""
    if not completions:
        return torch.zeros(0, 1, dtype=torch.long), torch.zeros(0, 1, dtype=torch.bool)
    lengths = torch.tensor([tokens.numel() for tokens in completions])
    tokens = pad_sequence(list(completions), batch_first=True)
    return tokens, torch.arange(tokens.shape[1]) < lengths.unsqueeze(1)


@dataclass(frozen=True)
class MiniBatchPlan:
    """The optimizer steps of one inner epoch.

    Attributes:
        step_of: (P,) of each prompt; what a prompt without usable completions has means nothing.
        lengths: for each step the lengths of its completions, (M_k,) float32, of all processes.
    """

    step_of: Tensor
    lengths: list[Tensor]


def plan_mini_batches(usable: Tensor, lengths: Tensor, prompts_per_step: int) -> MiniBatchPlan:
    """Deal prompts that have usable completions out to steps, in prompt order; the last may get fewer.

    Args:
        usable: (P, G) bool, completions that take part in the update, of all processes.
        lengths: (P, G) tokens.
        prompts_per_step: prompts an optimizer step.
    """
    taking_part = usable.any(1)
    step_of = torch.div(taking_part.cumsum(0) - 1, prompts_per_step, rounding_mode="floor")
    steps = -(-int(taking_part.sum()) // prompts_per_step)
    members = [usable & (step_of == step).unsqueeze(1) for step in range(steps)]
    return MiniBatchPlan(
        step_of=step_of,
        lengths=[lengths[member].float() for member in members],
    )


def fill_with_rows(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Fill parts with rows that are padded to the longest of a part; longest first.

    Args:
        lengths: tokens of each row, its prompt included.
        budget: tokens of a part, padding included; a longer row is a part of its own.

    Returns:
        indices of the rows of each part.
    """
    parts: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if parts and (len(parts[-1]) + 1) * lengths[parts[-1][0]] <= budget:
            parts[-1].append(row)
        else:
            parts.append([row])
    return parts


def fill_with_groups(
    prompt_of: Sequence[int], prompts: Sequence[int], completions: Sequence[int], budget: int
) -> list[list[int]]:
    """Fill parts with groups of rows that share their prompt, the largest group first, where it first fits.

    A group beyond the budget is split, and its prompt counts in each of its parts.

    Args:
        prompt_of: which prompt each row belongs to.
        prompts: tokens of each row's prompt.
        completions: tokens of each row's completion.
        budget: tokens of a part; a single row may exceed it.

    Returns:
        indices of the rows of each part.
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
    parts: list[list[int]] = []
    free: list[int] = []
    for size, rows in pieces:
        place = next((number for number, room in enumerate(free) if room >= size), None)
        if place is None:
            parts.append(list(rows))
            free.append(budget - size)
        else:
            parts[place] += rows
            free[place] -= size
    return parts
