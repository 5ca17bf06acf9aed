"""Rule for a chess move in SAN ("Nf3", "exd8=Q+", "O-O") or coordinates ("g1f3", "e7e8q"), without a board.

    mm-cpgd rewards test examples/rewards/chess_move.py:chess_move examples/rewards/chess_move_cases.jsonl

The whole answer must be one move. Marks of check, capture and comment are ignored. Without a board a move in
coordinates is no SAN move, except the king's own for the gold answer O-O; a gold answer may therefore give
both spellings, "Nf3 / g1f3".
"""

from __future__ import annotations

import re
from typing import Any

from rewards import Status, Verdict, extract_answer

LONGEST = 60
_LATEX = re.compile(r"\\text|\\mathrm|\\[,;: ]|\\(?=#)|[{}$~*`]")
# Words and move numbers before a move that change nothing about it.
_BEFORE = re.compile(
    r"(?:(?:it|the|best|winning|next|correct|move|answer|is|play|plays|white|black)\b:?|\d{1,3}\s?\.{1,3})\s*",
    re.IGNORECASE,
)
_AFTER = re.compile(r"\s?(?:e\.p\.)?\s?[+#!?.]{0,6}$")
_CASTLING = re.compile(r"[O0o]-?[O0o](-?[O0o])?")
_SAN = re.compile(r"([KQRBN]?)([a-h]?[1-8]?)[x:-]?([a-h][1-8])(?:=?\(?([QRBN])\)?)?")
_COORDINATES = re.compile(r"([a-h][1-8])-?([a-h][1-8])=?([qrbn]?)", re.IGNORECASE)
_FIGURES = str.maketrans("♔♕♖♗♘♚♛♜♝♞", "KQRBNKQRBN", "♙♟")
# The king's move in coordinates says the same as castling: where O-O is legal, the king is on e1 or e8.
_KINGS_MOVE = {"e1g1": "O-O", "e8g8": "O-O", "e1c1": "O-O-O", "e8c8": "O-O-O"}


def chess_move(completion: str, example: Any) -> Verdict:
    """1 if the answer is the gold move in SAN or coordinates, else 0.

    Args:
        completion: the model's text.
        example: holds the gold move, or its spellings separated by "/".
    """
    gold = [normalised(text) for text in example.answer.split("/")]
    if None in gold:
        return Verdict(None, Status.UNPARSABLE_GOLD, None, f"{example.answer!r} is not one chess move")
    answer = extract_answer(completion)
    if answer is None:
        return Verdict(0.0, Status.NO_ANSWER, None, "no answer was found in the completion")
    found = normalised(answer)
    if found is None:
        return Verdict(0.0, Status.UNPARSABLE_ANSWER, answer, f"{answer[:LONGEST]!r} is not one chess move")
    right = found in gold or (_KINGS_MOVE.get(found) in gold)
    reason = f"{found} {'is' if right else 'is not'} {example.answer}"
    return Verdict(float(right), Status.CORRECT if right else Status.WRONG, answer, reason)


def normalised(text: str) -> str | None:
    """Return the one spelling of a move, None for any other text.

    "Nxf3+" and "♘f3" become "Nf3", "exd8(Q)#" becomes "ed8=Q", "0-0" becomes "O-O", "E2-E4" becomes "e2e4".
    """
    text = _bare(text)
    if match := _CASTLING.fullmatch(text):
        return "O-O-O" if match[1] else "O-O"
    if match := _COORDINATES.fullmatch(text):
        return "".join(match.groups()).lower() if match[1].lower() != match[2].lower() else None
    match = _SAN.fullmatch(text)
    if not match:
        return None
    piece, origin, target, promoted = match.groups()
    if (piece and promoted) or bool(promoted) != (not piece and target[1] in "18"):
        return None  # pawns promote on the last rank, and only they
    return f"{piece}{origin}{target}" + (f"={promoted}" if promoted else "")


def _bare(text: str) -> str:
    """Return the text without LaTeX, harmless words before the move, and marks after it."""
    if len(text) > LONGEST:
        return ""
    text = " ".join(_LATEX.sub(" ", text.translate(_FIGURES)).split())
    while match := _BEFORE.match(text):
        text = text[match.end() :]
    return _AFTER.sub("", text)
