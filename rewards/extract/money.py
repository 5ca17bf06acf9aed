"""Dollar amounts, which are not delimiters of a formula: "$200,000 - $130,000 = $70,000"."""

from __future__ import annotations

import re

_LINE = re.compile(r"[^\n]*\$[^\n]*")
_DOLLAR = re.compile(r"(?<!\\)\$")
_AMOUNT = re.compile(r"(?<![\\$])\$(?=\d[\d,]*(?:\.\d+)?(?![\d^_\\{(]))")
_FORMULA = re.compile(r"\$-?[\d.,]+\$")


def _escaped(match: re.Match[str]) -> str:
    line = match.group()
    signs = len(_DOLLAR.findall(line))
    amounts = len(_AMOUNT.findall(line))
    if signs != amounts or _FORMULA.search(line):
        return line
    return _AMOUNT.sub(r"\\$", line)


def escape_money(text: str) -> str:
    r"""Return the text with ``\$`` for the dollar signs of lines in which every one starts an amount."""
    return _LINE.sub(_escaped, text) if "$" in text else text
