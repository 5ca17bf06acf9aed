"""Outcomes that the collector gives to advantages, on one process and on two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mm_cpgd.algorithms.inputs.outcomes import OUTCOMES, Outcomes
from mm_cpgd.config.schema import PartConfig
from mm_cpgd.errors import UserError
from mm_cpgd.training.collector import Collector
from tests.fakes.collecting import Accelerator, collector, drawn, in_turn, together

EVERYTHING = """
def part({names}):
    seen.append(dict({pairs}))
    return rewards.nan_to_num(0.0)
seen = []
"""
NAMES = sorted(OUTCOMES - {"answers"})


def asking(folder: Path, *names: str) -> str:
    text = EVERYTHING.format(names=", ".join(names), pairs=", ".join(f"{name}={name}" for name in names))
    (folder / "asking.py").write_text(text, encoding="utf-8")
    return f"{folder / 'asking.py'}:part"


def seen_by(made: Collector) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = made.objective.advantage.function.__globals__["seen"]
    return found


def test_an_advantage_by_path_gets_the_outcomes_of_the_kept_prompts(tmp_path: Path) -> None:
    part = PartConfig(name=asking(tmp_path, *NAMES, "answers"))
    keep = PartConfig(name="accuracy_filter", low=0.2, high=0.9)
    made = collector(in_turn("0 1", "1 1", "1 ?", "0.5 0"), keep, advantage=part)
    made.collect(1)
    (seen,) = seen_by(made)
    order = drawn(4)
    assert seen["rows"].tolist() == [order[0], order[3]]
    assert seen["lengths"].tolist() == [[1, 2], [1, 2]]
    assert seen["finished"].tolist() == [[0, 1], [0, 1]]
    assert seen["rules"] == ("collection_test_number",)
    total = (seen["components"] * seen["weights"]).sum(2) + seen["shaping"]
    torch.testing.assert_close(total, seen["rewards"])
    assert seen["answers"] == [[None, None], [None, None]]
    assert (seen["iteration"], seen["progress"]) == (1, 0.0)


def test_shaping_is_apart_from_the_rules(tmp_path: Path) -> None:
    part = PartConfig(name=asking(tmp_path, "rewards", "components", "weights", "shaping"))
    long = PartConfig(name="overlong_penalty", buffer=8, penalty=1.0)
    made = collector(in_turn("0 1", "1 1", "1 0", "0.5 0"), advantage=part, shaping=[long])
    made.collect(1)
    (seen,) = seen_by(made)
    # Lengths 1 and 2 of at most 8, all of them within the buffer.
    torch.testing.assert_close(seen["shaping"][0], torch.tensor([-1 / 8, -2 / 8]).double())
    torch.testing.assert_close(
        (seen["components"] * seen["weights"]).sum(2) + seen["shaping"], seen["rewards"]
    )


def test_the_example_discounts_long_answers_more_as_the_run_goes_on() -> None:
    part = PartConfig(name="examples/parts/shortest_first.py:shortest_first", power=1.0)
    made = collector(in_turn("1 1", "1 1", "1 1", "1 1"), advantage=part)
    found = made.objective.advantages(torch.ones(1, 2))
    assert found.tolist() == [[0, 0]]
    late = {**vars(Outcomes.of_rewards(torch.ones(1, 2))), "progress": 1.0}
    late["lengths"] = torch.tensor([[2.0, 4.0]])
    assert made.objective.advantages(torch.ones(1, 2), Outcomes(**late)).tolist() == [[0.25, -0.25]]


@pytest.mark.parametrize("workers", [2, 3])
def test_several_processes_see_the_outcomes_of_one(tmp_path: Path, workers: int) -> None:
    part = PartConfig(name=asking(tmp_path, *NAMES))

    def script(index: int) -> list[str]:
        return [str((index * (k + 3)) % 5 / 4) for k in range(3)]

    def make(process: Accelerator) -> Collector:
        return collector(script, prompts=6, completions=3, process=process, advantage=part)

    alone = make(Accelerator())
    alone.collect(2)
    expected, seen = seen_by(alone)[-1], seen_by(alone)
    seen.clear()
    together(make, workers)
    assert len(seen) == workers
    for found in seen:
        for name in NAMES:
            if isinstance(expected[name], torch.Tensor):
                torch.testing.assert_close(found[name], expected[name], msg=name)
            else:
                assert found[name] == expected[name]


@pytest.mark.parametrize("workers", [1, 2])
def test_prompts_may_have_different_numbers_of_completions(workers: int) -> None:
    part = PartConfig(name="examples/parts/first_half.py:first_half", more=1)

    def make(process: Accelerator) -> Collector:
        found = collector(lambda index: ["0", "1"], process=process, budget=part)
        engine: Any = found.engine
        engine.copies = True
        return found

    for found in together(make, workers):
        # Two prompts of three completions, two of one, which have nothing to be compared with.
        assert found.metrics["tokens/sampled"] == 2 * (1 + 2 + 3) + 2 * 1
        assert found.metrics["reward/unscored"] == 0
        assert found.metrics["groups/no_signal"] == 0.5
        assert sorted(found.experience.lengths[0].tolist()) == [1, 1, 1, 1, 2, 2, 3, 3]
        assert {len(one.completions) for one in found.rollouts} == {1, 3}


def test_a_budget_of_another_sum_is_named(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("def part(rows):\n    return rows * 0 + 3\n", encoding="utf-8")
    made = collector(lambda _: ["0", "1"], budget=PartConfig(name=f"{tmp_path / 'one.py'}:part"))
    with pytest.raises(UserError, match=r"returned \[3, 3, 3, 3\]; it has to return 4 whole numbers .* is 8"):
        made.collect(1)
