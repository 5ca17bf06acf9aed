"""Values of all tokens of a mini-batch, over all processes, for parts that must see the whole of it."""

from __future__ import annotations

import random

import torch
from accelerate import Accelerator
from torch import Tensor

from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.experience import Experience


def prepare_parts(
    objective: Objective, experience: Experience, old_entropy: Tensor, accelerator: Accelerator, seed: str
) -> dict[str, Tensor]:
    """Ask the objective's parts what they need to know of each mini-batch.

    Args:
        objective: with ``prepared_parts``.
        experience: of this process, its ``old_logprobs`` complete.
        old_entropy: (n, T) of the policy that sampled.
        accelerator: of the run.
        seed: of random choices, the same on all processes.

    Returns:
        ``Part.where`` to (n, T), 0 where the mask is False.
    """
    assert experience.old_logprobs is not None
    advantages = experience.advantages[:, None].expand(experience.mask.shape)
    values = torch.stack([experience.old_logprobs, old_entropy, advantages])
    prepared = {part.where: torch.zeros(experience.mask.shape) for part in objective.prepared_parts}
    for mini_batch in range(len(experience.lengths)):
        here = experience.mask & (experience.mini_batch == mini_batch)[:, None]
        everyones, own = gather_columns(values[:, here], accelerator)
        number = random.Random(f"{seed}/{mini_batch}").getrandbits(62)
        # In float64 the order of processes leaves no trace in means.
        old_logprobs, entropy, advantage = everyones.double()
        for where, found in objective.prepare(old_logprobs, entropy, advantage, number).items():
            prepared[where][here] = found[own].float()
    return prepared


def gather_columns(values: Tensor, accelerator: Accelerator) -> tuple[Tensor, slice]:
    """Put the columns of all processes side by side.

    Args:
        values: (R, k), k may differ by process.
        accelerator: of the run.

    Returns:
        (R, K) on the CPU, and which columns are this process's.
    """
    counts = accelerator.gather(torch.tensor([values.shape[1]], device=accelerator.device)).tolist()
    padded = torch.zeros(1, len(values), max(counts), device=accelerator.device)
    padded[0, :, : values.shape[1]] = values
    gathered = accelerator.gather(padded).cpu()
    everyones = torch.cat([own[:, :count] for own, count in zip(gathered, counts, strict=True)], 1)
    start = sum(counts[: accelerator.process_index])
    return everyones, slice(start, start + values.shape[1])
