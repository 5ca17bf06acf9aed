"""Normalisation of Unicode, LaTeX macros, spacing and markdown to one spelling.

``clean`` preserves the meaning. Splitting, parsing and comparison as text then have to handle only one form:
ASCII mathematics with a small set of LaTeX commands.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

_SUPER = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True))
_SUB = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
_VULGAR = {"½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅛": "1/8", "⅙": "1/6"}
_GREEK = {
    "α": "alpha",
    "β": "beta",
    "γ": "gamma",
    "δ": "delta",
    "θ": "theta",
    "λ": "lambda",
    "μ": "mu",
    "φ": "phi",
    "ω": "omega",
    "ε": "epsilon",
}
_SYMBOLS = {
    **dict.fromkeys("−–—‐‑﹣－", "-"),
    **dict.fromkeys("×✕∗", r"\times "),
    **dict.fromkeys("·⋅∙•", r"\cdot "),
    "÷": r"\div ",
    "√": r"\sqrt ",
    "∞": r"\infty ",
    "≤": r"\le ",
    "⩽": r"\le ",
    "≥": r"\ge ",
    "⩾": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "≌": r"\cong ",
    "≅": r"\cong ",
    "∽": r"\sim ",
    "∼": r"\sim ",
    "⊥": r"\perp ",
    "∥": r"\parallel ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "∠": r"\angle ",
    "△": r"\triangle ",
    "±": r"\pm ",
    "°": r"^{\circ}",
    "º": r"^{\circ}",
    "℃": r"^{\circ}\text{C}",
    "π": r"\pi ",
    "∅": r"\emptyset ",
    "⌊": r"\lfloor ",
    "⌋": r"\rfloor ",
    "⌈": r"\lceil ",
    "⌉": r"\rceil ",
    "→": r"\to ",
    **{letter: rf"\{name} " for letter, name in _GREEK.items()},
    **dict.fromkeys("，、", ","),
    **dict.fromkeys("；", ";"),
    **dict.fromkeys("：∶", ":"),
    "。": ". ",
    **dict.fromkeys("’‘′", "'"),
    **dict.fromkeys("“”", '"'),
}
_CIRCLED = {chr(0x2460 + i): f"({i + 1})" for i in range(20)}
_TABLE = str.maketrans(
    {**_SYMBOLS, **_CIRCLED, **{c: rf" \frac{{{f[0]}}}{{{f[2]}}}" for c, f in _VULGAR.items()}}
)
# A braced group, with at most one more level of braces in it.
_GROUP = r"\{((?:[^{}]|\{[^{}]*\})*)\}"
_FUNCTIONS = "sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|lg|exp|max|min|gcd|lcm"


# Two backslashes end a row of a matrix; elsewhere they are a doubly escaped command, as left over from JSON.
_ROW_END = "\x1e"
# Direction overrides show "12" as "21": what is read is not what is seen, so the text stays unreadable.
_REVERSED = "\ufffd"
_QUAD = re.compile(r"\\q?quad(?!ity)")
_RELATED = re.compile(r"[<>=]|\\(?:le|ge|ne)(?![a-zA-Z])")


def _currency_as_unit(match: re.Match[str]) -> str:
    """Move a currency sign from before a number to a unit after it."""
    dollars, sign, amount = match.groups()
    return f"{dollars}\\text{{dollar}}" if dollars else f"{amount}\\text{{{sign}}}"


def _periodic(match: re.Match[str]) -> str:
    """Mark the period of ``0.1666...`` if it occurs twice, or three times if it is a single digit."""
    start, period, more = match.groups()
    seen = 1 + len(more) // len(period)
    return rf"{start}\overline{{{period}}}" if seen > 2 or len(period) > 1 else match.group()


def _separated(text: str) -> str:
    r"""Write equations or inequalities that ``\quad`` separates one per line."""
    pieces = _QUAD.split(text)
    if "\\begin" in text or not all(_RELATED.search(piece) for piece in pieces):
        return text
    return "\n".join(pieces)


def _system(match: re.Match[str]) -> str:
    """Write a system of equations or inequalities one per line; unchanged if a row has no relation."""
    rows = [row.strip(" ,;\n") for row in match.group(1).split(_ROW_END)]
    rows = [row for row in rows if row]
    return "\n".join(rows) if rows and all(_RELATED.search(row) for row in rows) else match.group()


# (pattern, replacement), in order. Each is linear in the text's length: no nested quantifiers.
_MACROS: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"\\(?:[dtc])frac(?![a-zA-Z])", r"\\frac"),
    (r"\\(?:dbinom|tbinom)(?![a-zA-Z])", r"\\binom"),
    (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|rm|bf|it)(?![a-zA-Z])\.?", ""),
    (r"(?<=\d)\s*\{\s*,\s*\}\s*(?=\d)|\{\s*,\s*\}", ","),
    (r"(?<=\d)(?:\\[,!;:]|,\\!)\s*(?=\d{3})", ""),
    (r"\\\$\s*([\d,.]*\d)|([¥€£])\s*([\d,.]*\d)", _currency_as_unit),
    (r"\\\$", " "),
    (r"\\[,!;:>]|\\ |~|\\q?quad(?!ity)|\\n(?![a-zA-Z])|\\(?:h|v)space\*?\{[^{}]*\}", " "),
    (rf"\\(?:number|num)\s*{_GROUP}", r"\1"),
    (rf"\\(?:quantity|qty|SI)\s*{_GROUP}\s*{_GROUP}", r"\1\\text{\2}"),
    (r"\\sqrt\s*\{\s*\}", r"\\sqrt "),
    (
        r"\\(?:mathrm|mathit|mathsf|textrm|textbf|textit|textnormal|mbox|hbox|unit|si|operatorname|mathop|ce)\*?\s*\{",
        r"\\text{",
    ),
    (r"\\(?:mathrm|mathit|mathsf|mathbf|boldsymbol|bm)(?![a-zA-Z{])(?!\s*\{)", ""),
    (r"\\(?:mathbf|boldsymbol|bm|pmb)\s*\{([^{}]*)\}", r"\1"),
    (r"\\(?:bar|widebar)(?![a-zA-Z])", r"\\overline"),
    (r"\\wide(hat|tilde)(?![a-zA-Z])", r"\\\1"),
    (r"(?<=[\d.])\\hat\s*\{(\d+)\}", r"\\overline{\1}"),
    (r"(\d)\u0307", r"\\dot{\1}"),
    (r"(?:\d\u0305){1,20}", lambda match: rf"\overline{{{match.group().replace(chr(0x305), '')}}}"),
    (r"(?<![\d.])(\d{1,9}\.\d{0,9}?)(\d{1,6}?)(\2+)\s*(?:\.{3}|…|\\l?dots|\\cdots)", _periodic),
    (r"\\langle(?![a-zA-Z])", "("),
    (r"\\rangle(?![a-zA-Z])", ")"),
    (r"\\mathbb\s*\{?\s*R\s*\}?", r"(-\\infty,\\infty)"),
    (r"\\(?:overrightarrow|vec)\s*\{([^{}]*)\}", r"\\vec{\1}"),
    (rf"\\text\s*\{{\s*({_FUNCTIONS})\s*\}}", r"\\\1 "),
    (r"(?<=[A-Za-z\d])\\text\s*\{\s*([A-Za-z])\s*\}", r" \1"),
    (r"\\text\s*\{\s*([A-Za-z]|[\d.,]+|\([A-Z]\))\s*\}", r"\1"),
    (r"\\text\s*\{\s*(and|or|yes|no)\s*\}", r" \1 "),
    (r"\\leqslant(?![a-zA-Z])|\\leq(?![a-zA-Z])|\\leqq(?![a-zA-Z])", r"\\le "),
    (r"\\geqslant(?![a-zA-Z])|\\geq(?![a-zA-Z])|\\geqq(?![a-zA-Z])", r"\\ge "),
    (r"\\lt(?![a-zA-Z])", "<"),
    (r"\\gt(?![a-zA-Z])", ">"),
    (r"\\neq(?![a-zA-Z])|\\not\s*=", r"\\ne "),
    (r"\\(?:vartriangle|Delta(?=\s*[A-Z]{3}))(?![a-zA-Z])", r"\\triangle "),
    (r"\\(?:backsim|thicksim)(?![a-zA-Z])", r"\\sim "),
    (r"\\(?:varnothing|O|empty)(?![a-zA-Z])", r"\\emptyset "),
    (r"\\[lcvd]?dots(?![a-zA-Z])", r"\\ldots "),
    (r"\\varphi(?![a-zA-Z])", r"\\phi "),
    (r"\\var(epsilon|theta|rho|sigma|kappa)(?![a-zA-Z])", r"\\\1 "),
    (r"\\(?:mid|vert|lvert|rvert)(?![a-zA-Z])", "|"),
    (r"\\(?:colon|ratio)(?![a-zA-Z])", ":"),
    (r"\\textdegree(?![a-zA-Z])|\\degree(?![a-zA-Z])|\$\s*textdegree\s*\$", r"^{\\circ}"),
    (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))", r"^{\\circ}"),
    (r"(?<=\d)[\s~]*\^\{\\circ\}\s*(?:\\text\s*\{\s*)?([CF])(?![a-zA-Z])(?:\s*\})?", r"\\text{°\1}"),
    (r"^\s*\$\s*(?=[\d,.]*\d\s*(?:[kKMB]|bn|million|billion|thousand)?\s*$)([\d,.]+)", r"\1\\text{dollar}"),
    (
        r"(?:\\\{\s*)?\\begin\s*\{(?:cases|aligned|array\}\s*\{[lcr])\}([^&]*?)\\end\s*\{(?:cases|aligned|array)\}",
        _system,
    ),
    (r"\\begin\s*\{[vV]matrix\}", r"\\determinant\\begin "),
    (r"(?<=&)\s*(?:\\text\s*\{\s*,?\s*(?:if|for|when)\s*\}|(?:if|for|when)\b)\s*", " "),
    (r"(?<=&)\s*(?:\\text\s*\{\s*(?:otherwise|else)\.?\s*\}|(?:otherwise|else)\b)", r" \\otherwise "),
    (r"\\begin\s*\{(?:[bpvBV]?matrix|cases)\}|\\begin\s*\{array\}\s*\{[lcr|\s]*\}", r"\\begin "),
    (r"\\end\s*\{(?:[bpvBV]?matrix|cases|array)\}", r"\\end "),
    (r"\\%", "%"),
    (r"(?<![\w)\]}*])\*\*(?=\S)([^*\n]{1,200})\*\*(?![\w(*])", r"\1"),
    (r"^\s*\*\*(?!\*)|(?<!\*)\*\*\s*$|__|`", ""),
]
_DOUBLE_ESCAPED = re.compile(r"\\\\(?=[A-Za-z{}()\[\]])")
_COMPILED = [(re.compile(pattern), replacement) for pattern, replacement in _MACROS]


def _script(run: str, table: dict[str, str], mark: str) -> str:
    return f"{mark}{{{''.join(table[c] for c in run)}}}"


def _scripts(text: str) -> str:
    for table, mark in ((_SUPER, "^"), (_SUB, "_")):
        run = re.compile(f"[{''.join(table)}]+")
        text = run.sub(lambda match: _script(match.group(), table, mark), text)  # noqa: B023 - called immediately
    return text


def _printable(text: str) -> str:
    """Drop control, bidi and zero-width characters, which can hide one answer behind another."""
    if "\u202d" in text or "\u202e" in text:
        text = text.replace("\u202d", _REVERSED).replace("\u202e", _REVERSED)
    return "".join(c for c in text if c in "\n\t " or unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cn"))


@lru_cache(maxsize=4096)
def clean(text: str) -> str:
    """Return ``text`` in the normal spelling that the other modules expect; ``$`` delimiters are kept."""
    if text.isascii() and text.isalnum():
        return text
    text = _scripts(_printable(text)).translate(_TABLE)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_TABLE)
    if "\\\\" in text and "\\begin" not in text:
        text = _DOUBLE_ESCAPED.sub(r"\\", text)
    text = _separated(text) if "quad" in text else text
    text = text.replace("\\\\", _ROW_END)
    for pattern, replacement in _COMPILED:
        text = pattern.sub(replacement, text)
    return text.replace(_ROW_END, "\\\\ ").strip()


_TEXT_COMMAND = re.compile(rf"\\text\s*{_GROUP}")
_ARTICLE = re.compile(r"\b(?:the|a|an)\s+(?=\w{2})")
_SPACES = re.compile(r"\s+")
# An exclamation mark after a number is a factorial.
_STOPS = re.compile(r"(?:(?<![\d)])\s*!|\s*[.,;:])+$")


@lru_cache(maxsize=4096)
def plain_text(text: str) -> str:
    """Return the text for comparison of words: lower case, without ``$``, articles, quotes and end stops."""
    text = clean(text).replace("$", " ").replace('"', "").casefold()
    text = _TEXT_COMMAND.sub(r" \1 ", text) if "\\text" in text else text
    text = _SPACES.sub(" ", _ARTICLE.sub("", text)).strip()
    return _STOPS.sub("", text)
