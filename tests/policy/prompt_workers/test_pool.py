"""Prompts encoded by other processes are the same; whatever happens to these, none outlives this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from data import Example, ImageRef, image_ref, load_examples
from data.example import DataError
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import EncodedPrompt, PromptEncoder, load_policy
from mm_cpgd.policy.prompt_workers import PromptWorkers, messages, pool
from tests.paths import ROOT

LIMIT = 60  # seconds


@pytest.fixture(scope="module")
def encoder(tiny_folder: Path) -> PromptEncoder:
    return load_policy(PolicyConfig(model=str(tiny_folder))).encoder


@pytest.fixture(scope="module")
def workers(encoder: PromptEncoder) -> Iterator[PromptWorkers]:
    made = PromptWorkers(encoder, 2)
    made.wait()
    yield made
    made.close()


def pids(workers: PromptWorkers) -> list[int]:
    return [one._process.pid for one in workers._processes]


def own_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("prompt-workers")]


def assert_same(found: EncodedPrompt | None, wanted: EncodedPrompt) -> None:
    assert found is not None
    assert torch.equal(found.input_ids, wanted.input_ids)
    assert torch.equal(found.positions, wanted.positions)
    assert found.token_types is not None
    assert wanted.token_types is not None
    assert torch.equal(found.token_types, wanted.token_types)
    assert list(found.vision) == list(wanted.vision)
    for name, value in wanted.vision.items():
        assert torch.equal(found.vision[name], value)
    assert found.types_name == wanted.types_name
    assert found.conversation == wanted.conversation


def test_prompts_are_those_of_this_process_in_the_order_asked_for(
    encoder: PromptEncoder, workers: PromptWorkers, png: Callable[..., bytes], tmp_path: Path
) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(png("blue", (60, 90)))
    images = (image_ref(png("red", (80, 60))), image_ref(str(file)))
    examples = [
        *load_examples("generated:shapes,clock", limit=6).examples,
        Example("two", "Is <image2> bluer than <image1>?", "3", images=images, system="Be brief."),
        Example("text", "How much?", "3", choices=("one", "two")),
    ]
    pending = [workers.submit(example) for example in examples]
    for example, one in zip(examples, pending, strict=True):
        assert_same(one.result(LIMIT), encoder.encode(example))


def test_rows_are_sent_without_what_their_prompt_does_not_need(
    encoder: PromptEncoder, workers: PromptWorkers, png: Callable[..., bytes]
) -> None:
    table = threading.Lock()  # stands for a data set, from which a row can be read again only here

    def reload() -> bytes:
        with table:
            return png("red", (80, 60))

    row = Example("1", "?", "3", (image_ref(b"x", reload=reload),), meta={"open": table})
    assert_same(workers.submit(row).result(LIMIT), encoder.encode(row))


def test_a_row_that_cannot_be_encoded_is_none_and_the_next_one_is(
    encoder: PromptEncoder, workers: PromptWorkers, png: Callable[..., bytes]
) -> None:
    good = Example("good", "?", "3", (image_ref(png("red", (80, 60))),))
    bad = [
        Example("damaged", "?", "3", (image_ref(png("red", (80, 60))[:40]),)),
        Example("narrow", "?", "3", (image_ref(png("red", (4000, 8))),)),
        Example("marker", "<image2>?", "3"),
        Example("unsendable", "?", "3", (ImageRef("here", lambda: None),)),  # type: ignore[arg-type, return-value]
        Example("gone", "?", "3", (image_ref("/nowhere/a.png"),)),
    ]
    pending = [(row, workers.submit(row)) for row in bad for _ in range(2)]
    last = workers.submit(good)
    for row, one in pending:
        try:
            assert one.result(LIMIT) is None, row.id
        except Exception:
            assert row.id == "unsendable"
        with pytest.raises((DataError, ValueError, AttributeError)):
            encoder.encode(row)
    assert_same(last.result(LIMIT), encoder.encode(good))
    assert workers.ready


def test_ctrl_c_is_left_to_this_process(workers: PromptWorkers, encoder: PromptEncoder) -> None:
    example = load_examples("generated:shapes", limit=1).examples[0]
    for pid in pids(workers):
        assert os.getpgid(pid) != os.getpgid(0)
        os.kill(pid, signal.SIGINT)
    assert_same(workers.submit(example).result(LIMIT), encoder.encode(example))


def test_an_answer_that_cannot_be_received_is_no_part_of_the_next_one(
    encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    example = load_examples("generated:shapes", limit=1).examples[0]
    workers = PromptWorkers(encoder, 1, say=said.append)
    workers.wait()
    with monkeypatch.context() as patch:
        patch.setattr(messages, "_empty", lambda *_: 1 / 0)
        assert workers.submit(example).result(LIMIT) is None
    assert_same(workers.submit(example).result(LIMIT), encoder.encode(example))
    workers.close()
    assert len(said) == 1


@pytest.mark.slow
def test_a_process_that_is_killed_is_replaced_until_several_were(encoder: PromptEncoder) -> None:
    said, before = list[str](), own_threads()
    example = load_examples("generated:shapes", limit=1).examples[0]
    workers = PromptWorkers(encoder, 1, say=said.append)
    workers.wait()
    for number in range(pool.MAX_LOST + 1):
        assert_same(workers.submit(example).result(LIMIT), encoder.encode(example))
        (pid,) = pids(workers)
        os.kill(pid, signal.SIGKILL)
        assert workers.submit(example).result(LIMIT) is None
        assert len(said) == number + 1
        assert "exit status -9" in said[-1]
        assert workers.ready == (number < pool.MAX_LOST)
    assert "another one takes its place" in said[0]
    assert said[-1].endswith("prompts are encoded in this process")
    assert workers.submit(example).result(LIMIT) is None
    workers.close()
    assert own_threads() == before


def test_a_processor_that_cannot_be_sent_is_reported_once(encoder: PromptEncoder) -> None:
    said: list[str] = []
    own = encoder.without_model()
    own.processor = lambda: None
    workers = PromptWorkers(own, 2, say=said.append)
    workers.wait()
    assert not workers.ready
    assert workers.submit(Example("1", "?", "3")).result(LIMIT) is None
    workers.close()
    (line,) = said
    assert line.startswith("warning: prompts are encoded in this process: another one cannot: ")
    assert "pickle" in line


def fail() -> Any:
    raise ImportError("no such tokenizer")


class Unreadable:
    """Cannot be read where it is sent to."""

    def __reduce__(self) -> Any:
        return fail, ()


def test_a_process_that_cannot_load_the_processor_says_why(encoder: PromptEncoder) -> None:
    said: list[str] = []
    own = encoder.without_model()
    own.processor = Unreadable()
    workers = PromptWorkers(own, 1, say=said.append)
    workers.wait()
    workers.close()
    assert not workers.ready
    assert said == [
        "warning: prompts are encoded in this process: another one cannot: ImportError: no such tokenizer"
    ]


def test_processes_end_while_they_start_and_in_the_midst_of_work(encoder: PromptEncoder) -> None:
    said, before = list[str](), own_threads()
    starting = PromptWorkers(encoder, 2, say=said.append)
    starting.close()
    working = PromptWorkers(encoder, 1, say=said.append)
    working.wait()
    (pid,) = pids(working)
    example = load_examples("generated:shapes", limit=1).examples[0]
    pending = [working.submit(example) for _ in range(200)]
    working.close()
    assert all(one.done() for one in pending)
    assert own_threads() == before
    assert said == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


SCRIPT = """
print("once", flush=True)
import os, sys, time
from data import load_examples
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import load_policy
from mm_cpgd.policy.prompt_workers import PromptWorkers
workers = PromptWorkers(load_policy(PolicyConfig(model=sys.argv[1])).encoder, 2)
workers.wait()
assert workers.ready
print(*[one._process.pid for one in workers._processes], flush=True)
example = load_examples("generated:shapes", limit=1).examples[0]
for number in range(10_000):
    workers.submit(example)
time.sleep(600)
"""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_processes_end_with_this_one_however_it_ends_and_leave_its_script_alone(
    tiny_folder: Path, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tiny_folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert parent.stdout is not None
    assert parent.stdout.readline() == "once\n"
    own = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(own) == 2
    assert all(running(pid) for pid in own)
    parent.kill()
    parent.wait()
    end = time.monotonic() + LIMIT
    while any(running(pid) for pid in own):
        assert time.monotonic() < end, "a process outlives its parent"
        time.sleep(0.05)
    assert parent.stdout.read() == ""
