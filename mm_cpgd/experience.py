"""What one process learns from in one iteration, as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mm_cpgd.policy import EncodedPrompt


@dataclass
class Experience:
    """The completions of this process that take part in the update: n rows.

    Attributes:
        examples: dataset index of each prompt.
        prompts: encoded, in the same order; the first one also serves as a stand-in for an empty batch.
        prompt_of: (n,) which prompt each row belongs to.
        tokens: (n, T).
        mask: (n, T) True where a token is the completion's own.
        advantages: (n,).
        mini_batch: (n,) which optimizer step of an inner epoch each row belongs to.
        lengths: for each mini-batch the completion lengths of all processes, (M_k,).
        widest: for each mini-batch the largest number of rows that any process has of it.
        old_logprobs: (n, T) of the policy that sampled; None while the policy still is that one.
        reference_logprobs: (n, T), None where no reference is asked for.
    """

    examples: list[int]
    prompts: list[EncodedPrompt]
    prompt_of: Tensor
    tokens: Tensor
    mask: Tensor
    advantages: Tensor
    mini_batch: Tensor
    lengths: list[Tensor]
    widest: list[int]
    old_logprobs: Tensor | None = None
    reference_logprobs: Tensor | None = None

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def micro_batches(self, mini_batch: int, size: int) -> list[Tensor]:
        """Split a mini-batch's rows into index tensors of at most ``size``, longest rows first.

        All processes get equally many; where a process has fewer rows, some are empty.
        """
        rows = (self.mini_batch == mini_batch).nonzero().squeeze(1)
        widths = [len(self.prompts[p]) for p in self.prompt_of[rows].tolist()]
        widths_of_rows = torch.tensor(widths, dtype=torch.long) + self.mask[rows].sum(1)
        order = widths_of_rows.argsort(descending=True, stable=True)
        count = -(-self.widest[mini_batch] // size)
        parts = list(rows[order].split(size)) if len(rows) else []
        return parts + [rows[:0]] * (count - len(parts))

    def row_prompts(self, rows: Tensor) -> list[EncodedPrompt]:
        """Return the prompt of each row."""
        return [self.prompts[prompt] for prompt in self.prompt_of[rows].tolist()]

    def state(self) -> dict[str, Any]:
        """Return everything but the encoded prompts, which are made again from ``examples``."""
        return {name: value for name, value in vars(self).items() if name != "prompts"}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], prompts: list[EncodedPrompt]) -> Experience:
        """Rebuild what ``state`` describes."""
        return cls(prompts=prompts, **state)


def pad_tokens(completions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return tokens (n, T) and completion_mask (n, T) of n completions (T_i,)."""
    if not completions:
        return torch.zeros(0, 1, dtype=torch.long), torch.zeros(0, 1, dtype=torch.bool)
    lengths = torch.tensor([tokens.numel() for tokens in completions])
    tokens = pad_sequence(list(completions), batch_first=True)
    return tokens, torch.arange(tokens.shape[1]) < lengths.unsqueeze(1)
