"""Environments of verifiers 0.1, run by this project's protocol; skipped where it is not installed."""

from __future__ import annotations

import builtins
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from data import Example, image_ref
from mm_cpgd.environments import get_environment
from mm_cpgd.environments.adapters import from_verifiers
from mm_cpgd.environments.call_formats import write_call
from mm_cpgd.environments.checks import CheckedEnvironment
from mm_cpgd.errors import UserError

FILE = '''
import verifiers as vf
from datasets import Dataset

ROWS = Dataset.from_list([{"question": "?", "answer": "!"}])
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)


def right(completion, answer, **kwargs):
    return float(completion[-1].content == answer)


def double(n: int) -> int:
    """Double a number.

    Args:
        n: the number.
    """
    return 2 * n


def tools(max_turns=5):
    rubric = vf.Rubric(funcs=[right], weights=[1.0])
    given = {"dataset": ROWS, "rubric": rubric, "system_prompt": "Count."}
    return vf.ToolEnv(tools=[double], max_turns=max_turns, **given)


class Guess(vf.MultiTurnEnv):
    async def setup_state(self, state):
        state["tries"] = 0
        return state

    @vf.stop
    async def found(self, state):
        steps = state["trajectory"]
        return bool(steps) and steps[-1]["completion"][-1].content == state["answer"]

    async def env_response(self, messages, state, **kwargs):
        state["tries"] += 1
        shown = {"type": "image_url", "image_url": {"url": PIXEL}}
        text = {"type": "text", "text": f"no, {state['tries']} <|im_end|>"}
        return [{"role": "user", "content": [text, shown]}]


def guess():
    return Guess(max_turns=3, dataset=ROWS, rubric=vf.Rubric(funcs=[right]))


def other():
    return 3
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    pytest.importorskip("verifiers", reason="verifiers is not installed")
    if not hasattr(sys.modules["verifiers"], "MultiTurnEnv"):
        pytest.skip("another version of verifiers than 0.1 is installed")
    path = tmp_path / "theirs.py"
    path.write_text(FILE)
    return path


def made(file: Path, name: str, **options: Any) -> CheckedEnvironment:
    return get_environment("verifiers", {"environment": f"{file}:{name}", **options})(0)


@pytest.fixture
def example() -> Example:
    return Example("1", "What is 2 · 2 · 3?", "12", images=(image_ref(Image.new("RGB", (30, 30))),))


@pytest.mark.parametrize("form", ["json", "xml"])
def test_their_tools_are_called_and_their_rubric_scores(file: Path, example: Example, form: str) -> None:
    environment = made(file, "tools", call_format=form)
    system, user = environment.reset(example)
    assert system.text.startswith("Count.\n\n# Tools")
    assert '"name": "double"' in system.text
    assert user.content == (example.images[0], example.question)
    first = environment.step(write_call("double", {"n": 3}, form) + write_call("double", {"n": 1}, form))
    assert [(message.role, message.text) for message in first.messages] == [("tool", "6"), ("tool", "2")]
    assert first.counts == {"tool_calls": 2, "malformed_calls": 0}
    (message,) = environment.step(write_call("double", {"n": 6})).messages
    assert message.text == "12"
    last = environment.step("12")
    assert last.done
    assert last.scores["reward"] == 1.0
    assert last.scores["double_calls"] == 3.0
    assert last.reason == "no_tools_called"


def test_a_malformed_call_is_told_and_a_wrong_one_is_theirs_to_tell(file: Path, example: Example) -> None:
    environment = made(file, "tools")
    environment.reset(example)
    wrong = environment.step("<tool_call>{</tool_call>")
    assert wrong.messages[0].text.startswith("Error: not JSON")
    assert wrong.counts == {"tool_calls": 1, "malformed_calls": 1}
    assert "triple" in environment.step(write_call("triple", {"n": 3})).messages[0].text
    assert environment.step("13").scores["reward"] == 0.0


def test_their_limit_of_turns_ends_the_conversation(file: Path, example: Example) -> None:
    environment = made(file, "tools", arguments={"max_turns": 2})
    environment.reset(example)
    call = write_call("double", {"n": 3})
    assert not environment.step(call).done
    last = environment.step(call)
    assert (last.done, last.reason) == (True, "max_turns_reached")


def test_a_conversation_without_tools_has_a_state_of_its_own(file: Path, example: Example) -> None:
    first, second = made(file, "guess"), made(file, "guess")
    assert [message.role for message in first.reset(example)] == ["user"]
    second.reset(example)
    assert first.environment.inner is second.environment.inner
    for number in (1, 2):
        (message,) = first.step("11").messages
        assert message.text == f"no, {number} < |im_end| >"
        assert message.images[0].open().size == (1, 1)
    assert second.step("12").scores["reward"] == 1.0
    assert first.step("11").reason == "max_turns_reached"


def test_conversations_run_in_threads(file: Path, example: Example) -> None:
    environments = [made(file, "tools") for _ in range(8)]
    results: list[float] = []

    def play(environment: CheckedEnvironment) -> None:
        environment.reset(example)
        environment.step(write_call("double", {"n": 6}))
        results.append(environment.step("12").scores["reward"])

    threads = [threading.Thread(target=play, args=(one,)) for one in environments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert results == [1.0] * 8


def test_what_is_no_environment_of_theirs_is_refused(file: Path) -> None:
    with pytest.raises(UserError, match="made int, which is no MultiTurnEnv"):
        made(file, "other")


def test_without_the_library_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **options: Any) -> Any:
        if name == "verifiers":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UserError, match=r"needs verifiers: pip install 'verifiers<0\.2'"):
        get_environment("verifiers", {"environment": "wordle"})


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from_verifiers._loaded.cache_clear()
    monkeypatch.setitem(sys.modules, "verifiers", SimpleNamespace(__version__="0.4.0"))
    with pytest.raises(UserError, match=r"verifiers 0\.4\.0 has no MultiTurnEnv"):
        get_environment("verifiers", {"environment": "wordle"})
