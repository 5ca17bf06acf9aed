"""Prompts and their completions as one stream of tokens without padding, each prompt in it once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mm_cpgd.policy.batch import EncodedPrompt


@dataclass(frozen=True)
class Layout:
    """Where things lie in a stream of S tokens: first all P prefixes, then the completions, prompt by prompt.

    Attributes:
        prefixes: (P,) tokens of each prefix.
        groups: (P,) tokens of all completions of each prompt together.
        completions: (N,) tokens of each completion, in stream order.
        pad: (N · W,) for each place of the completions put into rows of W = max length, the token of the
            completions' part of the stream that lies there; None where all are equally long.
        unpad: (M,) for each token of the completions' part its place in those rows.
    """

    prefixes: list[int]
    groups: list[int]
    completions: list[int]
    pad: Tensor | None = None
    unpad: Tensor | None = None

    @property
    def shared(self) -> int:
        """Tokens of all prefixes: where the completions' part begins."""
        return sum(self.prefixes)

    @property
    def width(self) -> int:
        """Tokens of the longest completion."""
        return max(self.completions, default=0)


@dataclass(frozen=True)
class Stream:
    """What the language model reads, and where it says what.

    The last token of a completion is left out: nothing is predicted behind it.

    Attributes:
        input_ids: (S,).
        positions: (axes, S) that each completion would have alone behind its prompt.
        layout: of the stream.
        predicting: (Y,) the place in the stream whose hidden state predicts each completion token.
        rows: (Y,) the row of each of these tokens, as the caller numbers its rows.
        columns: (Y,) the place of each of these tokens in its completion.
    """

    input_ids: Tensor
    positions: Tensor
    layout: Layout
    predicting: Tensor
    rows: Tensor
    columns: Tensor


def join(prompts: Sequence[EncodedPrompt]) -> tuple[list[EncodedPrompt], Tensor]:
    """Return each prompt once, in order of first appearance, and (n,) which of them each row has.

    Rows have the same prompt when they hold the same object.
    """
    numbers: dict[int, int] = {}
    which = [numbers.setdefault(id(prompt), len(numbers)) for prompt in prompts]
    own = dict(zip(which, prompts, strict=True))
    return list(own.values()), torch.tensor(which)


def lay_out(prompts: Sequence[EncodedPrompt], prompt_of: Tensor, tokens: Tensor, mask: Tensor) -> Stream:
    """Put P prompts and n completions into a stream.

    Args:
        prompts: P prompts.
        prompt_of: (n,) which of them each completion belongs to.
        tokens: (n, T) ids.
        mask: (n, T) True where a token is the completion's own; those come first.
    """
    order = prompt_of.argsort(stable=True)
    lengths = mask.sum(1)[order]
    run = (lengths - 1).clamp(min=0)
    prefix = torch.tensor([len(prompt) for prompt in prompts])
    following = torch.tensor([prompt.next_position for prompt in prompts])
    owner, place = order.repeat_interleave(run), _counting(run)
    groups = torch.zeros_like(prefix).index_add(0, prompt_of[order], run)
    rows, columns = order.repeat_interleave(lengths), _counting(lengths)
    starts = int(prefix.sum()) + run.cumsum(0) - run
    # A completion's first token is predicted at its prefix' last one, the others one place before their own.
    predicting = torch.where(
        columns == 0, prefix.cumsum(0)[prompt_of[rows]] - 1, starts.repeat_interleave(lengths) + columns - 1
    )
    behind = (following[prompt_of[owner]] + place).expand(prompts[0].positions.shape[0], -1)
    return Stream(
        input_ids=torch.cat([*(prompt.input_ids for prompt in prompts), tokens[owner, place]]),
        positions=torch.cat([*(prompt.positions for prompt in prompts), behind], 1),
        layout=_layout(prefix, groups, run),
        predicting=predicting,
        rows=rows,
        columns=columns,
    )


def _layout(prefix: Tensor, groups: Tensor, run: Tensor) -> Layout:
    run = run[run > 0]
    pad = unpad = None
    if len(run) and int(run.min()) < int(run.max()):
        width = int(run.max())
        inside = torch.arange(width) < run.unsqueeze(1)
        unpad = inside.flatten().nonzero().squeeze(1)
        pad = torch.zeros(inside.numel(), dtype=torch.long).index_copy(0, unpad, torch.arange(len(unpad)))
    return Layout(prefix.tolist(), groups.tolist(), run.tolist(), pad, unpad)


def _counting(lengths: Tensor) -> Tensor:
    """Return 0 … l-1 for each length l, one after the other."""
    ends = lengths.cumsum(0)
    return torch.arange(int(lengths.sum())) - (ends - lengths).repeat_interleave(lengths)
