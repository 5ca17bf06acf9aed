"""Small benchmark of sums for tests of scoring, and the same as a user's file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data import Example
from eval.benchmark import Benchmark, DataSource, Response
from eval.scoring.score import score_responses
from rewards import Verdict
from rewards.verdict import Status

# A user's file: loader, prompt, scoring.
OWN_BENCHMARK = '''
"""Sums on a blackboard, of one and of two digits."""
import json

from data import Example
from eval.benchmark import Benchmark, DataSource, Response, verified
from rewards import Status, Verdict


def load(source: DataSource) -> list[Example]:
    with open(source.path) as lines:
        rows = [json.loads(line) for line in lines]
    return [
        Example(row["id"], row["question"], row["answer"], meta={"digits": row["digits"]})
        for row in rows[: source.limit]
    ]


def prompt(example: Example) -> str:
    return f"{example.question} Answer with a number."


def official(example: Example, response: Response) -> Verdict:
    """Right if the last word is exactly the sum."""
    words = response.text.split()
    if not words:
        return Verdict(0.0, Status.NO_ANSWER, None, "nothing was said")
    right = words[-1] == example.answer
    status = Status.CORRECT if right else Status.WRONG
    return Verdict(float(right), status, words[-1], f"the last word is {words[-1]}")


benchmark = Benchmark(
    name="sums",
    source="written for this example",
    load=load,
    prompt=prompt,
    official=official,
    verifier=verified,
    groups=lambda example: {"digits": [str(example.meta["digits"])]},
    max_new_tokens=16,
)
'''


def official(example: Example, response: Response) -> Verdict:
    """Right if the last word is the gold answer."""
    words = response.text.split()
    if not words:
        return Verdict(0.0, Status.NO_ANSWER, None, "nothing was said")
    right = words[-1] == example.answer
    return Verdict(float(right), Status.CORRECT if right else Status.WRONG, words[-1], f"said {words[-1]}")


def groups(example: Example) -> Mapping[str, Sequence[str]]:
    return {"level": [str(example.meta["level"])]} if "level" in example.meta else {}


def sums(**more: Any) -> Benchmark:
    """Return the benchmark of sums; ``more`` replaces its fields."""
    parts = {"load": load, "prompt": lambda one: one.question, "official": official, "groups": groups, **more}
    return Benchmark("sums", "tests", **parts)


def load(source: DataSource) -> list[Example]:
    rows = [json.loads(line) for line in Path(source.path or "").read_text().splitlines()]
    return [Example(row["id"], row["question"], row["answer"]) for row in rows[: source.limit]]


def example(name: str, answer: str = "4", level: int = 1, choices: tuple[str, ...] = ()) -> Example:
    return Example(name, f"What is {name}?", answer, choices=choices, meta={"level": level})


def scored(answers: Mapping[str, str | Sequence[str]], examples: Sequence[Example], **more: Any) -> list[Any]:
    """Score texts by id; a list of texts is a list of samples."""
    responses = [
        Response(name, text, sample)
        for name, texts in answers.items()
        for sample, text in enumerate([texts] if isinstance(texts, str) else texts)
    ]
    return score_responses(
        more.pop("benchmark", sums()), examples, responses, more.pop("protocols", ["official"]), **more
    )


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
