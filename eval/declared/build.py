"""Benchmarks from their declarations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from data import Example
from eval.benchmark import Ask, Benchmark, DataSource, Response, verified, with_images
from eval.declared import rows
from eval.declared.aggregates import metrics
from eval.declared.judge import judged
from eval.declared.kinds import KINDS, Kind, golds, score
from eval.declared.schema import Declaration, Group, Subset
from eval.declared.templates import Template, is_empty
from eval.generate.cache import digest
from rewards import Verdict, verify


def build(name: str, declaration: Declaration) -> Benchmark:
    """Return the benchmark of a declaration."""
    kind = KINDS[declaration.answer.kind]
    official = partial(_official, declaration)
    return Benchmark(
        name=name,
        source=declaration.source,
        load=partial(rows.load, declaration),
        prompt=partial(prompt, declaration),
        official=official,
        groups=partial(groups, declaration.groups),
        verifier=official if kind.means == "judge" else partial(verifier, kind),
        judge=partial(_judge, declaration) if declaration.judge else None,
        metrics=partial(metrics, declaration.aggregates) if declaration.aggregates else None,
        system_prompt=declaration.prompt.system,
        max_new_tokens=declaration.prompt.max_new_tokens,
        title=declaration.title,
        hub=declaration.data.hub,
        split=declaration.data.splits[0] if len(declaration.data.splits) == 1 else None,
        fingerprint=fingerprint(declaration),
        prompt_is_published=not declaration.prompt.source.startswith("own wording"),
    )


def build_subset(name: str, subset: Subset, whole: Benchmark) -> Benchmark:
    """Return a benchmark of some rows of another."""

    def load(source: DataSource) -> list[Example]:
        examples = whole.load(replace(source, limit=None, split=source.split or subset.split))
        kept = [one for one in examples if rows.matches(one.meta, subset.where)]
        return rows.complete(kept[: source.limit], subset.title)

    return replace(
        whole, name=name, load=load, title=subset.title, split=subset.split or whole.split,
        fingerprint=digest([fingerprint(subset), whole.fingerprint])[:16],
    )  # fmt: skip


def fingerprint(declaration: Declaration | Subset) -> str:
    """Return a hash of the values of a declaration that can change a number: not of its sources and notes."""
    told = {"title", "source", "reported", "read_from", "checked", "notes"}
    # Values that are not given are left out, so that a later key with a default changes nothing.
    given = declaration.model_dump(exclude_unset=True, exclude=told)
    written = json.dumps(given, sort_keys=True, default=lambda value: getattr(value, "text", str(value)))
    return digest(written)[:16]


def prompt(declaration: Declaration, example: Example) -> str:
    """Return the prompt of a question, with an ``<image>`` per image."""
    values = {**example.meta, "question": example.question.strip(), "choices": list(example.choices)}
    lines = [
        declaration.prompt.option.render({**values, "letter": chr(65 + index), "text": text}, example.id)
        for index, text in enumerate(example.choices)
    ]
    text = declaration.prompt.text.render({**values, "options": "\n".join(lines)}, example.id)
    return with_images(text.strip(), example)


def _official(declaration: Declaration, example: Example, response: Response) -> Verdict:
    return score(declaration.answer.kind, declaration.answer.options, example, response)


def _judge(declaration: Declaration, example: Example, response: Response, ask: Ask) -> Verdict:
    assert declaration.judge is not None

    def compare(text: str) -> Verdict:
        return _official(declaration, example, Response(example.id, "", extraction=text))

    return judged(declaration.judge, compare, example, response, ask)


def verifier(kind: Kind, example: Example, response: Response) -> Verdict:
    """Score with this project's verifier; of several gold answers the best counts."""
    accepted = golds(example)
    inner = kind.within(response.text)
    response = response if inner is None else replace(response, text=inner)
    if len(accepted) == 1:
        return verified(example, response)
    verdicts = [verify(response.text, gold, choices=example.choices) for gold in accepted]
    return max(verdicts, key=lambda verdict: -1.0 if verdict.score is None else verdict.score)


def groups(declared: Mapping[str, Group | str], example: Example) -> dict[str, list[str]]:
    """Return the values of a row by dimension."""
    return {name: _values(group, example) for name, group in declared.items()}


def _values(group: Group | str, example: Example) -> list[str]:
    if isinstance(group, str):
        group = Group(value=Template(group))
    value: Any = group.value.value(example.meta, example.id)
    if isinstance(value, str) and group.split_at:
        value = value.split(group.split_at)
    cells: Sequence[Any] = value if isinstance(value, (list, tuple)) else [value]
    texts = ["not given" if is_empty(cell) else str(cell).strip() for cell in cells]
    return [group.names.get(text, text) for text in texts] or ["not given"]
