"""Registration, lookup and options of rules: built-in, installed, and in a user's file."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rewards import RuleError, Status, Verdict, get_rule, list_rules, rule
from rewards import registry as registry_module
from rewards.example import RewardExample as Example
from rewards.registry import as_verdict

pytestmark = pytest.mark.usefixtures("own_registry")


def test_every_built_in_rule_is_listed_with_what_it_does() -> None:
    listed = list_rules()
    assert {"accuracy", "choice", "exact", "format"} <= set(listed)
    assert all(listed.values())


def test_an_unknown_rule_names_the_nearest() -> None:
    with pytest.raises(RuleError, match="no reward rule 'acuracy': did you mean 'accuracy'"):
        get_rule("acuracy")


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(RuleError, match="no option 'time_out': did you mean 'timeout'"):
        get_rule("accuracy", {"time_out": 1})


def test_an_option_to_a_rule_that_takes_none_says_so() -> None:
    with pytest.raises(RuleError, match="it takes none"):
        get_rule("choice", {"strict": True})


def test_an_existing_name_cannot_be_registered_again() -> None:
    with pytest.raises(RuleError, match="exists already"):
        rule("accuracy")(lambda completion, example: 1.0)


def test_a_rule_in_a_users_file_becomes_a_verdict(rule_file: Path) -> None:
    brevity = get_rule(f"{rule_file}:brevity", {"longest": 3, "scale": 0.5})
    verdict = brevity("abc", Example("x"))
    assert (verdict.score, verdict.status) == (0.5, Status.PARTIAL)
    assert brevity("abcd", Example("x")).status is Status.WRONG


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("brevity", {"longset": 3, "scale": 1}, "did you mean 'longest'"),
        ("brevity", {}, "needs the option 'scale'"),
        ("brevty", {}, "did you mean 'brevity'"),
        ("alone", {}, "must take a completion and an example"),
    ],
)
def test_a_wrong_reference_to_a_users_file_says_how_to_fix_it(
    rule_file: Path, name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(RuleError, match=message):
        get_rule(f"{rule_file}:{name}", options)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(RuleError, match=r"there is no file .*nowhere\.py"):
        get_rule("nowhere.py:f")


def test_a_file_that_cannot_be_imported_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("1/0")
    with pytest.raises(RuleError, match="ZeroDivisionError"):
        get_rule(f"{tmp_path / 'bad.py'}:f")


def test_a_rule_may_return_a_verdict_of_its_own() -> None:
    mine = Verdict(0.25, Status.PARTIAL, "a", "because")
    rule("own verdict")(lambda completion, example: mine)
    assert get_rule("own verdict")("x", Example("y")) is mine


WRONG = {
    "three": "3",
    "alone": "def alone(completion): return 1",
    "words": "def words(completion, example) -> str: return 'good'",
    "later": "async def later(completion, example): return 1",
    "starred": "def starred(*texts): return 1",
    "trl": "def trl(prompts, completions, **kwargs): return [1.0]",
    "trl_keywords": "def trl_keywords(completions, **kwargs): return [1.0]",
    "verl": "def verl(data_source, solution_str, ground_truth, extra_info=None): return 1.0",
}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("three", "is int, not a function; write def rule"),
        ("alone", "must take a completion and an example: def rule"),
        ("words", "is annotated to return <class 'str'>; allowed: a finite number"),
        ("later", "is asynchronous or a generator; write a plain def"),
        ("starred", "must take a completion and an example"),
        ("trl", r"has TRL's signature, which scores lists of completions; write def rule\(completion, ex"),
        ("trl_keywords", "has TRL's signature"),
        ("verl", "has verl's signature"),
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
    assert bound("x", Example("4")).score == 0.001
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
    assert get_rule(f"{tmp_path / 'own.py'}:composed-half")("x", Example("4")).score == 0.5


class Offer:
    """Fake entry point of an installed package."""

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
    assert get_rule("halved")("x", Example("4")).score == 0.5
    assert "halved" in list_rules()


def test_a_built_in_rule_takes_precedence_over_an_installed_one_of_its_name(offers: list[Offer]) -> None:
    offers.append(Offer("format", "package:format", lambda completion, example: 0.5))
    assert get_rule("format")("x", Example("4")).score == 0.0


def test_an_installed_rule_that_cannot_be_loaded_names_its_package(offers: list[Offer]) -> None:
    offers.append(Offer("broken", "package:broken", ImportError("no module named cv2")))
    with pytest.raises(
        RuleError, match="'broken' is installed as package:broken and cannot be loaded: ImportError"
    ):
        get_rule("broken")
    assert "cannot be loaded" in list_rules()["broken"]


def fixed(completion: str, example: Example) -> float:
    return 0.0


def test_a_rule_that_two_packages_provide_is_refused(offers: list[Offer]) -> None:
    offers += [Offer("same", "one:f", fixed), Offer("same", "two:f", fixed)]
    with pytest.raises(RuleError, match="provided by one:f and two:f"):
        get_rule("same")


def test_a_rule_may_be_registered_under_its_own_name() -> None:
    @rule
    def named_by_itself(completion: str, example: Any) -> float:
        """A quarter."""
        return 0.25

    assert list_rules()["named_by_itself"] == "A quarter."
    assert get_rule("named_by_itself")("x", Example("4")).score == 0.25


@pytest.mark.parametrize(
    ("value", "score"),
    [
        (np.mean([1, 0]) < 2, 1.0),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3.0),
        (np.array(0.25), 0.25),
        (torch.tensor(0.75), 0.75),
        (torch.tensor(True), 1.0),
        (torch.tensor(2), 2.0),
        (torch.tensor(0.5, requires_grad=True), 0.5),
        (Decimal("0.1"), 0.1),
        (Fraction(1, 4), 0.25),
        (Verdict(np.float64(0.5), Status.PARTIAL), 0.5),
    ],
)
def test_scalars_of_other_libraries_are_numbers(value: object, score: float) -> None:
    verdict = as_verdict("mine", value)
    assert verdict.score == score
    assert type(verdict.score) is float


@pytest.mark.parametrize(
    "value",
    [np.array([1.0]), torch.ones(1), torch.tensor(math.nan), np.float32(np.inf), "1", (1.0, ""), 10**400, 1j],
)
def test_what_is_no_finite_number_is_named(value: object) -> None:
    with pytest.raises(RuleError, match=r"(?s)^rule 'mine' returned .*; allowed: a finite number"):
        as_verdict("mine", value)
