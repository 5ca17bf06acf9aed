"""Advantages by token, computed from the completions of all processes together."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.training.experience import Experience

COLUMNS = ("advantages", "old_logprobs", "old_entropy", "tokens", "mask")
"""Tables of every run; ``reference_logprobs`` follows where there is a reference policy."""


def token_advantages(
    objective: Objective,
    experience: Experience,
    old_entropy: Tensor,
    accelerator: Accelerator,
    iteration: int,
    tokenizer: Any = None,
) -> Tensor:
    """Return this process's advantages by token (n, T), float32.

    Args:
        objective: an objective with ``token_advantages``.
        experience: this process's experience, with complete ``old_logprobs`` and ``facts``.
        old_entropy: (n, T) nats, of the policy that sampled.
        accelerator: the run's accelerator.
        iteration: the running iteration, from 1.
        tokenizer: needed only if a part asks for ``pieces``.
    """
    rows, own = gather_rows(experience, old_entropy, accelerator)
    if objective.asks("pieces"):
        rows["pieces"] = pieces_of(rows["tokens"], rows["mask"], tokenizer)
    found = objective.advantages_by_token(rows, iteration)[own]
    width = experience.tokens.shape[1]
    return torch.where(experience.mask, found[:, :width].float(), 0.0)


def gather_rows(
    experience: Experience, old_entropy: Tensor, accelerator: Accelerator
) -> tuple[dict[str, Any], Tensor]:
    """Return the completions of all processes in the order of the draws, and which are this process's.

    Returns:
        ``COLUMNS``, and ``reference_logprobs`` if known, (N, T) and each of ``Experience.facts``, (N,) or
        (N, k), float64 but for ids and masks; and (n,), the place of each own row among them.
    """
    assert experience.old_logprobs is not None
    assert experience.facts is not None
    given, mask = experience.advantages, experience.mask
    by_token = given if given.dim() > 1 else given[:, None].expand(mask.shape)
    tables = [by_token, experience.old_logprobs, old_entropy, experience.tokens, mask]
    columns: tuple[str, ...] = COLUMNS
    if experience.reference_logprobs is not None:
        tables.append(experience.reference_logprobs)
        columns = (*COLUMNS, "reference_logprobs")
    cells = torch.stack([torch.where(mask, table.double(), 0.0) for table in tables], 1)
    names = sorted(experience.facts)
    own = [experience.facts[name].double() for name in names]
    facts = torch.cat([one if one.dim() > 1 else one[:, None] for one in own], 1)
    device = accelerator.device
    sizes = accelerator.gather(torch.tensor([cells.shape[0], cells.shape[2]], device=device)).view(-1, 2)
    count, width = sizes.amax(0).tolist()
    padded = torch.zeros(count, len(columns) * width + facts.shape[1], dtype=torch.float64, device=device)
    values = torch.nn.functional.pad(cells, (0, width - cells.shape[2])).flatten(1)
    padded[: len(cells)] = torch.cat([values, facts], 1).to(device)
    everyone = accelerator.gather(padded).cpu().unflatten(0, (accelerator.num_processes, count))
    counts = sizes[:, 0].tolist()
    table = torch.cat([part[:size] for part, size in zip(everyone, counts, strict=True)])
    known = table[:, len(columns) * width :].split([1 if one.dim() < 2 else one.shape[1] for one in own], 1)
    numbers = {
        name: part if one.dim() > 1 else part[:, 0] for name, one, part in zip(names, own, known, strict=True)
    }
    largest = numbers["completion_of"].max() + 1 if len(table) else 1
    order = (numbers["prompt_of"] * largest + numbers["completion_of"]).argsort()
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    start = sum(counts[: accelerator.process_index])
    found: dict[str, Any] = {name: value[order] for name, value in numbers.items()}
    found |= {name: found[name].long() for name in ("prompt_of", "completion_of")}
    by_column = table[order, : len(columns) * width].unflatten(1, (len(columns), width))
    found |= dict(zip(columns, by_column.unbind(1), strict=True))
    found |= {"tokens": found["tokens"].long(), "mask": found["mask"].bool()}
    return found, place[start : start + len(cells)]


def pieces_of(tokens: Tensor, mask: Tensor, tokenizer: Any) -> dict[int, str]:
    """Return the text of each id among the own tokens; parts of characters have placeholders."""
    return {token: tokenizer.decode([token]) for token in tokens[mask].unique().tolist()}


def group_tables(
    experience: Experience, own: Tensor, logprobs: Tensor
) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
    """Return sums over whole completions as tables (p, G) of this process's prompts, and each row's place.

    Args:
        experience: with ``facts``.
        own: (n,) bool, the rows of a mini-batch, which holds whole groups.
        logprobs: (n, T) of the current policy, known in these rows.

    Returns:
        ``rewards``, ``lengths``, ``log_ratios`` and, with a reference policy, ``reference_log_ratios``,
        float64, NaN where there is no completion; and the row's prompt and completion, (m,) each.
    """
    assert experience.facts is not None
    mask = experience.mask[own]

    def total(values: Tensor) -> Tensor:
        return torch.where(mask, values.double(), 0.0).sum(1)

    current, old = logprobs[own], experience.old_logprobs
    # Rows without values of the old policy are before their first step, at which it is the current one.
    before = current if old is None else torch.where(old[own].isnan(), current, old[own])
    values = {
        "rewards": experience.facts["rewards"][own].double(),
        "lengths": mask.sum(1).double(),
        "log_ratios": total(current - before),
    }
    if experience.reference_logprobs is not None:
        values["reference_log_ratios"] = total(current - experience.reference_logprobs[own])
    prompts, row = experience.facts["prompt_of"][own].unique(return_inverse=True)
    column = experience.facts["completion_of"][own]
    size = (len(prompts), int(column.max()) + 1 if column.numel() else 1)
    tables = {}
    for name, found in values.items():
        tables[name] = torch.full(size, torch.nan, dtype=torch.float64)
        tables[name][row, column] = found
    return tables, (row, column)
