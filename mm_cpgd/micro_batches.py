"""Which rows go through the model together, so that memory is bounded by tokens and not by rows."""

from __future__ import annotations

from collections.abc import Sequence


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
