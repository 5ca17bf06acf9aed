"""Packing of prompts and completions into one sequence without padding, in which each prompt occurs once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mm_cpgd.policy.batch import EncodedPrompt
from mm_cpgd.policy.conversation.suffix import ContinuedPrompt, Suffix, suffix_lengths


@dataclass(frozen=True)
class Ends:
    """Ends of the spans of a packed sequence on one device, each int32 and with 0 before the first.

    Attributes:
        prefixes: (P + 1,) of prefixes.
        groups: (P + 1,) of groups of completions, from the first completion on.
        completions: (N + 1,) of completions, likewise.
    """

    prefixes: Tensor
    groups: Tensor
    completions: Tensor


@dataclass(frozen=True)
class PackedLayout:
    """Arrangement of a packed sequence: first all P prefixes, then the completions, grouped by prompt.

    Attributes:
        prefix_lengths: (P,) tokens of each prefix.
        group_lengths: (P,) tokens of all completions of each prompt together.
        completion_lengths: tokens of each completion, in packed order; those without tokens are left out.
        pad: (N · W,) maps each position of a padded table, N completions by W = max length, to a token of the
            completions; positions of padding map to any. None if all completions have the same length.
        unpad: (M,) maps each token of the completions to its position in that table.
        stored: what kernels have derived from the layout for a device; layers use it again.
    """

    prefix_lengths: list[int]
    group_lengths: list[int]
    completion_lengths: list[int]
    pad: Tensor | None = None
    unpad: Tensor | None = None
    stored: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def tokens(self) -> int:
        """S: tokens of the sequence."""
        return self.prefix_tokens + sum(self.group_lengths)

    @property
    def prefix_tokens(self) -> int:
        """Tokens of all prefixes together: the index at which the completions start."""
        return sum(self.prefix_lengths)

    @property
    def width(self) -> int:
        """Tokens of the longest completion."""
        return max(self.completion_lengths, default=0)

    def to(self, device: torch.device) -> PackedLayout:
        """Return the layout with its tensors on a device."""
        if self.pad is None or self.unpad is None:
            return self
        return replace(self, pad=self.pad.to(device), unpad=self.unpad.to(device), stored={})

    def ends(self, device: torch.device) -> Ends:
        """Return the ends of all spans; they reach the device once."""
        known: Ends | None = self.stored.get(("ends", device))
        if known is None:
            lengths = (self.prefix_lengths, self.group_lengths, self.completion_lengths)
            known = self.stored[("ends", device)] = Ends(*(_ends(one).to(device) for one in lengths))
        return known

    def owners(self) -> tuple[Tensor, Tensor]:
        """Return each token's prompt (S,) and sequence (S,): index of a completion, or -1 - p of a prefix."""
        prompts = torch.arange(len(self.prefix_lengths))
        prefixes, groups = torch.tensor(self.prefix_lengths), torch.tensor(self.group_lengths)
        completions = torch.tensor(self.completion_lengths, dtype=torch.long)
        sequence = [(-1 - prompts).repeat_interleave(prefixes)]
        sequence += [torch.arange(len(completions)).repeat_interleave(completions)]
        prompt = [prompts.repeat_interleave(prefixes), prompts.repeat_interleave(groups)]
        return torch.cat(prompt), torch.cat(sequence)


@dataclass(frozen=True)
class PackedBatch:
    """Input of the language model as one sequence of S tokens, and the outputs to read from it.

    The last token of a completion is left out: no token is predicted after it.

    Attributes:
        input_ids: (S,).
        positions: (axes, S); a completion has the positions that it would have alone after its prompt.
        layout: arrangement of the sequence.
        predictors: (Y,) for each completion token the index in the sequence whose hidden state predicts it.
        rows: (Y,) the row of each completion token in the caller's (n, T) batch.
        columns: (Y,) the column of each completion token in the caller's (n, T) batch.
        suffixes: those of completions with observations, in packed order.
        image_tokens: (S - prefix tokens,) True at tokens of observations that stand for images; None: there
            are no observations.
    """

    input_ids: Tensor
    positions: Tensor
    layout: PackedLayout
    predictors: Tensor
    rows: Tensor
    columns: Tensor
    suffixes: tuple[Suffix, ...] = ()
    image_tokens: Tensor | None = None


def unique_prompts(prompts: Sequence[EncodedPrompt]) -> tuple[list[EncodedPrompt], Tensor]:
    """Return each prompt once, in order of first appearance, and the index of each row's prompt (n,).

    Rows have the same prompt if they hold the same object.
    """
    indices: dict[int, int] = {}
    prompt_of = [indices.setdefault(id(prompt), len(indices)) for prompt in prompts]
    unique = dict(zip(prompt_of, prompts, strict=True))
    return list(unique.values()), torch.tensor(prompt_of)


def pack(
    prompts: Sequence[EncodedPrompt],
    prompt_of: Tensor,
    tokens: Tensor,
    mask: Tensor,
    suffixes: Sequence[Suffix | None] | None = None,
) -> PackedBatch:
    """Pack P prompts and n completions into one sequence.

    Args:
        prompts: P prompts.
        prompt_of: (n,) index of each completion's prompt.
        tokens: (n, T) ids.
        mask: (n, T) True where a token is the completion's own; True comes before False in each row, except
            where a suffix has observations.
        suffixes: of each completion with observations; None: no completion has any.
    """
    order = prompt_of.argsort(stable=True)
    lengths = suffix_lengths(mask)[order]
    packed = (lengths - 1).clamp(min=0)  # tokens of each completion that are in the sequence
    prefix = torch.tensor([len(prompt) for prompt in prompts])
    next_position = torch.tensor([prompt.next_position for prompt in prompts])
    row, column = order.repeat_interleave(packed), _ranges(packed)
    groups = torch.zeros_like(prefix).index_add(0, prompt_of[order], packed)
    rows, columns = order.repeat_interleave(lengths), _ranges(lengths)
    starts = int(prefix.sum()) + packed.cumsum(0) - packed
    # The last prefix token predicts the first completion token; each completion token predicts the next one.
    predictors = torch.where(
        columns == 0, prefix.cumsum(0)[prompt_of[rows]] - 1, starts.repeat_interleave(lengths) + columns - 1
    )
    positions = (next_position[prompt_of[row]] + column).expand(prompts[0].positions.shape[0], -1)
    observed: dict[str, Any] = {}
    if suffixes is not None:
        in_order = [suffixes[number] for number in order.tolist()]
        positions, image_tokens = _of_observations(in_order, packed.tolist(), positions)
        observed = {"suffixes": tuple(one for one in in_order if one), "image_tokens": image_tokens}
        # No token of an observation is predicted.
        own = mask[rows, columns]
        predictors, rows, columns = predictors[own], rows[own], columns[own]
    return PackedBatch(
        input_ids=torch.cat([*(prompt.input_ids for prompt in prompts), tokens[row, column]]),
        positions=torch.cat([*(prompt.positions for prompt in prompts), positions], 1),
        layout=packed_layout(prefix, groups, packed),
        predictors=predictors,
        rows=rows,
        columns=columns,
        **observed,
    )


def _of_observations(
    suffixes: Sequence[Suffix | None], lengths: Sequence[int], positions: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the positions (axes, C) of C packed tokens, and which of them stand for images (C,)."""
    positions = positions.clone()
    images = torch.zeros(positions.shape[1], dtype=torch.bool)
    start = 0
    for suffix, length in zip(suffixes, lengths, strict=True):
        if suffix is not None:
            positions[:, start : start + length] = suffix.positions[:, :length]
            if suffix.token_types is not None:
                images[start : start + length] = suffix.token_types[:length] == 1
        start += length
    return positions, images


def pack_continued(prompts: Sequence[ContinuedPrompt]) -> tuple[PackedBatch, Tensor, Tensor]:
    """Pack prompts with suffixes into one sequence, in which a prompt that several continue occurs once.

    Returns:
        the batch, of which ``rows`` and ``predictors`` (n,) are of the token after each prompt's last; the
        index in the sequence of each token of each prompt with its suffix, one prompt after the other; and
        the lengths (n,) of these.
    """
    unique, prompt_of = unique_prompts([one.prompt for one in prompts])
    lengths = torch.tensor([one.tokens.numel() for one in prompts])
    # A last token of which only the prediction is wanted: ``pack`` leaves it out.
    tokens = pad_sequence([torch.cat([one.tokens, one.tokens[:1]]) for one in prompts], batch_first=True)
    mask = torch.arange(tokens.shape[1]) == lengths.unsqueeze(1)
    batch = pack(unique, prompt_of, tokens, mask, [one.suffix for one in prompts])
    prefixes = torch.tensor(batch.layout.prefix_lengths)
    starts = prefixes.cumsum(0) - prefixes
    order = prompt_of.argsort(stable=True)
    ends = torch.empty_like(lengths)
    ends[order] = batch.layout.prefix_tokens + lengths[order].cumsum(0)
    spans = []
    for number, prompt in enumerate(prompt_of.tolist()):
        first, last = int(starts[prompt]), int(ends[number])
        spans.append(torch.arange(first, first + int(prefixes[prompt])))
        spans.append(torch.arange(last - int(lengths[number]), last))
    return batch, torch.cat(spans), prefixes[prompt_of] + lengths


def packed_layout(prefixes: Tensor, groups: Tensor, completions: Tensor) -> PackedLayout:
    """Compute the layout from the lengths of prefixes (P,), of groups (P,) and of packed completions (n,)."""
    completions = completions[completions > 0]
    pad = unpad = None
    if len(completions) and int(completions.min()) < int(completions.max()):
        width = int(completions.max())
        inside = torch.arange(width) < completions.unsqueeze(1)
        unpad = inside.flatten().nonzero().squeeze(1)
        pad = torch.zeros(inside.numel(), dtype=torch.long).index_copy(0, unpad, torch.arange(len(unpad)))
    return PackedLayout(prefixes.tolist(), groups.tolist(), completions.tolist(), pad, unpad)


def _ends(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


def _ranges(lengths: Tensor) -> Tensor:
    """Concatenate 0 … l-1 for each length l."""
    ends = lengths.cumsum(0)
    return torch.arange(int(lengths.sum())) - (ends - lengths).repeat_interleave(lengths)
