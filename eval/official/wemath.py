"""Official scoring of We-Math: from responses to its four-dimensional metrics.

Each problem of two or three steps is asked as a whole and step by step, so that a right answer to the whole
can be distinguished from knowledge of its steps:

| | whole wrong | whole right, strict | whole right, loose |
|---|---|---|---|
| all steps right | IG | CM | CM |
| some right, some wrong | IK | RM | CM |
| all steps wrong | IK | RM | RM |

IK is insufficient knowledge, IG inadequate generalisation, CM complete mastery, RM rote memorisation.

Source: Qiao et al. 2024, arXiv 2407.01284, and the folder ``evaluation`` of github.com/We-Math/We-Math. The
latter always divides by the 525 problems of testmini; here the divisor is the number of problems with all
rows, 525 if none is missing. A share of nothing is None here; the latter divides by zero.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from data.example import DataError

_LETTERS = "ABCDEFGH"
_KEY = re.compile(r"([23])steps_([123]|multi)")


def extract_letter(response: str) -> str | None:
    """Return the letter after the last "Answer", or at the start of the response if there is none.

    Only spaces and the characters ``<``, ``>``, ``:``, ``.`` before it are skipped: "Answer: (B)" and
    "answer: B" have no letter for the benchmark. Text after the letter is ignored.
    """
    tail = re.sub(r"[<>:.]", "", response.rpartition("Answer")[2]).strip()
    return tail[0] if tail and tail[0] in _LETTERS else None


@dataclass(frozen=True)
class Row:
    """One scored question.

    Attributes:
        problem: it belongs to (column ``ID``).
        key: its position (column ``key``): ``2steps_1``, ``2steps_2``, ``2steps_multi``, ``3steps_1``, …
        hit: whether it was answered right.
        knowledge: its knowledge concept (column ``knowledge concept``).
    """

    problem: str
    key: str
    hit: bool
    knowledge: str = ""


def scored_row(record: Mapping[str, object], response: str) -> Row:
    """Score the response to one record of ``testmini.json``. Raises ``DataError`` if a column is missing."""
    missing = [column for column in ("ID", "key", "answer") if column not in record]
    if missing:
        raise DataError(f"a We-Math row has no {', '.join(missing)}; use the rows of testmini.json unchanged")
    hit = extract_letter(response) == record["answer"]
    return Row(str(record["ID"]), str(record["key"]), hit, str(record.get("knowledge concept", "")))


@dataclass(frozen=True)
class Mastery:
    """Number of problems in each class, strict or loose.

    Attributes:
        insufficient: IK, some step wrong and the whole wrong.
        inadequate: IG, all steps right and the whole wrong.
        mastered: CM, the whole right and all steps right (loose: any step).
        rote: RM, the whole right and some step wrong (loose: all steps).
    """

    insufficient: int
    inadequate: int
    mastered: int
    rote: int

    @property
    def total(self) -> int:
        """Number of problems."""
        return self.insufficient + self.inadequate + self.mastered + self.rote

    @property
    def score(self) -> float | None:
        """(n − IG/2 − RM − IK) / n, None without problems."""
        return _share(self.total - 0.5 * self.inadequate - self.rote - self.insufficient, self.total)

    @property
    def rote_rate(self) -> float | None:
        """RM / (RM + CM), None if no whole is right."""
        return _share(self.rote, self.rote + self.mastered)


@dataclass(frozen=True)
class Metrics:
    """Metrics that We-Math reports. Accuracies are shares, None without such questions.

    Attributes:
        strict: classes if mastery requires every step.
        loose: classes if mastery requires any step.
        one_step: accuracy of all single steps.
        two_step: accuracy of the whole problems of two steps.
        three_step: accuracy of the whole problems of three steps.
        incomplete: problems excluded from ``strict`` and ``loose`` because a row is missing.
    """

    strict: Mastery
    loose: Mastery
    one_step: float | None
    two_step: float | None
    three_step: float | None
    incomplete: int

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the numbers under flat names, as ``IK``, ``score_strict``, ``RM_rate_loose``."""
        named: dict[str, float | int | None] = {
            "IK": self.strict.insufficient,
            "IG": self.strict.inadequate,
        }
        for name, classes in (("strict", self.strict), ("loose", self.loose)):
            named |= {
                f"score_{name}": classes.score,
                f"CM_{name}": classes.mastered,
                f"RM_{name}": classes.rote,
                f"RM_rate_{name}": classes.rote_rate,
            }
        return named | {
            "problems": self.strict.total,
            "incomplete": self.incomplete,
            "one_step": self.one_step,
            "two_step": self.two_step,
            "three_step": self.three_step,
        }


def metrics(rows: Iterable[Row]) -> Metrics:
    """Return We-Math's metrics; the order of rows does not matter.

    Raises:
        DataError: an invalid key, or a duplicate question.
    """
    problems = _problems(rows)
    complete = [hits for hits in problems.values() if len(hits) == _length(hits) + 1]
    return Metrics(
        strict=_classes(complete, loose=False),
        loose=_classes(complete, loose=True),
        one_step=_accuracy(problems, [f"{n}steps_{i}" for n in (2, 3) for i in range(1, n + 1)]),
        two_step=_accuracy(problems, ["2steps_multi"]),
        three_step=_accuracy(problems, ["3steps_multi"]),
        incomplete=len(problems) - len(complete),
    )


def knowledge_accuracy(rows: Iterable[Row]) -> dict[str, tuple[int, int]]:
    """Return (right, total) by knowledge concept, of single steps, which have one concept each."""
    counts: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        if not row.key.endswith("multi"):
            counts[row.knowledge].append(row.hit)
    return {name: (sum(hits), len(hits)) for name, hits in sorted(counts.items())}


def _problems(rows: Iterable[Row]) -> dict[str, dict[str, bool]]:
    """Return the hits by problem and key."""
    problems: dict[str, dict[str, bool]] = defaultdict(dict)
    for row in rows:
        known = _KEY.fullmatch(row.key)
        if not known or known.groups() == ("2", "3"):
            raise DataError(
                f"{row.problem}: {row.key!r} is not a We-Math key; keys look like 2steps_1, 3steps_multi"
            )
        hits = problems[row.problem]
        if row.key in hits:
            raise DataError(f"{row.problem}: {row.key} occurs twice; keep one row per question")
        if hits and next(iter(hits))[0] != row.key[0]:
            raise DataError(
                f"{row.problem} has both {next(iter(hits))} and {row.key}; give problems their own IDs"
            )
        hits[row.key] = row.hit
    return problems


def _length(hits: Mapping[str, bool]) -> int:
    """Return the number of steps of a problem, from any of its keys."""
    return int(next(iter(hits))[0])


def _classes(problems: Iterable[Mapping[str, bool]], *, loose: bool) -> Mastery:
    counts = dict.fromkeys(("IK", "IG", "CM", "RM"), 0)
    for hits in problems:
        steps = [hit for key, hit in hits.items() if not key.endswith("multi")]
        whole = hits[f"{_length(hits)}steps_multi"]
        known = any(steps) if whole and loose else all(steps)
        counts[("CM" if known else "RM") if whole else ("IG" if known else "IK")] += 1
    return Mastery(counts["IK"], counts["IG"], counts["CM"], counts["RM"])


def _accuracy(problems: Mapping[str, Mapping[str, bool]], keys: Iterable[str]) -> float | None:
    wanted = frozenset(keys)
    hits = [hit for problem in problems.values() for key, hit in problem.items() if key in wanted]
    return _share(sum(hits), len(hits))


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None
