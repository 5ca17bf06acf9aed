"""The attacks on one gold answer."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from rewards.attack.degenerate import degenerate_attacks
from rewards.attack.empty import elsewhere_attacks, empty_attacks, injection_attacks
from rewards.attack.formulas import formula_attacks
from rewards.attack.gold import Attack, Gold
from rewards.attack.lookalikes import lookalike_attacks
from rewards.attack.numbers import number_attacks
from rewards.attack.options import option_attacks
from rewards.attack.phrases import phrase_attacks
from rewards.attack.reading import read_gold
from rewards.attack.structures import structure_attacks
from rewards.attack.words import word_attacks

_MAKERS = (
    phrase_attacks, number_attacks, lookalike_attacks, formula_attacks, degenerate_attacks, option_attacks,
    structure_attacks, word_attacks, elsewhere_attacks, empty_attacks, injection_attacks,
)  # fmt: skip


def attacks(gold: str, choices: Sequence[str] = ()) -> list[Attack]:
    """Return completions that must not pass for a gold answer; none for one that cannot be changed safely.

    Args:
        gold: the gold answer, as the data set has it.
        choices: the options' texts in order A, B, …; empty for a free-form question.
    """
    read = read_gold(gold, choices)
    return _distinct(read, (one for make in _MAKERS for one in make(read))) if read else []


def _distinct(gold: Gold, made: Iterable[Attack]) -> list[Attack]:
    """Return the attacks without repeated texts and without such as consist of the gold answer."""
    found: dict[str, Attack] = {}
    for one in made:
        if _core(one.completion) != _core(gold.bare):
            found.setdefault(one.completion, one)
    return list(found.values())


def _core(text: str) -> str:
    """Return a completion without its box or tag and without spacing and case."""
    for opening, closing in ((r"\boxed{", "}"), ("<answer>", "</answer>"), ("The answer is ", ".")):
        if text.startswith(opening) and text.endswith(closing):
            text = text[len(opening) : -len(closing)]
    return "".join(text.replace("$", "").lower().split())


def draw(made: Sequence[Attack], per_kind: int | None, seed: str) -> list[Attack]:
    """Return at most ``per_kind`` attacks of each kind, drawn by the seed; all if it is None."""
    if per_kind is None:
        return list(made)
    kinds: dict[str, list[Attack]] = {}
    for one in made:
        kinds.setdefault(one.kind, []).append(one)
    # random.Random hashes all of a string seed.
    rng = random.Random(seed)
    return [one for group in kinds.values() for one in rng.sample(group, min(per_kind, len(group)))]
