"""Composition of rules: weights, gates, limits, names, and rules that fail."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rewards import Component, RewardSum, RuleError, Scored, Status, Verdict, rule


@dataclass(frozen=True)
class Example:
    answer: str = "4"
    choices: tuple[str, ...] = ()
    id: str = "row-7"


@rule("composition: number")
def number(completion: str, example: Example, times: float = 1.0) -> float:
    """The number in the completion."""
    return times * float(completion)


@rule("composition: unscorable")
def unscorable(completion: str, example: Example) -> Verdict:
    """No score for anything."""
    return Verdict(None, Status.UNPARSABLE_GOLD, None, "the gold answer is prose")


@rule("composition: fixed")
def fixed(completion: str, example: Example, value: float = 0.0) -> float:
    """A constant score."""
    return value


pytestmark = pytest.mark.usefixtures("own_registry")
NUMBER, FIXED = "composition: number", "composition: fixed"
RIGHT = "<think>2+2</think><answer>4</answer>"
UNTAGGED = "The answer is 4."
GOOD = "<think>2+2</think>\n<answer>4</answer>\n"


def score(completion: str, *components: Component) -> Scored:
    (scored,) = RewardSum(components).score([completion], [Example()])
    return scored


def scores(scored: Scored) -> dict[str, float | None]:
    return {name: verdict.score for name, verdict in scored.components.items()}


def gate(value: float, **other: Any) -> Component:
    return Component(FIXED, 0.0, {"value": value}, name="gate", **other)


def test_weights_are_applied_last_to_separate_components() -> None:
    scored = score("3", Component(NUMBER, 0.5), Component(FIXED, -2.0, {"value": 0.25}))
    assert scores(scored) == {NUMBER: 3.0, FIXED: 0.25}
    assert scored.total == 0.5 * 3.0 - 2.0 * 0.25


def test_accuracy_counts_only_if_the_format_holds() -> None:
    components = Component("accuracy", when="format"), Component("format", 0.5)
    assert score(RIGHT, *components).total == 1.5
    scored = score(UNTAGGED, *components)
    assert scored.total == 0.0
    assert "format is 0, at least 1 is needed" in scored.components["accuracy"].reason
    assert scored.components["accuracy"].extracted == "4"


def test_components_stay_in_the_order_of_the_config_regardless_of_gates() -> None:
    components = Component("accuracy", when="format"), Component("format", 0.5)
    assert list(score(RIGHT, *components).components) == ["accuracy", "format"]
    assert list(RewardSum(components).rules) == ["accuracy", "format"]


@pytest.mark.parametrize(("value", "open_"), [(0.49, False), (0.5, True), (0.7, True)])
def test_a_gate_opens_at_its_score(value: float, open_: bool) -> None:
    assert score("3", gate(value), Component(NUMBER, when="gate", at_least=0.5)).total == (
        3.0 if open_ else 0.0
    )


def test_a_closed_gate_also_removes_a_penalty() -> None:
    assert score("-3", gate(0.0), Component(NUMBER, when="gate")).total == 0.0


def test_a_gate_behind_a_closed_gate_is_closed() -> None:
    inner = Component(FIXED, 0.0, {"value": 1.0}, name="inner", when="gate")
    assert score("3", Component(NUMBER, when="inner"), inner, gate(0.0)).total == 0.0
    assert score("3", Component(NUMBER, when="inner"), inner, gate(1.0)).total == 3.0


def test_a_gate_without_a_score_excludes_the_completion() -> None:
    scored = score(
        "3", Component("composition: unscorable", 0.0, name="gate"), Component(NUMBER, when="gate")
    )
    assert scored.total is None
    assert scored.components[NUMBER].status is Status.UNPARSABLE_GOLD


def test_an_unscorable_completion_stays_unscored_with_a_closed_gate() -> None:
    assert score("3", gate(0.0), Component("composition: unscorable", when="gate")).total is None


@pytest.mark.parametrize(("text", "value"), [("-5", -1.0), ("0.5", 0.5), ("5", 2.0)])
def test_scores_are_clipped_before_they_are_weighted(text: str, value: float) -> None:
    scored = score(text, Component(NUMBER, 10.0, min=-1, max=2))
    assert (scores(scored), scored.total) == ({NUMBER: value}, 10 * value)


def test_clipping_is_reported_in_the_reason() -> None:
    assert "(5 clipped to 2)" in score("5", Component(NUMBER, max=2)).components[NUMBER].reason


def test_one_rule_can_be_used_twice_under_different_names() -> None:
    twice = Component(NUMBER, 1.0, {"times": 2}), Component(NUMBER, 0.1, {"times": 3}, name="threefold")
    scored = score("5", *twice)
    assert scores(scored) == {NUMBER: 10.0, "threefold": 15.0}
    assert scored.total == 11.5


@pytest.mark.parametrize(
    ("components", "message"),
    [
        (
            [Component(NUMBER, when="fromat"), Component("format")],
            "no component has that name: did you mean 'format'",
        ),
        ([Component(NUMBER, when=NUMBER)], "form a cycle: composition: number → composition: number"),
        ([Component(NUMBER, when=FIXED), Component(FIXED, when=NUMBER)], "form a cycle"),
        ([Component(NUMBER, when="gate"), gate(1, max=0.5)], "the max of that is 0.5; lower at_least"),
        (
            [Component(NUMBER, math.nan)],
            "weight of the reward 'composition: number' is nan; it must be a finite",
        ),
        ([Component(NUMBER, "1")], "weight of the reward .* is '1'"),  # type: ignore[arg-type]
        ([Component(NUMBER, True)], "weight of the reward .* is True"),
        ([Component(NUMBER, 0.0), Component(FIXED, 0.0)], "every reward has weight 0"),
        ([Component(NUMBER, min=2, max=1)], "min 2 .* is above its max 1"),
        ([Component(NUMBER, max=math.inf)], "max of the reward .* is inf"),
        ([Component(NUMBER), Component(NUMBER)], "is given twice; give one a name of its own"),
        ([Component(NUMBER, name="mean")], "cannot be called 'mean'"),
        ([Component(NUMBER, name=" ")], "cannot be called ' '"),
        ([Component(NUMBER, on_error="warn")], "is 'warn'; it is skip or stop"),  # type: ignore[arg-type]
    ],
)
def test_an_invalid_composition_is_refused_with_the_fix(components: list[Component], message: str) -> None:
    with pytest.raises(RuleError, match=message):
        RewardSum(components)


def test_a_rule_that_raises_excludes_the_completion_with_a_reason() -> None:
    scored = score("three", Component(NUMBER), Component(FIXED, 1.0, {"value": 1.0}))
    assert scored.total is None
    assert scored.components[NUMBER].status is Status.ERROR
    assert scored.components[NUMBER].reason == "ValueError: could not convert string to float: 'three'"


def test_a_rule_that_raises_stops_the_run_only_with_on_error_stop() -> None:
    with pytest.raises(
        RuleError, match=r"'composition: number' failed on example 'row-7': ValueError: could not"
    ):
        score("three", Component(NUMBER, on_error="stop"))


def test_a_result_that_is_no_score_stops_the_run_with_on_error_stop() -> None:
    with pytest.raises(RuleError, match=r"returned nan \(float\); allowed: a finite number"):
        score("nan", Component(NUMBER, on_error="stop"))


@pytest.mark.parametrize("value", ["good", None, math.inf, [1.0], Verdict(math.nan, Status.CORRECT)])
def test_a_result_that_is_no_score_is_an_error_that_shows_it(value: object) -> None:
    rule(f"returns {value!r}")(lambda completion, example: value)
    verdict = score("x", Component(f"returns {value!r}")).components[f"returns {value!r}"]
    assert verdict.status is Status.ERROR
    hint = "; a return statement may be missing" if value is None else ""
    assert (
        f"returned {value!r} ({type(value).__name__}){hint}; allowed: a finite number, or" in verdict.reason
    )


def test_a_sum_survives_pickling_with_rules_of_a_users_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def size(completion, example, scale: float = 1): return scale * len(completion)\n")
    rewards = RewardSum([Component(f"{file}:size", 2.0, {"scale": 0.5}, name="size")])
    (scored,) = pickle.loads(pickle.dumps(rewards)).score(["abcd"], [Example()])
    assert scored.total == 4.0


def test_a_rule_named_by_path_is_called_by_its_function_in_the_log() -> None:
    assert Component("my rules/look.py:brevity").key == "brevity"
    assert Component("my rules/look.py:brevity", name="short").key == "short"


def test_the_sum_weights_each_component_and_keeps_it_separate() -> None:
    total = RewardSum([("accuracy", 1.0, {}), ("format", 0.5, {})])
    right, wrong = total.score([GOOD, "\\boxed{5}"], [Example("4"), Example("4")])
    assert (right.total, wrong.total) == (1.5, 0.0)
    assert {name: verdict.score for name, verdict in right.components.items()} == {
        "accuracy": 1.0,
        "format": 1.0,
    }


def test_a_component_without_a_score_excludes_the_completion() -> None:
    rewards = RewardSum([("accuracy", 1.0, {}), ("format", 0.5, {})])
    (scored,) = rewards.score([GOOD], [Example("any (not unique)")])
    assert scored.total is None
    assert scored.components["format"].score == 1.0


def test_a_component_of_weight_zero_is_logged_and_does_not_count() -> None:
    (scored,) = RewardSum([("accuracy", 0.0, {}), ("format", 1.0, {})]).score(
        [GOOD], [Example("(not unique)")]
    )
    assert scored.total == 1.0
    assert scored.components["accuracy"].status is Status.UNPARSABLE_GOLD


def test_a_rule_that_raises_is_an_error_without_a_score(rule_file: Path) -> None:
    name = f"{rule_file}:broken"
    (scored,) = RewardSum([(name, 1.0, {})]).score(["x"], [Example("x")])
    assert scored.total is None
    assert scored.components["broken"].status is Status.ERROR
    assert "KeyError: 'colour'" in scored.components["broken"].reason


@pytest.mark.parametrize("value", ["good", math.nan, math.inf])
def test_a_result_that_is_no_finite_number_is_an_error(value: object) -> None:
    name = f"gives {value}"
    rule(name)(lambda completion, example: value)
    (scored,) = RewardSum([(name, 1.0, {})]).score(["x"], [Example("x")])
    assert scored.components[name].status is Status.ERROR


def test_unequal_numbers_of_completions_and_examples_are_named() -> None:
    with pytest.raises(ValueError, match="2 completions but 1 examples"):
        RewardSum([("format", 1.0, {})]).score(["a", "b"], [Example("a")])


def test_no_component_and_a_component_twice_are_errors() -> None:
    with pytest.raises(RuleError, match="no reward rule is given"):
        RewardSum([])
    with pytest.raises(RuleError, match="'format' is given twice"):
        RewardSum([("format", 1.0, {}), ("format", 1.0, {})])
