r"""Official scoring of OlympiadBench: from a response and a row to a verdict, and to accuracy by subset.

The response's answer and the gold answer are freed of boxes and decoration and split at the commas outside
of ( ) and [ ], each \pm becomes two items, and the items are paired in any order
(``eval.official.olympiadbench_items`` compares two of them).

Source: He et al. 2024, arXiv 2402.14008, and the folder ``inference`` of github.com/OpenBMB/OlympiadBench
(``judge.py``, ``code/math_judger.py``, ``calculate_accuracy.py``). Differences from that code:

* Expressions are parsed by this project, not by sympy's ``parse_latex``, and compared at fixed points before
  sympy decides in a worker process, with limits of size and time. Names are real, e and i are the constants,
  and a timed-out comparison is wrong.
* Equations are equal if their ratio is any nonzero constant; there it or its inverse must be an integer.
* Answers in Chinese words are equal if identical; there any two are equal, because the words are removed.
* Intervals and tuples must have the same number of ends; there the shorter one decides.
* Several errors ("0.1,0.01") apply to the gold answer's items; there to the answer's, in their order.
* A row without a response is wrong; there it is excluded from the average.
* "±" and ``\%`` are read as ``\pm`` and ``%``; spaces around an answer do not count.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from data.example import DataError
from eval.official.olympiadbench_items import Budget, same_item
from rewards.messages import short
from rewards.verdict import Status, Verdict

DEFAULT_ERROR = 1e-8
TIME_LIMIT = 2.0
_MAX_CHARS = 2_000
_MAX_ITEMS = 30
_FINAL = {
    False: re.compile(r"So the final answer is (.*)"),
    True: re.compile(r"所以最终答案是(.*)"),
}
_BOX = r"\boxed{"
_FORMULA = re.compile(r"\$(.*?)\$")
_REPLACED = [
    (re.compile(r"\\(?:left|right)(?![A-Za-z])|\$|\^\s*\\circ|\^\{\s*\\circ\s*\}|\\?%"), ""),
    (re.compile(r"\\(?:approx|simeq|sim)(?![A-Za-z])"), "="),
    (re.compile(r"\^\\prime|\^\{\\prime\}"), "'"),
    (re.compile("±"), r"\\pm "),
    (re.compile("∶"), ":"),
    (re.compile("，"), ","),
]
_STYLE = re.compile(r"\\(?:mathrm|mathbf)\{~?([^}]{0,200})\}")
_EDGES = " \n$,.:;^_=+`!@#%&*~，。"
_CHINESE = re.compile("[\u4e00-\u9fff]+")
_PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z])")


def extract_answer(response: str, *, chinese: bool = False) -> str | None:
    r"""Return the bare final answer, None if there is none.

    It is searched after "So the final answer is" ("所以最终答案是") in the last line with these words,
    else in the complete response: all boxes, joined by commas; without a box, the formulas between dollar
    signs of the last line; without those, all of the text. With an unclosed box there is no answer.
    """
    found = _FINAL[chinese].findall(response)
    text = found[-1] if found else response
    contents = _boxes(text)
    if contents is None:
        return None
    lines = text.strip().split("\n")
    chosen = contents or _FORMULA.findall(lines[-1])
    return _undecorated(",".join(chosen) if chosen else text) or None


def _boxes(text: str) -> list[str] | None:
    r"""Return the contents of each \boxed, None if one is not closed."""
    contents, end = [], 0
    while (start := text.find(_BOX, end)) >= 0:
        end = _closing(text, start + len(_BOX))
        if not end:
            return None
        contents.append(text[start + len(_BOX) : end - 1])
    return contents


def _closing(text: str, start: int) -> int:
    """Return the index after the brace that closes one opened before ``start``, 0 if there is none."""
    depth = 1
    for brace in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if brace.group() == "{" else -1
        if not depth:
            return brace.end()
    return 0


def _undecorated(text: str) -> str:
    r"""Remove decoration that does not change an answer, and everything before \in."""
    text = text.split("\\in ")[1] if "\\in " in text else text
    for pattern, replacement in _REPLACED:
        text = pattern.sub(replacement, text)
    return _STYLE.sub(r"\1", text.strip(_EDGES)).strip()


def split_answer(answer: str) -> list[str]:
    """Split at the commas outside of ( ) and [ ]; a last empty item is dropped."""
    items, depth, start = [], 0, 0
    for i, character in enumerate(answer):
        depth += (character in "([") - (character in ")]")
        if character == "," and not depth:
            items.append(answer[start:i].strip())
            start = i + 1
    return [*items, answer[start:].strip()] if start < len(answer) else items


def _errors(error: str | float | None, count: int) -> list[float]:
    """Return the absolute error of each of ``count`` items. Raises ``DataError`` if the column is invalid."""
    try:
        given = [float(one) if one.strip() else DEFAULT_ERROR for one in str(error or "").split(",")]
    except ValueError:
        given = [math.nan]
    if not all(math.isfinite(one) and one >= 0 for one in given):
        raise DataError(f"error {error!r} must be one or several nonnegative numbers, separated by commas")
    return given * count if len(given) == 1 else (given + [DEFAULT_ERROR] * count)[:count]


def _expanded(items: Sequence[str], errors: Sequence[float]) -> list[tuple[str, float]]:
    r"""Return each item with its error; one with \pm becomes two."""
    return [
        (_PLUS_MINUS.sub(sign, item), error)
        for item, error in zip(items, errors, strict=True)
        for sign in ("+-" if _PLUS_MINUS.search(item) else "+")
    ]


def grade(
    response: str,
    gold: str,
    *,
    error: str | float | None = None,
    answer_type: str = "",
    chinese: bool = False,
    limit: float = TIME_LIMIT,
) -> Verdict:
    """Score a response as OlympiadBench does.

    Args:
        response: complete text of the model.
        gold: the gold answer, the row's ``final_answer[0]``.
        error: the row's ``error``: absolute tolerance, one for all items or one each, separated by commas.
        answer_type: the row's; errors do not apply to tuples.
        chinese: whether the question was asked in Chinese.
        limit: seconds of sympy for one pair of items; five times as long for all pairs.

    Raises:
        DataError: ``error`` is invalid.
    """
    answer = extract_answer(response, chinese=chinese)
    if answer is None:
        return Verdict(0.0, Status.NO_ANSWER, None, "no answer was found in the response")
    wanted = _bare_gold(gold)
    if answer == wanted:
        return Verdict(1.0, Status.CORRECT, answer, f"{_short(answer)} is the gold answer's own text")
    if len(answer) > _MAX_CHARS:
        reason = f"the answer has {len(answer):,} characters, the limit is {_MAX_CHARS:,}"
        return Verdict(0.0, Status.UNPARSABLE_ANSWER, answer, reason)
    return _grade_items(answer, wanted, None if "Tuple" in answer_type else error, Budget(limit, 5 * limit))


def _bare_gold(gold: str) -> str:
    contents = _boxes(gold) or _FORMULA.findall(gold.strip().split("\n")[-1])
    return _undecorated(",".join(contents) if contents else gold)


def _grade_items(answer: str, gold: str, error: str | float | None, budget: Budget) -> Verdict:
    answers = split_answer(_CHINESE.sub("", answer))
    golds = split_answer(_CHINESE.sub("", gold))
    left = [item for item, _ in _expanded(answers, [0.0] * len(answers))]
    wanted = _expanded(golds, _errors(error, len(golds)))
    if not left or len(left) != len(wanted) or len(left) > _MAX_ITEMS:
        reason = f"{len(left)} items, {len(wanted)} in the gold answer {_short(gold)}"
        return Verdict(0.0, Status.WRONG, answer, reason)
    for item, tolerance in wanted:
        failed = _take(left, item, tolerance, budget)
        if failed:
            return Verdict(0.0, failed, answer, f"{_short(answer)} has nothing shown to equal {_short(item)}")
    return Verdict(1.0, Status.CORRECT, answer, f"{_short(answer)} equals {_short(gold)}")


def _take(left: list[str], gold: str, error: float, budget: Budget) -> Status | None:
    """Remove the first item that equals ``gold`` and return None; if there is none, return the status."""
    found: Status = Status.UNPARSABLE_ANSWER
    for i, item in enumerate(left):
        status = same_item(item, gold, error, budget)
        if status is Status.CORRECT:
            del left[i]
            return None
        if status is Status.TIMEOUT or found is Status.UNPARSABLE_ANSWER:
            found = status
    return found


def _short(text: str) -> str:
    return short(text, 60, keep=57)


@dataclass(frozen=True)
class Accuracy:
    """Number of right responses among a number of rows."""

    correct: float
    total: int

    @property
    def share(self) -> float | None:
        """Share of right responses, None without rows."""
        return self.correct / self.total if self.total else None


def accuracies(
    scored: Iterable[tuple[str, float]], subsets: Sequence[str] = ()
) -> tuple[Accuracy, dict[str, Accuracy]]:
    """Return the micro average over all rows, and the accuracy of each subset.

    Args:
        scored: (subset, score) of each row; a subset is named like ``OE_MM_maths_en_COMP``.
        subsets: included even if they have no row.
    """
    scores: dict[str, list[float]] = {name: [] for name in subsets}
    for subset, score in scored:
        scores.setdefault(subset, []).append(score)
    groups = {name: Accuracy(sum(own), len(own)) for name, own in sorted(scores.items())}
    overall = Accuracy(sum(one.correct for one in groups.values()), sum(one.total for one in groups.values()))
    return overall, groups
