"""Uniform numbers of the tokens that a loss draws, which depend on a completion's place alone."""

from __future__ import annotations

import torch
from torch import Tensor

from mm_cpgd.algorithms.inputs.draws import Draws
from mm_cpgd.policy.conversation.suffix import suffix_lengths
from mm_cpgd.training.experience import Experience
from mm_cpgd.training.rollouts.seeds import seed_of


def uniforms_of(
    experience: Experience, rows: Tensor, draws: Draws, seed: int, iteration: int, number: int
) -> Tensor:
    """Return the numbers (n, T, K) in [0, 1) of a forward pass, as wide as ``Experience.select`` makes it.

    They are the same for any number of processes and any micro-batches, and others at every optimizer step.

    Args:
        experience: with ``facts``.
        rows: (n,) of the forward pass; of none, those of the stand-in are returned.
        draws: how many tokens are drawn at each position.
        seed: of the run.
        iteration: the running iteration, from 1.
        number: of the optimizer step in the iteration, from 0.
    """
    if not len(rows):
        return torch.zeros(1, 1, draws.count)
    assert experience.facts is not None
    lengths = suffix_lengths(experience.mask[rows]).tolist()
    found = torch.zeros(len(rows), max(lengths), draws.count)
    places = torch.stack([experience.facts[name][rows] for name in ("prompt_of", "completion_of")], 1)
    for own, length, (prompt, completion) in zip(found, lengths, places.tolist(), strict=True):
        generator = torch.Generator().manual_seed(
            seed_of(seed, iteration, number, prompt, completion, "draws")
        )
        own[:length] = torch.rand(length, draws.count, generator=generator)
    return found
