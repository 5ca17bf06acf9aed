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
from rewards import Component, RewardSum, RuleError, Status
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
