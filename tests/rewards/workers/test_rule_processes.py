"""Rules of a user in processes of their own: what ends, hangs or breaks a rule costs one completion."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from data import Example, ImageRef
from rewards import Component, RewardSum, RuleError, Status, Verdict
from rewards.registry import get_rule
from rewards.workers.rule_processes import PATIENCE, RuleFailed, RuleProcesses, RuleTimeout

RULES = """
import os, re, signal, sys, time
from rewards import Verdict, Status

def length(completion, example, scale: float = 1.0):
    return len(completion) * scale

def reads(completion, example):
    return Verdict(1.0, Status.CORRECT, example.answer, f"{example.id} {example.meta['level']}")

def raises(completion, example):
    return example.gold == completion

def text(completion, example):
    return "1.0"

def leaves(completion, example):
    sys.exit(0)

def interrupts(completion, example):
    raise KeyboardInterrupt

def exits(completion, example):
    os._exit(3)

def killed(completion, example):
    os.kill(os.getpid(), signal.SIGKILL)

def hangs(completion, example):
    time.sleep(1000)

def spins(completion, example):
    while True: pass

def backtracks(completion, example):
    return bool(re.fullmatch("(a+)+b", "a" * 40))

def asks(completion, example):
    return float(input("score? "))

def prints(completion, example):
    print("noise"); sys.stdout.write("{}")
    return 0.5

def image(completion, example):
    return example.images[0].open().width

def slow(completion, example):
    time.sleep(0.4)
    return 1.0

def marks(completion, example):
    example.meta["seen"] = example.meta.get("seen", 0) + 1
    return example.meta["seen"]

def moody(completion, example):
    if "die" in completion: os._exit(1)
    if "sleep" in completion: time.sleep(1000)
    return 1.0
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rules") / "mine.py"
    path.write_text(RULES)
    return path


@pytest.fixture
def started(file: Path) -> Iterator[Callable[..., RuleProcesses]]:
    made: list[RuleProcesses] = []

    def start(name: str, limit: float = 20.0, size: int = 1) -> RuleProcesses:
        made.append(RuleProcesses(get_rule(f"{file}:{name}"), limit, size))
        return made[-1]

    yield start
    for one in made:
        one.close()


ROW = Example("7", "How many?", "4", meta={"level": 2})


def test_verdicts_are_those_of_the_rule_in_this_process(started: Callable[..., RuleProcesses]) -> None:
    for name in ("length", "reads", "prints"):
        processes = started(name)
        assert processes("abc", ROW) == processes.rule("abc", ROW)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "AttributeError: 'Example' object has no attribute 'gold'"),
        ("text", "returned '1.0' (str); allowed: a finite number"),
        ("leaves", "SystemExit: 0"),
        ("interrupts", "KeyboardInterrupt"),
        ("exits", "the rule ended its process with exit status 3"),
        ("killed", "the rule ended its process by signal 9"),
        ("asks", "EOFError"),
    ],
)
def test_a_failing_rule_costs_one_completion(
    started: Callable[..., RuleProcesses], name: str, message: str
) -> None:
    processes = started(name)
    for _ in range(2):
        with pytest.raises(RuleFailed) as caught:
            processes("abc", ROW)
        assert message in str(caught.value)


def test_the_traceback_begins_in_the_users_file(started: Callable[..., RuleProcesses], file: Path) -> None:
    with pytest.raises(RuleFailed) as caught:
        started("raises")("abc", ROW)
    lines = caught.value.trace.splitlines()
    assert lines[1].startswith(f'  File "{file}", line ')
    assert lines[-1].startswith("AttributeError")
    assert "rule_worker" not in caught.value.trace


@pytest.mark.parametrize("name", ["hangs", "spins", "backtracks"])
def test_a_rule_that_does_not_return_is_ended_at_its_limit(
    started: Callable[..., RuleProcesses], name: str
) -> None:
    processes = started(name, limit=0.5)
    begun = time.monotonic()
    with pytest.raises(RuleTimeout, match=r"no result within 0\.5 s"):
        processes("abc", ROW)
    assert time.monotonic() - begun < 10
    assert not processes._all


def test_others_are_scored_while_one_hangs_and_after_one_died(started: Callable[..., RuleProcesses]) -> None:
    processes = started("moody", limit=3.0, size=2)
    found: list[object] = []

    def score(text: str) -> None:
        try:
            found.append(processes(text, ROW).score)
        except RuleFailed as error:
            found.append(type(error))

    threads = [threading.Thread(target=score, args=(text,)) for text in ("sleep", "a", "die", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, found)) == sorted(map(str, [1.0, 1.0, 1.0, RuleFailed, RuleTimeout]))


def test_a_rule_that_only_dies_is_not_tried_on_every_completion(file: Path) -> None:
    rewards = RewardSum([Component(f"{file}:moody", timeout=20.0)])
    scored = rewards.score(["die"] * 40, [ROW] * 40)
    assert all(one.total is None for one in scored)
    tried = [one for one in scored if "exit status 1" in one.components["moody"].reason[:60]]
    assert PATIENCE <= len(tried) < 40
    assert "not tried" in scored[-1].components["moody"].reason
    # The next batch is tried again.
    assert [one.total for one in rewards.score(["fine"] * 3, [ROW] * 3)] == [1.0] * 3


def together(processes: RuleProcesses, texts: list[str], **options: bool) -> list[object]:
    """Score texts in one message as long as none is lost; scores, or types of errors."""
    processes._seconds = 1e-6
    found = processes.score(texts, [ROW] * len(texts), **options)
    return [one.score if isinstance(one, Verdict) else type(one) for one in found]


def test_a_fast_rule_is_sent_many_completions_at_a_time(
    started: Callable[..., RuleProcesses], monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[int] = []
    send = RuleProcesses._send
    monkeypatch.setattr(
        RuleProcesses,
        "_send",
        lambda self, batch, rows: messages.append(len(rows)) or send(self, batch, rows),
    )
    processes = started("length")
    found = processes.score(["a" * n for n in range(100)], [ROW] * 100)
    assert [one.score for one in found if isinstance(one, Verdict)] == list(range(100))
    assert messages[0] == 1
    assert len(messages) < 30


@pytest.mark.parametrize(("text", "error"), [("sleep", RuleTimeout), ("die", RuleFailed)])
@pytest.mark.parametrize("size", [1, 2])
def test_of_completions_sent_together_only_the_one_that_ends_the_process_is_lost(
    started: Callable[..., RuleProcesses], text: str, error: type[RuleFailed], size: int
) -> None:
    texts = [text if place in (2, 5) else "fine" for place in range(8)]
    found = together(started("moody", limit=1.0, size=size), texts)
    assert found == [error if one == text else 1.0 for one in texts]


def test_each_completion_of_a_message_has_the_limit_for_itself(started: Callable[..., RuleProcesses]) -> None:
    assert together(started("slow", limit=1.0), ["a"] * 5) == [1.0] * 5


def test_a_slow_rule_is_sent_one_completion_at_a_time(started: Callable[..., RuleProcesses]) -> None:
    processes = started("slow", limit=5.0)
    processes("a", ROW)
    assert processes._together(64) == 1


def test_each_completion_has_an_example_of_its_own(started: Callable[..., RuleProcesses]) -> None:
    assert together(started("marks"), ["a"] * 4) == [1.0] * 4


def test_a_row_that_cannot_be_sent_is_lost_alone(started: Callable[..., RuleProcesses]) -> None:
    processes = started("length")
    processes._seconds = 1e-6
    held = Example("8", "", "", meta={"lock": threading.Lock()})
    found = processes.score(["a", "bb", "ccc"], [ROW, held, ROW])
    assert [one.score if isinstance(one, Verdict) else type(one) for one in found] == [1.0, TypeError, 3.0]


def test_nothing_is_sent_after_a_failure_that_ends_the_run(
    started: Callable[..., RuleProcesses], file: Path
) -> None:
    found = together(started("moody", limit=1.0), ["fine", "sleep", *["sleep"] * 20], stop=True)
    assert found == [1.0, RuleTimeout, *[RuleFailed] * 20]
    rewards = RewardSum([Component(f"{file}:moody", timeout=1.0, on_error="stop")])
    with pytest.raises(RuleError, match=r"no result within 1 s"):
        rewards.score(["fine", "sleep", "sleep", "sleep"], [ROW] * 4)


def test_a_sum_of_rules_here_and_in_processes_is_in_order(file: Path) -> None:
    rewards = RewardSum([Component(f"{file}:length", timeout=20.0), Component(f"{file}:reads", name="here")])
    texts = ["a" * n for n in range(40)]
    rows = [Example(str(n), "", str(n), meta={"level": n}) for n in range(40)]
    scored = rewards.score(texts, rows)
    assert [one.total for one in scored] == [n + 1.0 for n in range(40)]
    assert [one.components["here"].reason for one in scored] == [f"{n} {n}" for n in range(40)]


def test_a_sum_keeps_the_failure_with_its_traceback(file: Path) -> None:
    rewards = RewardSum([Component(f"{file}:raises", timeout=20.0), Component(f"{file}:hangs", timeout=0.3)])
    (scored,) = rewards.score(["abc"], [ROW])
    assert scored.components["raises"].status is Status.ERROR
    assert scored.components["hangs"].status is Status.TIMEOUT
    assert "Traceback" in rewards.failures["raises"]
    assert "return example.gold == completion" in rewards.failures["raises"]


def test_without_a_limit_a_rule_runs_in_this_process_and_its_exit_is_an_error(file: Path) -> None:
    rewards = RewardSum([Component(f"{file}:leaves")])
    (scored,) = rewards.score(["abc"], [ROW])
    assert scored.components["leaves"].reason == "SystemExit: 0"
    assert "sys.exit(0)" in rewards.failures["leaves"]


def test_built_in_rules_stay_in_this_process() -> None:
    rewards = RewardSum([Component("accuracy", timeout=5.0)])
    assert not isinstance(rewards._callers["accuracy"], RuleProcesses)


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), True])
def test_an_invalid_limit_is_refused(file: Path, timeout: float) -> None:
    with pytest.raises(RuleError, match="timeout of the reward 'length'"):
        RewardSum([Component(f"{file}:length", timeout=timeout)])


def test_images_can_be_opened_where_they_can_be_sent(
    started: Callable[..., RuleProcesses], noise_image: Callable[..., ImageRef], tmp_path: Path
) -> None:
    noise_image(30, 20).open().save(tmp_path / "a.png")
    from data.images import image_ref

    assert started("image")("", Example("1", "", "", images=(image_ref(tmp_path / "a.png"),))).score == 30
    held = ImageRef("held", lambda: noise_image(30, 20).open())
    with pytest.raises(RuleFailed, match=r"image held cannot be opened .* set the reward's timeout to null"):
        started("image")("", Example("1", "", "", images=(held,)))
    assert started("length")("ab", Example("1", "", "", images=(held,))).score == 2


@dataclass(frozen=True)
class Plain:
    answer: str = "4"


def test_rows_of_another_class_are_passed_too(started: Callable[..., RuleProcesses]) -> None:
    assert started("length")("ab", Plain()).score == 2


def test_no_process_outlives_a_parent_that_is_killed(file: Path) -> None:
    code = f"""
import os, sys, threading
from rewards import Component, RewardSum
rewards = RewardSum([Component({str(file) + ":hangs"!r}, timeout=2.0)])
threading.Thread(target=lambda: rewards.score(["a"], [None])).start()
while not (found := [p.process.pid for p in list(rewards._callers["hangs"]._all)]): pass
import time; time.sleep(1.5)
print(found[0], flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout, done.stderr
    pid = int(done.stdout)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail(f"process {pid} is still there")
