"""Option letters that a text names: which it asserts, and with which text beside them.

"(B)", "B. 12 cm", "I would go with B", "not (A), rather (C)" name one option; "A or B" names two; "it is
not A" and "maybe A" name none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rewards.extract.stance import denied_before, doubts
from rewards.math.bounds import MAX_CHARS
from rewards.math.clean import clean

_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}|\$")
_ARROW = re.compile(r"\\(?:to|rightarrow|implies|Rightarrow)(?![a-zA-Z])(?=\s*[(\[]?[A-J]\b)")
_MENTION = re.compile(
    r"(?<![A-Za-z0-9\\'’_^+*=<>¬.∠△-])(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-J])(?![A-Za-z0-9'’(^_]|\s*[=^+*<>]))[)\].:]{0,3}"
)
_LONE = re.compile(
    r"(?:option|choice|answer|选项?|選項?)?\s*[(\[]?\s*([A-Za-z])\s*[)\].:,!]{0,3}", re.IGNORECASE
)
_RUN = re.compile(r"[A-J]{2,10}")
_LABELLED = re.compile(
    r"\b(?:option|choice|answer|is|be|select|pick|choose)\s*:?\s*$|[选選]\s*$", re.IGNORECASE
)
_COMMAND_BEFORE = re.compile(r"\\[a-z]+\s*\{?\s*$")
# A capital A before these words is the letter; before other lower-case words it is the article.
_AFTER_LETTER = re.compile(
    r"\s+(?:is|are|was|and|or|because|since|as|but|so|then|here|if|would|seems|must|should|can|cannot|may|maybe|"
    r"perhaps|for|with|which|not|isn['’]t|looks|appears|has|wins)\b"
)
_JOINER = re.compile(
    r"[\s,;/|&+]*(?:\b(?:and|or|nor|both|either)\b|[和与或及、])?[\s,;/|&+(\[]*", re.IGNORECASE
)
_CLAUSE = re.compile(
    r"[.;!?\n。；]|,\s|，|\b(?:but|because|since|while|whereas|although|rather|instead)\b", re.IGNORECASE
)
_DENIED_AFTER = re.compile(
    r"[\s,.:)\]–—-]*(?:(?:is|are|was|were|can|would|does|do|could|has|seems?)\s*(?:be\s+)?(?:definitely|clearly|also|both|all|surely)?\s*)?"
    r"(?:not\b|n['’]t\b|no\b|wrong|incorrect|false|invalid|never|cannot|eliminated|ruled|excluded|out\b|[✗✘❌]|不|错|錯)"
    r"|[\s,.:)\]–—-]*(?:isn|aren|wasn|can|doesn|don|won|wouldn|couldn)['’]t\b",
    re.IGNORECASE,
)
_DENIED_END = re.compile(
    r"\b(?:is|are|was|were|would\s+be)\s+(?:not|never|wrong|incorrect|false|impossible|excluded)\b[^.;]*$|[✗✘❌]",
    re.IGNORECASE,
)
_WRONG_END = re.compile(r"\b(?:is|are)\s+(?:wrong|incorrect|false)\W*$", re.IGNORECASE)
_NEAR = 60
# Beside a letter: "A or 12 cm", a value on the next line, "12 cm, A" without a word between them.
_ALTERNATIVE = re.compile(r"^\W*\bor\b\s*[^(\sA-J]|^\s*;;\s*-?[\d\\]", re.IGNORECASE)
_VALUE_BEFORE = re.compile(r"^\s*-?[\d\\][^A-Za-z]*(?:;;\s*)?$")
_NOT_NEXT = re.compile(r"\W*(?:and\s+|but\s+)?(?:not|never)\s*", re.IGNORECASE)
_REASON = re.compile(r"[ ,;]{1,3}(?:\(\s?)?\b(?:because|since)\b.*", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Mention:
    """One letter that a text names, with the text beside it.

    Attributes:
        letter: the capital letter.
        stance: ``asserted``, ``denied`` or ``doubted``.
        before: the text of its clause before it.
        after: the text of its clause after it, up to the next letter.
        tail: the whole text after it, up to the next letter.
    """

    letter: str
    stance: str
    before: str
    after: str
    tail: str = ""


def unwrapped(text: str) -> str:
    r"""Return cleaned text without ``$``, ``\text`` and braces, with single spaces; ``;;`` is a new line."""
    text = _TEXT.sub(lambda match: f" {match.group(1) or ''} ", clean(text[:MAX_CHARS]))
    text = re.sub(r"\s*\n\s*", " ;; ", _ARROW.sub("→ ", text.strip()))
    if "\\" not in text:
        text = text.replace("{", "").replace("}", "")
    return re.sub(r"\s+", " ", text).strip()


def _is_letter(match: re.Match[str]) -> bool:
    """Return whether a capital letter is an option's: not the article "A", the pronoun "I" or a name."""
    if _COMMAND_BEFORE.search(match.string[: match.start()][-16:]):
        return False
    if match.group(1):
        return True
    text, letter = match.string, match.group(2)
    labelled = match.end() > match.end(2) or _LABELLED.search(text[: match.start()][-20:])
    if letter not in ("A", "I") or labelled:
        return True
    after = text[match.end() :]
    if letter == "I":
        return not after.strip()
    return not re.match(r"\s+[a-z]", after) or _AFTER_LETTER.match(after) is not None


def _clause_before(text: str) -> str:
    pieces = _CLAUSE.split(text)
    return pieces[-1] if pieces else text


def _clause_after(text: str) -> str:
    match = _CLAUSE.search(text)
    return text[: match.start()] if match else text


def mentions(text: str) -> list[Mention]:
    """Return the option letters that ``text`` (of ``unwrapped``) names, with what it says of each."""
    text = _REASON.sub("", text) or text
    found = [match for match in _MENTION.finditer(text) if _is_letter(match)]
    out: list[Mention] = []
    for i, match in enumerate(found):
        gap = text[found[i - 1].end() if i else 0 : match.start()]
        tail = text[match.end() : found[i + 1].start() if i + 1 < len(found) else len(text)]
        if i + 1 < len(found) and _NOT_NEXT.fullmatch(tail):
            tail = ""  # the negation is of the next letter: "A, not C"
        before, after = _clause_before(gap.removesuffix(", ")), _clause_after(tail)
        out.append(
            Mention(
                _letter(match),
                _stance(gap, before, after, tail, out),
                before.strip(),
                after.strip(),
                tail.strip(),
            )
        )
    return out


def _letter(match: re.Match[str]) -> str:
    return (match.group(1) or match.group(2)).upper()


def _stance(gap: str, before: str, after: str, tail: str, earlier: list[Mention]) -> str:
    joined = bool(earlier) and _JOINER.fullmatch(gap) is not None
    if joined and earlier[-1].stance != "asserted":
        return earlier[-1].stance
    if (
        doubts(before)
        or doubts(tail[:_NEAR])
        or _ALTERNATIVE.search(tail[:_NEAR])
        or _VALUE_BEFORE.search(before)
    ):
        return "doubted"
    if re.match(r"\W*\b(?:if|unless)\b", tail, re.IGNORECASE):
        return "doubted"
    if tail.startswith("?") or re.search(r"\bif\b", before, re.IGNORECASE):
        return "doubted"
    if (
        denied_before(before if not joined else "")
        or _excepted(gap)
        or _DENIED_AFTER.match(after or tail)
        or _DENIED_END.search(after)
        or _WRONG_END.search(tail)
    ):
        return "denied"
    return "asserted"


def _excepted(before: str) -> bool:
    return (
        re.search(r"\b(?:any|none|all|everything|anything|except|but|one)\s+(?:of|but|except)\s*$", before)
        is not None
    )


def letters_in(text: str) -> frozenset[str]:
    """Return the option letters that ``text`` asserts: "B", "(b)", "B. 12 cm", "A and C", "ACD"; or none.

    None also where it doubts one of them ("A, or maybe B") or both asserts and denies one.
    """
    text = unwrapped(text)
    lone = _LONE.fullmatch(text)
    if lone:
        return frozenset(lone.group(1).upper())
    if _RUN.fullmatch(text) and list(text) == sorted(set(text)):
        return frozenset(text)
    return asserted(mentions(text))


def asserted(named: list[Mention]) -> frozenset[str]:
    """Return the letters that are asserted, none if one is doubted or both asserted and denied."""
    letters = frozenset(one.letter for one in named if one.stance == "asserted")
    unclear = any(
        one.stance == "doubted" or (one.stance == "denied" and one.letter in letters) for one in named
    )
    return frozenset() if unclear else letters
