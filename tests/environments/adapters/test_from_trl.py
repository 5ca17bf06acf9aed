"""An environment in TRL's form, run by this project's protocol."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from data import Example
from mm_cpgd.environments import get_environment
from mm_cpgd.environments.adapters.from_trl import TrlEnvironment
from mm_cpgd.environments.call_formats import write_call
from mm_cpgd.errors import UserError

# As in TRL's documentation of environment_factory, with images in a reply.
FILE = '''
from PIL import Image

class Counter:
    def __init__(self):
        self.value = 0

    def reset(self, **columns) -> str | None:
        self.value = 0
        self.answer = columns["answer"]
        self.size = columns["images"][0].size
        return f" Count to {self.answer}."

    def increment(self, step: int, note: str = "") -> int:
        """
        Increment the counter.

        Args:
            step: How much.
            note: Anything.

        Returns:
            The value.
        """
        self.value += step
        return self.value

    def look(self) -> list:
        """Look at the counter."""
        picture = Image.new("RGB", (56, 56), "red")
        return [{"type": "text", "text": "now "}, {"type": "image", "image": picture}]

    def state(self) -> dict:
        """Tell the state."""
        return {"value": self.value}

    def get_reward(self) -> float:
        return float(str(self.value) == self.answer)

    def _hidden(self):
        ...

class NoReset:
    def tool(self) -> str:
        """Tool."""
'''


@pytest.fixture
def name(tmp_path: Path) -> str:
    path = tmp_path / "trl_style.py"
    path.write_text(FILE)
    return f"{path}:Counter"


@pytest.fixture
def example() -> Example:
    from data import image_ref

    return Example("1", "Go.", "3", images=(image_ref(Image.new("RGB", (40, 30))),))


def test_its_methods_are_tools_and_its_reward_is_a_score(name: str, example: Example) -> None:
    made = get_environment("trl", {"environment": name, "max_turns": 9})(0)
    system, user = made.reset(example)
    assert '"name": "increment"' in system.text
    assert '"description": "How much."' in system.text
    assert "_hidden" not in system.text + user.text
    assert "get_reward" not in system.text
    assert user.text == "Go. Count to 3."
    assert made.environment.instance.size == (40, 30)
    assert [m.text for m in made.step(write_call("increment", {"step": 1})).messages] == ["1"]
    assert [m.text for m in made.step(write_call("increment", {"step": 2})).messages] == ["3"]
    assert [m.text for m in made.step(write_call("state", {})).messages] == ["{'value': 3}"]
    (message,) = made.step(write_call("look", {})).messages
    assert message.content[0] == "now "
    assert message.images[0].open().getpixel((5, 5)) == (255, 0, 0)
    last = made.step("3")
    assert (last.done, last.scores) == (True, {"reward": 1.0})


def test_reset_begins_anew_and_arguments_are_checked(name: str, example: Example) -> None:
    made = TrlEnvironment(0, name)
    for _ in range(2):
        made.reset(example)
        (message,) = made.step(write_call("increment", {"step": "one"})).messages
        assert message.text.startswith("Error: increment: argument 'step' is 'one'")
        assert made.step("done").scores == {"reward": 0.0}


def test_a_class_that_is_no_environment_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="NoReset has no method reset"):
        TrlEnvironment(0, name.replace("Counter", "NoReset"))
    with pytest.raises(UserError, match="no option 'max_turn': did you mean 'max_turns'"):
        TrlEnvironment(0, name, max_turn=3)
    with pytest.raises(UserError, match="option 'max_turns' is 0"):
        TrlEnvironment(0, name, max_turns=0)
