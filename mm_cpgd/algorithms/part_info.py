"""Description of a part (formula, gradient, source) for the command line and the docs; ranges of options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import Field

Function = TypeVar("Function", bound=Callable[..., Any])

# How formulas write the options that papers have letters for; all others go by their own name.
SYMBOLS = {"epsilon_low": "ε_low", "epsilon_high": "ε_high", "alpha": "α", "coefficient": "β"}


@dataclass(frozen=True)
class Description:
    """A part in words and formulas.

    Attributes:
        formula: with options in braces, as in ``{epsilon_low}·A``.
        source: paper or author.
        gradient: of a token's term, times ∇log π; empty where there is none to tell.
        choice: the option that picks one of ``variants``.
        variants: value of that option to what the formula then means.
        stage: a first stage over all tokens of the mini-batch, see ``preparation``; its result is the part's
            input ``prepared``.
        state: makes the object whose ``value`` is the part's input ``state``, see ``states``.
    """

    formula: str
    source: str = "–"
    gradient: str = ""
    choice: str = ""
    variants: Mapping[str, str] = field(default_factory=dict)
    stage: Callable[..., Any] | None = None
    state: Callable[..., Any] | None = None

    def text(self, options: Mapping[str, Any] | None = None) -> str:
        """The formula in symbols and with all variants; or in numbers and with the variant of ``options``."""
        if not self.variants:
            return filled(self.formula, options)
        chosen = None if options is None else str(options[self.choice])
        picked = [
            text if chosen else f"{name}: {text}"
            for name, text in self.variants.items()
            if chosen in (None, name)
        ]
        return "; ".join([filled(text, options) for text in (self.formula, *picked)])


def described(formula: str, **more: Any) -> Callable[[Function], Function]:
    """Attach a ``Description`` with these fields to a function; for users' own parts too."""

    def attach(function: Function) -> Function:
        vars(function)["description"] = Description(formula, **more)
        return function

    return attach


def description_of(function: Callable[..., Any]) -> Description:
    """What was attached; else the first line of the docstring serves as the formula."""
    found = getattr(function, "description", None)
    if isinstance(found, Description):
        return found
    return Description((inspect.getdoc(function) or function.__name__).partition("\n")[0])


def filled(formula: str, options: Mapping[str, Any] | None = None) -> str:
    """Replace ``{option}`` by its symbol, or by its number where options are given and it is not None."""

    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        value = None if options is None else options.get(name)
        return SYMBOLS.get(name, name) if value is None else shown(value)

    return re.sub(r"\{(\w+)\}", replaced, formula)


def shown(value: Any) -> str:
    """An option's value as people write it."""
    return f"{value:g}" if isinstance(value, float) else "–" if value is None else str(value)


OpenShare = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
AboveOne = Annotated[float, Field(gt=1)]
