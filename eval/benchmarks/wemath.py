"""We-Math: 525 problems asked as a whole and step by step; 1,740 multiple-choice questions.

The official scoring takes the first character after the last "Answer" as the letter, see
``eval.official.wemath``, which also has the four-dimensional metrics. Their divisor is the number of problems
with all rows: 525 on the complete testmini, fewer with a limit. ``eval.official.wemath_domains`` has the
accuracy of the twelve domains. The benchmark's own template ``<Answer>: <<C>>`` is read as well.

The question ``2steps_multi`` of the problem ``2steps_7`` has the id ``2steps_7/multi``, its first step
``2steps_7/1``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from data import Example
from data.readers import RawRow
from eval.benchmark import Benchmark, DataSource, Response, options_with, with_images
from eval.loading import check_published, complete, published_example, published_rows
from eval.official import wemath as scoring
from eval.official.verdicts import picked
from eval.official.wemath_domains import domain_accuracy
from rewards import Status, Verdict

_HUB = "We-Math/We-Math"

COLUMNS = ("ID", "key", "question", "option", "answer")
PROMPT = (
    "{question}\nOptions: {option}\n\n"
    'Work out your reasons first. End with a line "Answer: X", where X is the letter of your option alone.'
)
_STEPS = {"2steps_multi": "two steps", "3steps_multi": "three steps"}


def load(source: DataSource) -> list[Example]:
    """Read ``testmini.json`` and the images beside it, or the hub's copy. Raises ``DataError``."""
    rows = published_rows(source, hub=_HUB, split="testmini", file="{split}.json")
    return complete(map(_example, rows), "We-Math")


def _example(row: RawRow) -> Example:
    check_published(row, COLUMNS, "We-Math")
    values = row.values
    return published_example(
        row,
        id=_id(values),
        question=values["question"],
        answer=values["answer"],
        images=("image_path",) if values.get("image_path") else ("image",),
        choices=options_with(str(values["answer"]), str(values["option"])),
    )


def _id(values: Mapping[str, Any]) -> str:
    return f"{values['ID']}/{str(values['key']).rpartition('_')[2]}"


def prompt(example: Example) -> str:
    """Return the question with the published options, and a request for the letter after "Answer"."""
    return with_images(
        PROMPT.format(question=example.question.strip(), option=example.meta["option"].strip()), example
    )


def official(example: Example, response: Response) -> Verdict:
    """Compare the letter after the last "Answer" with the gold one."""
    letter = scoring.extract_letter(response.text)
    if letter is None:
        return Verdict(0.0, Status.NO_ANSWER, None, 'no letter from A to H follows the last "Answer"')
    return picked(letter, example.answer)


def groups(example: Example) -> dict[str, list[str]]:
    """Return the number of steps, and for a single step its knowledge concept."""
    key = str(example.meta["key"])
    found = {"steps": [_STEPS.get(key, "one step")]}
    if key not in _STEPS:
        found["knowledge concept"] = [str(example.meta.get("knowledge concept") or "not given")]
    return found


def metrics(scored: Sequence[tuple[Example, Verdict]]) -> Mapping[str, Any]:
    """Return the four-dimensional metrics and the domains, averaged over samples; None if one has none.

    A question that could not be scored makes its problem incomplete.
    """
    tables = _tables(scored)
    return {
        **_averaged([scoring.metrics(table).as_dict() for table in tables]),
        "domains": _averaged([domain_accuracy(table) for table in tables]),
    }


def _averaged(tables: Sequence[Mapping[str, float | None]]) -> Mapping[str, float | None]:
    if len(tables) == 1:
        return tables[0]
    return {name: _mean([one[name] for one in tables]) for name in tables[0]}


def _tables(scored: Sequence[tuple[Example, Verdict]]) -> list[list[scoring.Row]]:
    """Return one table of hits per sample: the n-th row of a question belongs to the n-th sample."""
    tables: list[list[scoring.Row]] = [[]]
    seen: dict[str, int] = defaultdict(int)
    for example, verdict in scored:
        sample = seen[example.id]
        seen[example.id] += 1
        tables += [[] for _ in range(sample + 1 - len(tables))]
        if verdict.score is not None:
            tables[sample].append(_hit(example, verdict.score == 1))
    return tables


def _hit(example: Example, hit: bool) -> scoring.Row:
    meta = example.meta
    return scoring.Row(str(meta["ID"]), str(meta["key"]), hit, str(meta.get("knowledge concept", "")))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def read(record: Mapping[str, Any]) -> Response:
    """Read a row of testmini with an added ``response``, the input of the benchmark's scripts."""
    return Response(_id(record), str(record["response"] or ""))


benchmark = Benchmark(
    name="wemath",
    source="Qiao et al. 2024, arXiv 2407.01284; github.com/We-Math/We-Math",
    load=load,
    prompt=prompt,
    official=official,
    groups=groups,
    read=read,
    metrics=metrics,
    title="We-Math",
    hub=_HUB,
    split="testmini",
)
