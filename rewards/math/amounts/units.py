"""Units of measure as products of powers of base units, with an exact factor, and their conversion.

Two units that measure the same thing convert exactly: 4000 cm is 40 m, 20 °C is 68 °F, 5 g/cm³ is 5000 kg/m³.
Units that measure different things contradict each other, and so do a unit and a counted noun (5 apples, 5
dollars). Two counted nouns do not: "19 candies" may be "19 peppermint candies".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from rewards.math.amounts.unit_table import (
    BASES,
    CHINESE,
    DEFINITIONS,
    NAMES,
    PREFIXED,
    PREFIXES,
    WORD_PREFIXES,
)

Measure = tuple[tuple[str, int], ...]
_MAX_POWER = 9


@dataclass(frozen=True)
class Unit:
    """A unit.

    Attributes:
        name: as written.
        measure: the powers of the base quantities, sorted: speed is (("length", 1), ("time", -1)); None for
            a counted noun.
        factor: the size in base units, without the power of π.
        pi: the power of π in the size: a radian is 180/π degrees.
        offset: the zero point in base units (of °C and °F).
        others: the other meanings of an ambiguous name: a pound is a mass or money.
    """

    name: str
    measure: Measure | None = None
    factor: Fraction = Fraction(1)
    pi: int = 0
    offset: Fraction = Fraction(0)
    others: tuple[Unit, ...] = ()


@dataclass(frozen=True)
class Conversion:
    """The change of a number with its unit: times ``factor`` times π to the power ``pi``, plus ``offset``."""

    factor: Fraction = Fraction(1)
    pi: int = 0
    offset: Fraction = Fraction(0)


SAME = Conversion()
_POWER = re.compile(r"([^\d-]+)(-?\d)?")


def product(name: str, factors: list[tuple[Unit, int]]) -> Unit | None:
    """Return the product of powers of units. A zero point is kept only by a unit alone."""
    if len(factors) == 1 and factors[0][1] == 1:
        one = factors[0][0]
        return Unit(name, one.measure, one.factor, one.pi, one.offset)
    powers: dict[str, int] = {}
    factor, pi = Fraction(1), 0
    for unit, power in factors:
        if abs(power) > _MAX_POWER:
            return None
        for base, exponent in unit.measure or ():
            powers[base] = powers.get(base, 0) + exponent * power
        factor, pi = factor * unit.factor**power, pi + unit.pi * power
    measure = tuple(sorted((base, power) for base, power in powers.items() if power))
    return Unit(name, measure, factor, pi)


def _defined(name: str) -> Unit:
    """Return the unit of a symbol of the table."""
    if name in BASES:
        return Unit(name, ((BASES[name], 1),))
    size, *powers = DEFINITIONS[name].partition(" + ")[0].split()
    factors, pi = [(Unit("", (), Fraction(size)), 1)], 0
    for text in powers:
        match = _POWER.fullmatch(text)
        assert match
        if match.group(1) == "pi":
            pi = int(match.group(2))
        else:
            factors.append((_defined(match.group(1)), int(match.group(2) or 1)))
    made = product(name, factors)
    assert made
    offset = DEFINITIONS[name].partition(" + ")[2]
    return Unit(name, made.measure, made.factor, made.pi + pi, Fraction(offset or 0))


def _symbols() -> Iterator[tuple[str, Unit]]:
    for name in (*BASES, *DEFINITIONS):
        unit = _defined(name)
        yield name, unit
        for prefix in PREFIXED.get(name, ""):
            scale = Fraction(10) ** (PREFIXES[prefix])
            yield prefix + name, Unit(prefix + name, unit.measure, unit.factor * scale, unit.pi)


_SYMBOLS = dict(_symbols())


def _meanings(names: str) -> Unit:
    """Return the unit of an entry of the table: symbols separated by "|", where none is a counted noun."""
    first, *others = (_SYMBOLS[name] if name else Unit("") for name in names.split("|"))
    return Unit(first.name, first.measure, first.factor, first.pi, first.offset, tuple(others))


_NAMED = {name: _meanings(names) for name, names in {**NAMES, **CHINESE}.items()}
_POWERED = re.compile(r"(平方|立方)(.+)")


def _candidates(word: str) -> Iterator[str]:
    """Yield the spellings of a name, as written first: mA is no MA, but Meters are meters."""
    for spelled in (word, word.casefold()) if len(word) > 2 else (word,):
        yield spelled
        if len(spelled) > 2:
            yield spelled.removesuffix("s")
            yield spelled.removesuffix("es")


@lru_cache(maxsize=4096)
def named_unit(word: str) -> Unit | None:
    """Return the unit of this name, such as ``km``, ``kilometers``, ``light year``, ``平方米``; or None."""
    for spelled in _candidates(word):
        found = _NAMED.get(spelled) or (_SYMBOLS.get(spelled) if spelled != "one" else None)
        if found:
            return found
    match = _POWERED.fullmatch(word)
    if match:
        inner = named_unit(match.group(2))
        return product(word, [(inner, 2 if match.group(1) == "平方" else 3)]) if inner else None
    return _prefixed_word(word.casefold())


def _prefixed_word(word: str) -> Unit | None:
    for prefix, power in WORD_PREFIXES.items():
        if word.startswith(prefix) and len(word) > len(prefix) + 2:
            inner = named_unit(word[len(prefix) :])
            if inner and inner.measure and not inner.offset:
                return Unit(word, inner.measure, inner.factor * Fraction(10) ** power, inner.pi)
    return None


DEGREES = Unit("°", (("angle", 1),))
PERCENT = Unit("%", (("share", 1),), Fraction(1, 100))
RADIANS = Unit("rad", (("angle", 1),), Fraction(180), -1)
_ANGLE, _TEMPERATURE = (("angle", 1),), (("temperature", 1),)


def _generic(measure: Measure, other: Measure | None) -> bool:
    """Return whether "units" of this measure agree with the other: square units with any area."""
    if len(measure) != 1 or measure[0][0] != "unit":
        return False
    return measure[0][1] == 1 or other in (None, (("length", measure[0][1]),))


def _conversion(a: Unit, b: Unit) -> Conversion | None:
    if a.measure is None and b.measure is None:
        return SAME
    if (a.measure and _generic(a.measure, b.measure)) or (b.measure and _generic(b.measure, a.measure)):
        return SAME
    if a.measure == b.measure:
        return Conversion(a.factor / b.factor, a.pi - b.pi, (a.offset - b.offset) / b.factor)
    # A temperature in plain degrees leaves open whether they are of Celsius or Fahrenheit.
    degrees = {a.measure, b.measure} == {_ANGLE, _TEMPERATURE} and (a.offset or b.offset)
    return SAME if degrees and a.pi == b.pi == 0 else None


def conversions(a: Unit | None, b: Unit | None) -> list[Conversion]:
    """Return the conversions of a number from unit ``a`` to ``b``, one for each pair of meanings that fit.

    None converts to anything; without a conversion, the units contradict each other.
    """
    if a is None or b is None or a == b:
        return [SAME]
    pairs = ((x, y) for x in (a, *a.others) for y in (b, *b.others))
    return list(dict.fromkeys(c for x, y in pairs if (c := _conversion(x, y))))


def units_conflict(a: Unit | None, b: Unit | None) -> bool:
    """Return whether two units contradict each other; a missing one contradicts nothing."""
    return not conversions(a, b)


def is_percent(unit: Unit | None) -> bool:
    """Return whether the unit is the percent, which is also a plain factor: 50% is 0.5."""
    return unit is not None and unit.measure == PERCENT.measure and unit.factor == PERCENT.factor


def convert(value: Fraction, a: Unit | None, b: Unit | None) -> list[Fraction]:
    """Return a number of unit ``a`` in unit ``b``, once for each pair of meanings that fit."""
    return [value * c.factor * Fraction(math.pi) ** c.pi + c.offset for c in conversions(a, b)]
