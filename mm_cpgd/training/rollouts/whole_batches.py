"""Values that parts compute once from all tokens of a mini-batch, over all processes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product

import torch
from accelerate import Accelerator
from torch import Tensor

from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.training.experience import Experience
from mm_cpgd.training.rollouts.blind import completion_numbers


def prepare_parts(
    objective: Objective,
    experience: Experience,
    old_entropy: Tensor,
    accelerator: Accelerator,
    seed: str,
    iteration: int = 1,
    elsewhere: Sequence[Objective] = (),
) -> dict[str, Tensor]:
    """Return what the objective's parts compute from each whole mini-batch, over all processes.

    Args:
        objective: an objective with ``prepared_parts``.
        experience: this process's experience, with complete ``old_logprobs``.
        old_entropy: (n, T) of the policy that sampled.
        accelerator: the run's accelerator.
        seed: seed of random choices, identical on all processes.
        iteration: the running iteration, from 1.
        elsewhere: of the rows of each other source.

    Returns:
        ``Part.where`` to (n, T), of each row by its own source's objective, 0 where the mask is False.
    """
    assert experience.old_logprobs is not None
    given = experience.advantages
    advantages = given if given.dim() > 1 else given[:, None].expand(experience.mask.shape)
    columns = [experience.old_logprobs, old_entropy, advantages]
    if experience.blind_logprobs is not None:
        columns += [experience.blind_logprobs, completion_numbers(experience, accelerator)]
    values = torch.stack(columns)
    objectives = [objective, *elsewhere]
    parts = [part for one in objectives for part in one.prepared_parts]
    prepared = {part.where: torch.zeros(experience.mask.shape) for part in parts}
    for mini_batch, (source, one) in product(range(len(experience.lengths)), enumerate(objectives)):
        if source and not one.prepared_parts:
            continue
        here = experience.sampled_mask
        if source and experience.source is not None:
            here = experience.mask & (experience.source == source)[:, None]
        here = here & (experience.mini_batch == mini_batch)[:, None]
        gathered_columns, own = gather_columns(values[:, here], accelerator)
        place = f"{seed}/{mini_batch}/{source}" if source else f"{seed}/{mini_batch}"
        number = random.Random(place).getrandbits(62)
        # In float64 the order of processes has no effect on means.
        old_logprobs, entropy, advantage, *more = gathered_columns.double()
        blind = {"blind_logprobs": more[0], "completion": more[1].long()} if more else None
        found_by_part = one.prepare(old_logprobs, entropy, advantage, number, iteration, blind)
        for where, found in found_by_part.items():
            prepared[where][here] = found[own].float()
    return prepared


def gather_columns(values: Tensor, accelerator: Accelerator) -> tuple[Tensor, slice]:
    """Gather columns of all processes side by side.

    Args:
        values: (R, k); k may differ by process.
        accelerator: the run's accelerator.

    Returns:
        (R, K) on the CPU, and which columns are this process's.
    """
    counts = accelerator.gather(torch.tensor([values.shape[1]], device=accelerator.device)).tolist()
    padded = torch.zeros(1, len(values), max(counts), device=accelerator.device)
    padded[0, :, : values.shape[1]] = values
    gathered = accelerator.gather(padded).cpu()
    gathered_columns = torch.cat([own[:, :count] for own, count in zip(gathered, counts, strict=True)], 1)
    start = sum(counts[: accelerator.process_index])
    return gathered_columns, slice(start, start + values.shape[1])
