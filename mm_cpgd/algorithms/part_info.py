"""Descriptions of parts (formula, gradient, source) for the command line and the docs; ranges of options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import Field

Function = TypeVar("Function", bound=Callable[..., Any])

# Symbols that formulas use for options with a letter in the papers; other options keep their names.
SYMBOLS = {"epsilon_low": "ε_low", "epsilon_high": "ε_high", "alpha": "α", "coefficient": "β"}


@dataclass(frozen=True)
class Description:
    """Formula, source and gradient of a part, and what it needs beyond its inputs.

    Attributes:
        formula: with options in braces, as in ``{epsilon_low}·A``.
        source: paper or author.
        gradient: gradient of a token's term, times ∇log π; empty where it is not stated.
        choice: the option that selects one of ``variants``.
        variants: value of that option → completion of the formula.
        prepare: function of all tokens of the mini-batch, called before its first step; its result is the
            part's input ``prepared``.
        of_groups: function of whole groups at the current policy, called before each optimizer step; its
            result is the part's input ``prepared``. Inputs: ``rewards``, ``lengths``, ``log_ratios`` and
            ``reference_log_ratios`` (sums over a completion), all (p, G), NaN where there is no completion.
        state: factory of the object whose ``value`` is the part's input ``state``, see
            ``regularizers.State``.
        draws: names of the options that hold how many tokens are drawn from the policy's distribution at each
            position, and the temperature of the draws; of surrogates that take ``drawn_logprobs``.
        without_old: whether a surrogate means something where there is no old policy, its log-probabilities
            being 0, as in fine-tuning on solutions.
        memory: factory of the object that is the part's input ``memory``, shared by all parts that name the
            same one, see ``inputs.memory.Memory``.
        group: what parts of the kind it stands beside in the catalogue.
        use: when to take it, in one line.
        differs: where the part differs from its source, one text each: what the source does, what this part
            does, and the setting for the source's behaviour where there is one.
    """

    formula: str
    source: str = "–"
    gradient: str = ""
    choice: str = ""
    variants: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[..., Any] | None = None
    of_groups: Callable[..., Any] | None = None
    state: Callable[..., Any] | None = None
    draws: tuple[str, str] | None = None
    without_old: bool = False
    memory: Callable[..., Any] | None = None
    group: str = ""
    use: str = ""
    differs: tuple[str, ...] = ()

    def text(self, options: Mapping[str, Any] | None = None) -> str:
        """Return the formula in symbols with all variants, or in numbers with the variant of ``options``."""
        if not self.variants:
            return fill_options(self.formula, options)
        chosen = None if options is None else str(options[self.choice])
        selected = [
            text if chosen else f"{name}: {text}"
            for name, text in self.variants.items()
            if chosen in (None, name)
        ]
        return "; ".join([fill_options(text, options) for text in (self.formula, *selected)])


def described(formula: str, **more: Any) -> Callable[[Function], Function]:
    """Return a decorator that attaches a ``Description`` with these fields; also for users' own parts.

    Raises:
        TypeError: a field that ``Description`` does not have, or ``stage``, the former name of ``prepare``.
    """
    if "stage" in more:
        raise TypeError("@described: the keyword stage is now called prepare; rename it in your file")

    def attach(function: Function) -> Function:
        vars(function)["description"] = Description(formula, **more)
        return function

    return attach


def description_of(function: Callable[..., Any]) -> Description:
    """Return the attached description; without one the first line of the docstring is the formula."""
    found = getattr(function, "description", None)
    if isinstance(found, Description):
        return found
    return Description((inspect.getdoc(function) or function.__name__).partition("\n")[0])


def fill_options(formula: str, options: Mapping[str, Any] | None = None) -> str:
    """Replace ``{option}`` with its symbol, or with its value where options are given and it is not None."""

    def replacement(match: re.Match[str]) -> str:
        name = match[1]
        value = None if options is None else options.get(name)
        return SYMBOLS.get(name, name) if value is None else format_value(value)

    return re.sub(r"\{(\w+)\}", replacement, formula)


def format_value(value: Any) -> str:
    """Format an option's value for people."""
    return f"{value:g}" if isinstance(value, float) else "–" if value is None else str(value)


OpenShare = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
AboveOne = Annotated[float, Field(gt=1)]
UpToOne = Annotated[float, Field(gt=0, le=1)]
