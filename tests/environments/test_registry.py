"""Environments by name, by file and by entry point, with checked options."""

from __future__ import annotations

import pickle
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from data import Example
from mm_cpgd.environments import get_environment, list_environments, registry
from mm_cpgd.environments.call_formats import write_call
from mm_cpgd.errors import UserError

FILE = '''
from PIL import Image
from mm_cpgd.environments import Observation, ToolEnvironment, prompt_messages

def grey(image: Image.Image) -> Image.Image:
    """Show an image without its colours."""
    return image.convert("L")

def used(progress, weight: float = 1.0):
    return weight * len(progress.calls)

def make(seed: int, max_turns: int = 3):
    return ToolEnvironment(seed, [grey, "zoom"], max_turns=max_turns)

class Echo:
    def __init__(self, seed: int, times: int):
        self.left = times
    def reset(self, example):
        return prompt_messages(example)
    def step(self, completion):
        self.left -= 1
        return Observation(done=self.left <= 0)

def nothing(): ...
def wrong(seed): return 3
def fails(seed): raise OSError("no display")
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def test_environments_are_listed() -> None:
    listed = list_environments()
    assert list(listed) == ["plain", "tools", "trl", "verifiers"]
    assert all(listed.values())


def test_options_are_converted_and_bound(example: Example) -> None:
    factory = get_environment("tools", {"tools": ["zoom"], "max_turns": "2", "coordinates": "fraction"})
    assert factory.options["max_turns"] == 2
    first, second = factory(1), factory(2)
    first.reset(example)
    second.reset(example)
    assert first.environment is not second.environment
    assert not first.step(write_call("zoom", {"box": [0, 0, 1, 1]})).done


def test_a_function_of_a_file_with_its_own_tool(file: Path, example: Example) -> None:
    made = get_environment(f"{file}:make", {"max_turns": 2})(0)
    made.reset(example)
    (message,) = made.step(write_call("grey", {})).messages
    assert message.images[0].open().getpixel((120, 60)) == (76, 76, 76)


def test_a_tool_and_a_score_of_a_file(file: Path, example: Example) -> None:
    options = {"tools": [f"{file}:grey"], "scores": {f"{file}:used": {"weight": 0.5}}}
    made = get_environment("tools", options)(0)
    made.reset(example)
    assert made.step(write_call("grey", {})).scores == {"used": 0.5}


def test_factories_are_pickled_by_reference(
    file: Path, example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    factory = get_environment("mine.py:Echo", {"times": 1})
    assert factory.name == "mine.py:Echo"
    monkeypatch.chdir("/")
    again = pickle.loads(pickle.dumps(factory))
    assert again.options == {"times": 1}
    assert again(0).step("x").done


def test_an_installed_environment_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("search", "mm_cpgd.environments:PlainEnvironment", registry.GROUP)
    broken = EntryPoint("broken", "no_such_module:x", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry, broken])
    assert get_environment("search")(0).step("x").done
    assert "search" in list_environments()
    with pytest.raises(UserError, match="'broken' is installed as no_such_module:x and cannot be loaded"):
        get_environment("broken")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tolls", {}, "no environment 'tolls': did you mean 'tools'"),
        ("tools", {}, "needs the option 'tools'"),
        ("tools", {"tools": ["zoom"], "max_turn": 2}, "no option 'max_turn': did you mean 'max_turns'"),
        ("tools", {"tools": ["zoom"], "max_turns": 0}, "option 'max_turns' is 0"),
        ("tools", {"tools": ["zoom"], "coordinates": "pixels"}, "option 'coordinates' is 'pixels'"),
        ("tools", {"tools": ["zoom"], "image_pixels": 100}, "option 'image_pixels' is 100"),
        ("tools", {"tools": ["zoom"], "scores": {"cost": {}}}, "no score 'cost'"),
        ("tools", {"tools": ["zoom"], "scores": {"call_cost": {"fre": 1}}}, "no option 'fre'"),
        ("tools", {"tools": ["zoom"], "scores": {"call_cost": 3}}, "write a mapping"),
        ("tools", {"tools": ["zoom"], "seed": 1}, "no option 'seed'"),
        ("none.py:make", {}, "there is no file"),
        ("FILE", {}, "name one environment in it"),
        ("FILE:mak", {}, "has no 'mak': did you mean 'make'"),
        ("FILE:nothing", {}, "must take a seed first"),
        ("FILE:wrong", {}, "made int, which has no method reset"),
        ("FILE:fails", {}, "cannot be made: OSError: no display"),
        ("FILE:Echo", {}, "needs the option 'times'"),
        ("FILE:Echo", {"times": "x"}, "option 'times' is 'x'"),
        ("FILE:FILE", {}, "has no 'FILE'"),
    ],
)
def test_mistakes_are_one_message(file: Path, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        get_environment(name.replace("FILE", str(file), 1), options)
