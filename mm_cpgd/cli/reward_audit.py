"""``mm-cpgd rewards audit``: which gold answers of a data set can be scored, and what right answers get.

Each gold answer is verified against its own text, and then against the usual forms of a right answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from data import Example, ExampleSet, TooManyBadRows, load_examples
from data.checks import ImageCheck
from mm_cpgd.preflight.data import reason_kind
from mm_cpgd.tracking.progress import slow_bar
from rewards import Component, RewardSum, Status, Verdict
from rewards.gold_forms import right_answers
from rewards.gold_kinds import ONLY_AS_WORDS, gold_kind
from rewards.messages import short

SHOWN = 10
# The rule whose readings the kinds describe; other rules compare texts or read something else.
ACCURACY = "accuracy"


@dataclass(frozen=True)
class TriedAnswer:
    """A completion that is right for a gold answer, its form, and the verdict on it."""

    form: str
    completion: str
    verdict: Verdict

    @property
    def accepted(self) -> bool:
        """Whether it receives the full score."""
        return _full_score(self.verdict)


@dataclass(frozen=True)
class AuditedGold:
    """A gold answer, its kind, the verdict on its own text, and those on right answers in usual forms.

    The last are empty if the gold answer is not verifiable.
    """

    example: Example
    kind: str
    verdict: Verdict
    tried: tuple[TriedAnswer, ...] = ()

    @property
    def verifiable(self) -> bool:
        """Whether its own text receives the full score."""
        return _full_score(self.verdict)


def _full_score(verdict: Verdict) -> bool:
    return verdict.score is not None and verdict.score >= 1


def load(
    path: str,
    columns: dict[str, str],
    split: str | None,
    name: str | None,
    limit: int | None,
    console: Console,
    *,
    seed: int = 0,
    check_images: ImageCheck | None = "header",
) -> ExampleSet:
    """Read the rows; unusable ones are counted separately. Arguments are those of ``load_examples``."""
    try:
        with slow_bar(console, f"reading {path}") as report:
            return load_examples(
                path, columns=columns, split=split, name=name, limit=limit, seed=seed, max_bad_share=1.0,
                check_images=check_images, progress=report,
            )  # fmt: skip
    except TooManyBadRows as error:
        return ExampleSet([], error.quarantined, len(error.quarantined))


def audit(
    rule: str, options: dict[str, Any], examples: Sequence[Example], console: Console
) -> list[AuditedGold]:
    """Score every gold answer against itself and in usual forms; slow audits show a progress bar."""
    reward = RewardSum([Component(rule, options=options, name="rule")])

    def score(completion: str, example: Example) -> Verdict:
        return reward.score_one(completion, example).components["rule"]

    audited = []
    with slow_bar(console, f"auditing with {rule}") as report:
        for example in examples:
            audited.append(_audit_one(rule, example, score))
            report(len(audited), len(examples))
    return audited


def _audit_one(rule: str, example: Example, score: Callable[[str, Example], Verdict]) -> AuditedGold:
    kind = gold_kind(example.answer, example.choices)
    verdict = score(f"<answer>{example.answer}</answer>", example)
    if rule == ACCURACY and kind == ONLY_AS_WORDS and _full_score(verdict):
        reason = "can only be read as words: right answers spelled otherwise score 0"
        verdict = Verdict(None, Status.UNPARSABLE_GOLD, verdict.extracted, reason)
    if not _full_score(verdict):
        return AuditedGold(example, kind, verdict)
    forms = right_answers(example.answer, kind, example.choices, spellings=rule == ACCURACY)
    tried = (TriedAnswer(one.form, one.completion, score(one.completion, example)) for one in forms)
    return AuditedGold(example, kind, verdict, tuple(tried))


def print_audit(rows: ExampleSet, audited: Sequence[AuditedGold], console: Console) -> None:
    """Print the shares by kind and form, the reasons for gold answers that fail, and the refused forms."""
    console.print(_kinds_table(audited))
    failed = [one for one in audited if not one.verifiable]
    for (status, reason), count in _reasons(failed):
        console.print(Text(f"  {count:,} {status}: {reason}"), soft_wrap=True)
    for one in failed[:SHOWN]:
        line = f"  {_gold_line(one)}: {one.verdict.reason}"
        console.print(Text(line), soft_wrap=True)
    if len(failed) > SHOWN:
        console.print(Text(f"  … and {len(failed) - SHOWN:,} more; --json FILE lists all"))
    _print_forms(audited, console)
    if rows.quarantined:
        console.print(
            Text(f"{len(rows.quarantined):,} rows are unusable: mm-cpgd data check gives the reasons")
        )


def _kinds_table(audited: Sequence[AuditedGold]) -> Table:
    table = Table("kind of gold answer", "rows", "verifiable", "share", "right answers accepted", "share")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, group in _by_kind(audited):
        table.add_row(Text(name), *_shares(group))
    table.add_section()
    table.add_row("all", *_shares(audited))
    return table


def _print_forms(audited: Sequence[AuditedGold], console: Console) -> None:
    """Print what right answers in each form get, and one refused answer of each kind and form."""
    counted, refused = _by_form(audited), _refused(audited)
    table = Table("form of a right answer", "tried", "accepted", "share")
    for column in table.columns[1:]:
        column.justify = "right"
    for form, tried, accepted in counted:
        table.add_row(Text(form), f"{tried:,}", f"{accepted:,}", f"{accepted / tried:.1%}")
    if counted:
        console.print(table)
    groups = Counter((gold.kind, one.form) for gold, one in refused).most_common()
    for (kind, form), count in groups[:SHOWN]:
        gold, one = next(pair for pair in refused if (pair[0].kind, pair[1].form) == (kind, form))
        answer = short(one.completion, 70, end=True)
        line = f"  {count:,} refused, {kind}, {form}: {_gold_line(gold)} as {answer!r}: {one.verdict.reason}"
        console.print(Text(line), soft_wrap=True)
    if len(groups) > SHOWN:
        console.print(Text(f"  … and {len(groups) - SHOWN:,} more kinds and forms; --json FILE lists all"))


def summary(path: str, rule: str, rows: ExampleSet, audited: Sequence[AuditedGold]) -> dict[str, Any]:
    """Return the audit for a JSON file."""
    failed = [one for one in audited if not one.verifiable]
    return {
        "data": path,
        "rule": rule,
        "rows": len(audited),
        "unusable_rows": len(rows.quarantined),
        "verifiable": len(audited) - len(failed),
        "share": (len(audited) - len(failed)) / len(audited) if audited else None,
        "kinds": [
            {
                "kind": name,
                "rows": len(group),
                "verifiable": sum(one.verifiable for one in group),
                "forms": _form_records(group),
            }
            for name, group in _by_kind(audited)
        ],
        "forms": _form_records(audited),
        "not_verifiable": [_record(one, one.verdict) for one in failed],
        "refused": [
            {**_record(gold, one.verdict), "form": one.form, "completion": one.completion}
            for gold, one in _refused(audited)
        ],
    }


def _form_records(group: Sequence[AuditedGold]) -> list[dict[str, Any]]:
    return [{"form": form, "tried": tried, "accepted": right} for form, tried, right in _by_form(group)]


def _record(gold: AuditedGold, verdict: Verdict) -> dict[str, Any]:
    return {
        "id": gold.example.id,
        "source": gold.example.source,
        "answer": gold.example.answer,
        "kind": gold.kind,
        "status": verdict.status.value,
        "reason": verdict.reason,
    }


def _gold_line(gold: AuditedGold) -> str:
    return f"{gold.example.source}: {short(gold.example.answer, 70, end=True)!r}"


def _by_kind(audited: Sequence[AuditedGold]) -> list[tuple[str, list[AuditedGold]]]:
    names = [name for name, _ in Counter(one.kind for one in audited).most_common()]
    return [(name, [one for one in audited if one.kind == name]) for name in names]


def _by_form(group: Sequence[AuditedGold]) -> list[tuple[str, int, int]]:
    """Return each form with the numbers of answers tried and accepted, the most frequent first."""
    tried = Counter(one.form for gold in group for one in gold.tried)
    accepted = Counter(one.form for gold in group for one in gold.tried if one.accepted)
    return [(form, count, accepted[form]) for form, count in tried.most_common()]


def _refused(audited: Sequence[AuditedGold]) -> list[tuple[AuditedGold, TriedAnswer]]:
    return [(gold, one) for gold in audited for one in gold.tried if not one.accepted]


def _shares(group: Sequence[AuditedGold]) -> tuple[str, ...]:
    verifiable = sum(one.verifiable for one in group)
    tried = [one.accepted for gold in group for one in gold.tried]
    return (
        f"{len(group):,}",
        f"{verifiable:,}",
        f"{verifiable / len(group):.1%}" if group else "–",
        f"{sum(tried):,} of {len(tried):,}" if tried else "–",
        f"{sum(tried) / len(tried):.1%}" if tried else "–",
    )


def _reasons(failed: Sequence[AuditedGold]) -> list[tuple[tuple[str, str], int]]:
    return Counter(
        (one.verdict.status.value, reason_kind(one.verdict.reason)) for one in failed
    ).most_common()
