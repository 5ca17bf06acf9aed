r"""OlympiadBench's own scoring by rule: from a completion and a row to a verdict, and to accuracy by subset.

Both the completion's answer and the gold answer are freed of boxes and decoration, cut at the commas that
stand outside of ( ) and [ ], each \pm is made two parts, and the parts are paired in any order
(``eval.official.olympiadbench_parts`` compares two of them).

Source: He et al. 2024, arXiv 2402.14008, and the folder ``inference`` of github.com/OpenBMB/OlympiadBench
(``judge.py``, ``code/math_judger.py``, ``calculate_accuracy.py``). Where this differs from that code:

* Expressions are read by this project's parser, not by sympy's ``parse_latex``, and compared by it at fixed
  points before sympy is asked, in a worker process, with limits of size and time. Names are real, e and i
  are the constants, and a timed-out comparison is wrong.
* Equations are equal if their ratio is any constant but 0; there it or its inverse must be an integer.
* Two answers in Chinese words are equal if they are the same; there any two are, as nothing is left of them.
* Intervals and tuples must have as many ends; there the shorter one decides.
* Several errors ("0.1,0.01") belong to the gold answer's parts; there to the answer's, as they are ordered.
* A row without a completion is wrong; there it leaves the average.
* "±" and ``\%`` are read as ``\pm`` and ``%``; spaces around an answer do not count.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from data.example import DataError
from eval.official.olympiadbench_parts import Budget, same_part
from rewards.verdict import Status, Verdict

DEFAULT_ERROR = 1e-8
TIME_LIMIT = 2.0
_MAX_CHARS = 2_000
_MAX_PARTS = 30
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


def extract_answer(completion: str, *, chinese: bool = False) -> str | None:
    r"""Return the bare final answer, None if there is none.

    It is looked for behind "So the final answer is" ("所以最终答案是") in the last line that says it, else in
    the whole completion: all boxes, joined by commas; without a box, the formulas between dollar signs of the
    last line; without those, all of it. A box that does not close is no answer.
    """
    found = _FINAL[chinese].findall(completion)
    text = found[-1] if found else completion
    contents = _boxes(text)
    if contents is None:
        return None
    lines = text.strip().split("\n")
    chosen = contents or _FORMULA.findall(lines[-1])
    return _undecorated(",".join(chosen) if chosen else text) or None


def _boxes(text: str) -> list[str] | None:
    r"""Return what each \boxed holds, None if one does not close."""
    contents, end = [], 0
    while (start := text.find(_BOX, end)) >= 0:
        end = _closing(text, start + len(_BOX))
        if not end:
            return None
        contents.append(text[start + len(_BOX) : end - 1])
    return contents


def _closing(text: str, start: int) -> int:
    """Return the place after the brace that closes one opened before ``start``, 0 if none does."""
    depth = 1
    for brace in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if brace.group() == "{" else -1
        if not depth:
            return brace.end()
    return 0


def _undecorated(text: str) -> str:
    r"""Drop what does not change an answer, and what stands before \in."""
    text = text.split("\\in ")[1] if "\\in " in text else text
    for pattern, replacement in _REPLACED:
        text = pattern.sub(replacement, text)
    return _STYLE.sub(r"\1", text.strip(_EDGES)).strip()


def split_answer(answer: str) -> list[str]:
    """Cut at the commas outside of ( ) and [ ]; a last empty part is none."""
    parts, depth, start = [], 0, 0
    for i, sign in enumerate(answer):
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and not depth:
            parts.append(answer[start:i].strip())
            start = i + 1
    return [*parts, answer[start:].strip()] if start < len(answer) else parts


def _errors(error: str | float | None, count: int) -> list[float]:
    """One absolute error for each of ``count`` parts. Raises ``DataError`` if the column cannot be read."""
    try:
        given = [float(one) if one.strip() else DEFAULT_ERROR for one in str(error or "").split(",")]
    except ValueError:
        given = [math.nan]
    if not all(math.isfinite(one) and one >= 0 for one in given):
        raise DataError(f"error {error!r} is not a number or several with commas, none below 0")
    return given * count if len(given) == 1 else (given + [DEFAULT_ERROR] * count)[:count]


def _expanded(parts: Sequence[str], errors: Sequence[float]) -> list[tuple[str, float]]:
    r"""Each part with its error; one with \pm as two."""
    return [
        (_PLUS_MINUS.sub(sign, part), error)
        for part, error in zip(parts, errors, strict=True)
        for sign in ("+-" if _PLUS_MINUS.search(part) else "+")
    ]


def judge(
    completion: str,
    gold: str,
    *,
    error: str | float | None = None,
    answer_type: str = "",
    chinese: bool = False,
    limit: float = TIME_LIMIT,
) -> Verdict:
    """Return the verdict on a completion.

    Args:
        completion: the model's whole text.
        gold: the gold answer, the row's ``final_answer[0]``.
        error: the row's ``error``: how far numbers may be apart; one for all parts or one each, by commas.
        answer_type: the row's; errors do not apply to tuples.
        chinese: whether the question was asked in Chinese.
        limit: seconds that sympy may take for one pair of parts; five times as long for all of them.

    Raises:
        DataError: ``error`` cannot be read.
    """
    answer = extract_answer(completion, chinese=chinese)
    if answer is None:
        return Verdict(0.0, Status.NO_ANSWER, None, "no answer was found in the completion")
    wanted = _bare_gold(gold)
    if answer == wanted:
        return Verdict(1.0, Status.CORRECT, answer, f"{_short(answer)} is the gold answer's own text")
    if len(answer) > _MAX_CHARS:
        reason = f"the answer has {len(answer):,} characters, at most {_MAX_CHARS:,} are read"
        return Verdict(0.0, Status.UNPARSABLE_ANSWER, answer, reason)
    return _judge_parts(answer, wanted, None if "Tuple" in answer_type else error, Budget(limit, 5 * limit))


def _bare_gold(gold: str) -> str:
    contents = _boxes(gold) or _FORMULA.findall(gold.strip().split("\n")[-1])
    return _undecorated(",".join(contents) if contents else gold)


def _judge_parts(answer: str, gold: str, error: str | float | None, budget: Budget) -> Verdict:
    answers = split_answer(_CHINESE.sub("", answer))
    golds = split_answer(_CHINESE.sub("", gold))
    left = [part for part, _ in _expanded(answers, [0.0] * len(answers))]
    wanted = _expanded(golds, _errors(error, len(golds)))
    if not left or len(left) != len(wanted) or len(left) > _MAX_PARTS:
        reason = f"{len(left)} parts of mathematics, {len(wanted)} in the gold answer {_short(gold)}"
        return Verdict(0.0, Status.WRONG, answer, reason)
    for part, tolerance in wanted:
        failed = _take(left, part, tolerance, budget)
        if failed:
            return Verdict(0.0, failed, answer, f"{_short(answer)} has nothing shown to equal {_short(part)}")
    return Verdict(1.0, Status.CORRECT, answer, f"{_short(answer)} equals {_short(gold)}")


def _take(left: list[str], gold: str, error: float, budget: Budget) -> Status | None:
    """Remove the first part that equals ``gold``. Return None, or if there is none, why."""
    found: Status = Status.UNPARSABLE_ANSWER
    for i, part in enumerate(left):
        status = same_part(part, gold, error, budget)
        if status is Status.CORRECT:
            del left[i]
            return None
        if status is Status.TIMEOUT or found is Status.UNPARSABLE_ANSWER:
            found = status
    return found


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "…"


@dataclass(frozen=True)
class Accuracy:
    """Right answers of a number of rows."""

    correct: float
    total: int

    @property
    def share(self) -> float | None:
        """The share of right answers, None without rows."""
        return self.correct / self.total if self.total else None


def accuracies(
    scored: Iterable[tuple[str, float]], subsets: Sequence[str] = ()
) -> tuple[Accuracy, dict[str, Accuracy]]:
    """Return the micro average over all rows, and the accuracy of each subset.

    Args:
        scored: (subset, score) of each row; a subset is named like ``OE_MM_maths_en_COMP``.
        subsets: those that are listed even if they have no row.
    """
    scores: dict[str, list[float]] = {name: [] for name in subsets}
    for subset, score in scored:
        scores.setdefault(subset, []).append(score)
    groups = {name: Accuracy(sum(own), len(own)) for name, own in sorted(scores.items())}
    overall = Accuracy(sum(one.correct for one in groups.values()), sum(one.total for one in groups.values()))
    return overall, groups
