"""One recipe or part in words and formulas, for the terminal."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from mm_cpgd.algorithms.catalogue import options_text
from mm_cpgd.algorithms.described import description_of, filled
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.algorithms.parts import PARTS, Part

LEGEND = (
    "ℓ = log π − log π_old of a token, r = e^ℓ; R reward, mean and std of the prompt's completions; "
    "y a completion of |y| tokens, M of them in the mini-batch over all processes; sg: stop gradient"
)
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
Line = tuple[str, str]


def composed_formula(objective: Objective) -> str:
    """The objective in one line: ``J = Σ w·(m·S − Ω)`` over the tokens of the mini-batch."""
    weights = "·".join(_letters("m", objective.token_weights))
    terms = [f"{weights}·S" if weights else "S"]
    terms += _letters("Ω", objective.regularizers)
    inner = " − ".join(terms)
    return f"J = Σ w·({inner})" if len(terms) > 1 else f"J = Σ w·{inner}"


def composition(objective: Objective) -> Iterator[Line]:
    """What each letter of the formula is, in numbers: label and text; indented lines have no label."""
    yield "maximise", f"{composed_formula(objective)}, the sum over all tokens of the mini-batch"
    for part, letter in _lettered(objective):
        formula = part.description.text(part.options)
        symbol = formula.partition(" = ")[0]
        if letter and symbol in ("Ω", "m"):
            formula = letter + formula[len(symbol) :]
        yield f"{part.kind}: {part.name}", formula
        if part.description.gradient:
            yield "", f"gradient, times ∇log π: {filled(part.description.gradient, part.options)}"
        yield "", f"source: {part.description.source}"
    yield "", LEGEND
    yield "reference policy", "held" if objective.needs_reference else "none"


def part_lines(kind: str, name: str) -> Iterator[Line]:
    """All about one part."""
    function = PARTS[kind][name]
    description = description_of(function)
    yield kind, name
    yield "formula", description.text()
    if description.gradient:
        yield "gradient", f"{filled(description.gradient)}, times ∇log π"
    yield "options", options_text(function)
    yield "source", description.source
    yield "", inspect.getdoc(function) or ""


def _lettered(objective: Objective) -> Iterator[tuple[Part, str]]:
    """Each part with the letter that stands for it in the formula, or none."""
    yield objective.advantage, "A"
    yield objective.surrogate, "S"
    yield from zip(objective.token_weights, _letters("m", objective.token_weights), strict=True)
    yield from zip(objective.regularizers, _letters("Ω", objective.regularizers), strict=True)
    yield objective.aggregation, "w"
    for part in (*objective.selection, *objective.shaping):
        yield part, ""
    if objective.prompts:
        yield objective.prompts, ""


def _letters(letter: str, parts: tuple[Part, ...]) -> list[str]:
    """The letter for each part, numbered where there are several."""
    if len(parts) == 1:
        return [letter]
    return [letter + str(number + 1).translate(_SUBSCRIPTS) for number in range(len(parts))]
