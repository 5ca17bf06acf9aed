"""Division of an answer into its items: "(1) 30 yuan (2) 50 yuan", "$4$, $6$", one per line, "6 or 2"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rewards.math.bounds import MAX_ITEMS, Refused

_DELIMITER = re.compile(r"\$\$?|\\[()\[\]]")
_LABELS = re.compile(r"(?:\(\d{1,2}\)\s*[,;]?\s*){2,}\.?|(?:\d\.\s*){2,}")
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")
_PLAIN = re.compile(r"-?\d+(?:\.\d+)?(?:/\d+)?")
_OR = re.compile(r"(?<![\\A-Za-z])or(?![A-Za-z])|或者?")
_AND = re.compile(r"(?<![\\A-Za-z])and(?![A-Za-z])|[和与且]")


@dataclass(frozen=True)
class ItemTexts:
    """Items as texts; ``ordered`` is False if the text joins them by "or" (a solution set)."""

    texts: tuple[str, ...]
    ordered: bool = True


def strip_delimiters(text: str) -> str:
    r"""Drop ``$``, ``$$``, ``\(`` … and put a line break between formulas that only space separates."""
    text = text.replace("\\\\", "\x00")
    pieces = _DELIMITER.split(text)
    if len(pieces) % 2 == 0:
        return _DELIMITER.sub(" ", text).replace("\x00", "\\\\")
    out = [pieces[0]]
    for inside, outside in zip(pieces[1::2], pieces[2::2], strict=True):
        gap = not outside.strip() and outside and len(out) + 2 < len(pieces)
        out += [inside, "\n" if gap else outside]
    return "".join(out).replace("\x00", "\\\\")


def join_thousands(text: str) -> str:
    """Write 1,234,567 without its commas, outside of brackets, where a comma separates coordinates."""
    if "," not in text or re.search(r"[(\[{]\s*-?\d+,\d", text):
        return text
    return _THOUSANDS.sub(lambda m: m.group().replace(",", ""), text)


def _numbered(text: str) -> list[str] | None:
    """Return the contents of ``(1) … (2) …``, or None if the text is not numbered from its start."""
    marks = list(re.finditer(r"\((\d{1,2})\)", text))
    wanted, used = 1, []
    for mark in marks:
        if int(mark.group(1)) == wanted and (wanted > 1 or not text[: mark.start()].strip()):
            used.append(mark)
            wanted += 1
    if len(used) < 2 and not (used and text[used[0].end() :].strip() and len(marks) == 1):
        return None
    ends = [m.start() for m in used[1:]] + [len(text)]
    contents = [text[m.end() : end].strip(" \n;,.") for m, end in zip(used, ends, strict=True)]
    return contents if all(contents) else None


def split_top_level(text: str, separators: str) -> list[str]:
    """Split at the separator characters that are outside of all brackets."""
    pieces, depth, start = [], 0, 0
    nested = "\\begin" in text
    for i, c in enumerate(text):
        if nested and c == "\\" and (text.startswith("\\begin", i) or text.startswith("\\end", i)):
            depth = depth + 1 if text[i + 1] == "b" else max(0, depth - 1)
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth = max(0, depth - 1)
        elif depth == 0 and c in separators:
            pieces.append(text[start:i])
            start = i + 1
    return [*pieces, text[start:]]


def joined_by_and(text: str) -> bool:
    """Return whether the text contains an "and", as between the two bounds of an interval."""
    return _AND.search(text) is not None


def _spaced_numbers(text: str) -> list[str]:
    words = text.split()
    mixed = len(words) == 2 and "/" in words[1] and "/" not in words[0]
    if len(words) > 1 and not mixed and all(_PLAIN.fullmatch(w) for w in words):
        return words
    return [text]


def _item_texts(text: str) -> list[str]:
    if _LABELS.fullmatch(text):
        return re.findall(r"\d+", text)
    numbered = _numbered(text)
    if numbered:
        return [piece for content in numbered for piece in _item_texts(content)]
    pieces = [p for piece in split_top_level(text, "\n;,") for p in _AND.split(piece)]
    stripped = [re.sub(r"^[\s.]+(?!\d)|\s+$", "", p) for p in pieces]
    return [word for p in stripped if p for word in _spaced_numbers(p)]


def _with_numbers(text: str) -> str:
    """Write the labels (a), (b) of parts as (1), (2)."""
    if not text.startswith("(a)") or "(b)" not in text:
        return text
    return re.sub(r"\(([a-h])\)(?=\s)", lambda match: f"({ord(match.group(1)) - 96})", text)


def split_items(text: str) -> ItemTexts:
    """Return the items of a cleaned answer, in order. Raises ``Refused`` if there are too many."""
    text = _with_numbers(join_thousands(strip_delimiters(text)).strip())
    choices = [c.strip(" ,\n") for c in _OR.split(text)] if "\n" not in text and ";" not in text else [text]
    ordered = len(choices) == 1 or not all(choices)
    texts = tuple(piece for choice in ([text] if ordered else choices) for piece in _item_texts(choice))
    if len(texts) > MAX_ITEMS:
        raise Refused(f"{len(texts)} items, at most {MAX_ITEMS} are read")
    return ItemTexts(texts, ordered)
