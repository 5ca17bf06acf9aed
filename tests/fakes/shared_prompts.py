"""Rows of which several share a prompt, for the tests of shared-prefix training."""

from __future__ import annotations

import torch
from torch import Tensor

from data import Example
from mm_cpgd.policy import EncodedPrompt, Policy

# Of the prompts "square", "wide", "two" (images) and "text": groups of three, one, three and two rows.
PROMPT_OF = (2, 0, 3, 2, 0, 1, 0, 3, 2)


LENGTHS = (5, 9, 1, 12, 0, 7, 9, 2, 1)


Case = tuple[list[EncodedPrompt], Tensor, Tensor]


def case(policy: Policy, examples: list[Example]) -> Case:
    prompts = [policy.encoder.encode(example) for example in examples]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(20, 250, (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)
    return [prompts[p] for p in PROMPT_OF], tokens, mask
