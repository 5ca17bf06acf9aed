"""Weights, gates, limits and names: how the scores of several rules become one reward."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rewards import Component, RewardSum, RuleError, Scored, Status, Verdict, get_rule, list_rules, rule
from rewards import registry as registry_module


@dataclass(frozen=True)
class Row:
    answer: str = "4"
    choices: tuple[str, ...] = ()
    id: str = "row-7"


@rule("composition: number")
def number(completion: str, example: Row, times: float = 1.0) -> float:
    """The number that the completion is."""
    return times * float(completion)


@rule("composition: unscorable")
def unscorable(completion: str, example: Row) -> Verdict:
    """No score for anything."""
    return Verdict(None, Status.UNPARSABLE_GOLD, None, "the gold answer is prose")


@rule("composition: fixed")
def fixed(completion: str, example: Row, value: float = 0.0) -> float:
    """The same for all."""
    return value


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it; the built-in rules, loaded at the first look, stay."""
    list_rules()
    monkeypatch.setattr(registry_module, "_rules", dict(registry_module._rules))


NUMBER, FIXED = "composition: number", "composition: fixed"
RIGHT = "<think>2+2</think><answer>4</answer>"
UNTAGGED = "The answer is 4."


def score(completion: str, *components: Component) -> Scored:
    (scored,) = RewardSum(components).score([completion], [Row()])
    return scored


def scores(scored: Scored) -> dict[str, float | None]:
    return {name: verdict.score for name, verdict in scored.components.items()}


def gate(value: float, **other: Any) -> Component:
    return Component(FIXED, 0.0, {"value": value}, name="gate", **other)


def test_weights_are_applied_last_to_components_that_stay_apart() -> None:
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


def test_components_stay_in_the_order_of_the_config_whatever_the_gates() -> None:
    components = Component("accuracy", when="format"), Component("format", 0.5)
    assert list(score(RIGHT, *components).components) == ["accuracy", "format"]
    assert list(RewardSum(components).rules) == ["accuracy", "format"]


@pytest.mark.parametrize(("value", "open_"), [(0.49, False), (0.5, True), (0.7, True)])
def test_a_gate_opens_at_the_score_that_is_named(value: float, open_: bool) -> None:
    assert score("3", gate(value), Component(NUMBER, when="gate", at_least=0.5)).total == (
        3.0 if open_ else 0.0
    )


def test_a_closed_gate_takes_a_penalty_away_too() -> None:
    assert score("-3", gate(0.0), Component(NUMBER, when="gate")).total == 0.0


def test_a_gate_behind_a_closed_gate_is_closed() -> None:
    inner = Component(FIXED, 0.0, {"value": 1.0}, name="inner", when="gate")
    assert score("3", Component(NUMBER, when="inner"), inner, gate(0.0)).total == 0.0
    assert score("3", Component(NUMBER, when="inner"), inner, gate(1.0)).total == 3.0


def test_a_gate_without_a_score_takes_the_completion_out() -> None:
    scored = score(
        "3", Component("composition: unscorable", 0.0, name="gate"), Component(NUMBER, when="gate")
    )
    assert scored.total is None
    assert scored.components[NUMBER].status is Status.UNPARSABLE_GOLD


def test_what_cannot_be_scored_stays_unscored_behind_a_closed_gate() -> None:
    assert score("3", gate(0.0), Component("composition: unscorable", when="gate")).total is None


@pytest.mark.parametrize(("text", "value"), [("-5", -1.0), ("0.5", 0.5), ("5", 2.0)])
def test_scores_are_clipped_before_they_are_weighed(text: str, value: float) -> None:
    scored = score(text, Component(NUMBER, 10.0, min=-1, max=2))
    assert (scores(scored), scored.total) == ({NUMBER: value}, 10 * value)


def test_clipping_is_told_in_the_reason() -> None:
    assert "(5 clipped to 2)" in score("5", Component(NUMBER, max=2)).components[NUMBER].reason


def test_one_rule_may_stand_twice_under_names_of_its_own() -> None:
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
        ([Component(NUMBER, when=NUMBER)], "in a circle: composition: number → composition: number"),
        ([Component(NUMBER, when=FIXED), Component(FIXED, when=NUMBER)], "in a circle"),
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
def test_a_composition_that_cannot_work_says_what_to_do(components: list[Component], message: str) -> None:
    with pytest.raises(RuleError, match=message):
        RewardSum(components)


def test_a_rule_that_raises_leaves_the_completion_out_and_says_why() -> None:
    scored = score("three", Component(NUMBER), Component(FIXED, 1.0, {"value": 1.0}))
    assert scored.total is None
    assert scored.components[NUMBER].status is Status.ERROR
    assert scored.components[NUMBER].reason == "ValueError: could not convert string to float: 'three'"


def test_a_rule_that_raises_stops_the_run_only_if_asked_to() -> None:
    with pytest.raises(
        RuleError, match=r"'composition: number' failed on example 'row-7': ValueError: could not"
    ):
        score("three", Component(NUMBER, on_error="stop"))


def test_a_result_that_is_no_score_stops_the_run_if_asked_to() -> None:
    with pytest.raises(RuleError, match=r"returned nan \(float\); allowed: a finite number"):
        score("nan", Component(NUMBER, on_error="stop"))


@pytest.mark.parametrize("value", ["good", None, math.inf, [1.0], Verdict(math.nan, Status.CORRECT)])
def test_a_result_that_is_no_score_is_an_error_that_shows_it(value: object) -> None:
    rule(f"returns {value!r}")(lambda completion, example: value)
    verdict = score("x", Component(f"returns {value!r}")).components[f"returns {value!r}"]
    assert verdict.status is Status.ERROR
    assert (
        f"returned {value!r} ({type(value).__name__}); allowed: a finite number, or a Verdict"
        in verdict.reason
    )


def test_a_sum_survives_pickling_with_rules_of_a_users_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def size(completion, example, scale: float = 1): return scale * len(completion)\n")
    rewards = RewardSum([Component(f"{file}:size", 2.0, {"scale": 0.5}, name="size")])
    (scored,) = pickle.loads(pickle.dumps(rewards)).score(["abcd"], [Row()])
    assert scored.total == 4.0


WRONG = {
    "three": "3",
    "alone": "def alone(completion): return 1",
    "words": "def words(completion, example) -> str: return 'good'",
    "later": "async def later(completion, example): return 1",
    "starred": "def starred(*texts): return 1",
}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("three", "is int, not a function; write def rule"),
        ("alone", "must take a completion and an example: def rule"),
        ("words", "says that it returns <class 'str'>; allowed: a finite number"),
        ("later", "is asynchronous or a generator; write a plain def"),
        ("starred", "must take a completion and an example"),
    ],
)
def test_a_function_that_is_no_rule_is_refused_before_training(
    tmp_path: Path, name: str, message: str
) -> None:
    text = WRONG[name] if WRONG[name].startswith(("def", "async")) else f"{name} = {WRONG[name]}"
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(RuleError, match=message):
        get_rule(f"{tmp_path / 'mine.py'}:{name}")


TYPED = """
from __future__ import annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
if TYPE_CHECKING:
    from somewhere import Example

@dataclass
class Shape:
    sides: int

def typed(completion: str, example: Example, rate: float = 1, mode: Literal["up", "down"] = "up",
          sizes: tuple[float, ...] = (), shape: Shape = None, other: Example = None) -> float:
    return rate if mode == "up" else sum(sizes)
"""


@pytest.fixture
def typed(tmp_path: Path) -> str:
    (tmp_path / "typed.py").write_text(TYPED)
    return f"{tmp_path / 'typed.py'}:typed"


def test_options_become_what_the_signature_says(typed: str) -> None:
    # YAML reads 1e-3, without a point, as a text.
    bound = get_rule(typed, {"rate": "1e-3", "sizes": [1, 2]})
    assert bound("x", Row()).score == 0.001
    assert bound.options == {"rate": 0.001, "sizes": (1.0, 2.0)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": "fast"}, r"option 'rate' of rule .* is 'fast', it must be float"),
        ({"mode": "left"}, r"option 'mode' .* is 'left', it must be .*up.*down"),
        ({"sizes": 3}, "option 'sizes' .* is 3, it must be tuple"),
    ],
)
def test_an_option_of_another_type_is_refused(typed: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(RuleError, match=message):
        get_rule(typed, options)


def test_a_decorated_function_is_found_by_its_rule_name_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from rewards import rule\n@rule('composed-half')\ndef f(completion, example): return 0.5\n"
    )
    assert get_rule(f"{tmp_path / 'own.py'}:composed-half")("x", Row()).score == 0.5


class Offer:
    """Stands for an entry point of an installed package."""

    def __init__(self, name: str, value: str, found: object) -> None:
        self.name, self.value, self._found = name, value, found

    def load(self) -> object:
        if isinstance(self._found, Exception):
            raise self._found
        return self._found


@pytest.fixture
def offers(monkeypatch: pytest.MonkeyPatch) -> list[Offer]:
    offered: list[Offer] = []
    monkeypatch.setattr(
        registry_module, "entry_points", lambda group: offered if group == "mm_cpgd.rewards" else []
    )
    return offered


def test_a_rule_of_an_installed_package_is_found_by_its_name(offers: list[Offer]) -> None:
    offers.append(Offer("halved", "package:halved", lambda completion, example: 0.5))
    assert get_rule("halved")("x", Row()).score == 0.5
    assert "halved" in list_rules()


def test_a_built_in_rule_wins_over_an_installed_one_of_its_name(offers: list[Offer]) -> None:
    offers.append(Offer("format", "package:format", lambda completion, example: 0.5))
    assert get_rule("format")("x", Row()).score == 0.0


def test_an_installed_rule_that_cannot_be_loaded_says_whose_it_is(offers: list[Offer]) -> None:
    offers.append(Offer("broken", "package:broken", ImportError("no module named cv2")))
    with pytest.raises(
        RuleError, match="'broken' is installed as package:broken and cannot be loaded: ImportError"
    ):
        get_rule("broken")
    assert "cannot be loaded" in list_rules()["broken"]


def test_a_rule_that_two_packages_offer_is_refused(offers: list[Offer]) -> None:
    offers += [Offer("same", "one:f", fixed), Offer("same", "two:f", fixed)]
    with pytest.raises(RuleError, match="offered by one:f and two:f"):
        get_rule("same")


def test_a_rule_named_by_path_is_called_by_its_function_in_the_log() -> None:
    assert Component("my rules/look.py:brevity").key == "brevity"
    assert Component("my rules/look.py:brevity", name="short").key == "short"


def test_a_rule_may_be_registered_under_its_own_name() -> None:
    @rule
    def named_by_itself(completion: str, example: Any) -> float:
        """A quarter."""
        return 0.25

    assert list_rules()["named_by_itself"] == "A quarter."
    assert get_rule("named_by_itself")("x", Row()).score == 0.25
