"""The step in docs/algorithms.md and the two functions that take it use the same words."""

from __future__ import annotations

import inspect
import re

import pytest

from mm_cpgd.rollout import GroupsInParts
from mm_cpgd.training.collector import Collector
from mm_cpgd.training.learner import Learner
from mm_cpgd.training.rollouts.sampling import SamplingInBatches
from tests.paths import DOCS

PAGE = (DOCS / "algorithms.md").read_text(encoding="utf-8")
STEP = PAGE.split("## The step")[1].split("```")[1]
COLLECT, UPDATE = STEP.split("Learner.update")
CODE = {
    "collect": [
        Collector.collect,
        Collector.rollout,
        Collector.keep,
        Collector.advantages,
        Collector.usable,
        Collector._sample,
        SamplingInBatches.__call__,
        SamplingInBatches._generate,
        GroupsInParts.take,
    ],
    "update": [Learner.update, Learner.prepare, Learner._loss],
}


def words(block: str) -> set[str]:
    """Return the results and the calls of a block: the names before ``←``, and ``name(`` or ``a.name(``."""
    results = re.findall(r"^\s*([a-z_, ]+?)\s*←", block, flags=re.MULTILINE)
    names = {name for result in results for name in re.findall(r"[a-z_]{4,}", result)}
    return names | set(re.findall(r"([a-z_]+)\(", block)) - {"policy"}


@pytest.mark.parametrize(("block", "functions"), [(COLLECT, "collect"), (UPDATE, "update")])
def test_every_word_of_the_page_occurs_in_the_code(block: str, functions: str) -> None:
    source = "\n".join(inspect.getsource(function) for function in CODE[functions])
    expected = words(block)
    assert len(expected) >= 8
    assert {word for word in expected if not re.search(rf"\b{word}\b", source)} == set()


@pytest.mark.parametrize("function", [Collector.collect, Learner.update])
def test_each_half_of_the_step_fits_on_one_screen(function: object) -> None:
    assert len(inspect.getsource(function).splitlines()) <= 45  # type: ignore[arg-type]


def test_the_order_of_the_collector_is_that_of_the_page() -> None:
    source = inspect.getsource(Collector.collect)
    steps = ["self.rollout(", "self.keep(stats", "objective.shape(", "self.advantages(", "self.experience("]
    places = [source.index(step) for step in steps]
    assert places == sorted(places)
