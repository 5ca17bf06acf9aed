"""Names of protocols and lookup of judges."""

from __future__ import annotations

import pytest

from eval.benchmark import Ask, Response
from eval.benchmarks import benchmark_names, find_benchmark
from eval.scoring.protocols import (
    checked_protocols,
    find_judge,
    is_judge,
    judge_rules,
    judges_of,
    protocol_names,
)
from mm_cpgd.errors import UserError
from rewards import Status, Verdict
from tests.fakes.scoring import sums


def own(example: object, response: Response, ask: Ask) -> Verdict:
    return Verdict(float(ask("own?") == "1"), Status.CORRECT)


def test_every_benchmark_has_the_general_judges_and_its_own() -> None:
    assert protocol_names(sums()) == ["official", "verifier", "judge", "judge:general", "judge:whole"]
    assert "judge:mine" in protocol_names(sums(judges={"mine": own}))


@pytest.mark.parametrize("name", benchmark_names())
def test_every_named_protocol_of_a_published_benchmark_is_found(name: str) -> None:
    benchmark = find_benchmark(name)
    names = protocol_names(benchmark)
    assert checked_protocols(names, benchmark) == names
    assert list(judges_of(benchmark, names)) == [one for one in names if is_judge(one)]


def test_a_judge_that_a_benchmark_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(UserError, match=r"mathvista has no protocol 'judge:published'.*judge:extraction"):
        checked_protocols(["judge:published"], find_benchmark("mathvista"))
    with pytest.raises(UserError, match="no judge 'judge:published'"):
        find_judge(sums(), "judge:published")


def test_the_rule_behind_the_plain_judge_is_named() -> None:
    assert judge_rules(find_benchmark("mathvista"), ["official", "judge"]) == {"judge": "extraction"}
    assert judge_rules(find_benchmark("mathverse"), ["judge"]) == {"judge": "two-stage"}
    assert judge_rules(find_benchmark("k12"), ["judge", "judge:whole"]) == {
        "judge": "general",
        "judge:whole": "whole",
    }
    assert judge_rules(sums(judge=own), ["judge"]) == {"judge": "own"}
