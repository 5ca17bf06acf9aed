"""Prompts encoded by other processes change no number, and leave this process nothing to encode."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from data import Example
from mm_cpgd.errors import RunEnded
from mm_cpgd.policy import EncodedPrompt, PromptEncoder
from mm_cpgd.policy.prompt_workers import PromptWorkers
from mm_cpgd.training.ahead import prefetch
from mm_cpgd.training.ahead.prefetch import PromptPrefetcher, default_workers, encode_rows
from mm_cpgd.training.optimizer import OptimizerStep
from mm_cpgd.training.setup import _prefetches
from tests.fakes import training_runs as jobs
from tests.fakes.overlap import AS_VLLM

Rows = Callable[[Path], list[dict[str, Any]]]
NO_EVALUATION = ("evaluation.before=false", "evaluation.after=false")
EXAMPLES = [Example(str(number), "?", "0") for number in range(40)]


def prompt_of(example: Example) -> EncodedPrompt:
    return EncodedPrompt(torch.tensor([int(example.id)]), torch.zeros(1, 1, dtype=torch.long))


class Workers:
    """Note what is submitted; encode at once, or later, all but the rows in ``lost``."""

    def __init__(self, *, ready: bool = True, later: bool = False, lost: Sequence[int] = ()) -> None:
        self.ready, self.later, self.lost = ready, later, lost
        self.submitted: list[int] = []
        self.futures: list[Future[Any]] = []

    def submit(self, example: Example) -> Future[Any]:
        future: Future[Any] = Future()
        self.submitted.append(int(example.id))
        self.futures.append(future)
        if not self.later:
            future.set_result(None if int(example.id) in self.lost else prompt_of(example))
        return future


class Here:
    """Encoder of this process."""

    def __init__(self) -> None:
        self.encoded: list[int] = []

    def encode(self, example: Example) -> EncodedPrompt:
        self.encoded.append(int(example.id))
        return prompt_of(example)


def prefetcher(workers: Any) -> tuple[PromptPrefetcher, Here]:
    here = Here()
    return PromptPrefetcher(lambda index: here.encode(EXAMPLES[index]), EXAMPLES, workers), here


def ids(pending: Sequence[Any] | None) -> list[int]:
    assert pending is not None
    return [int(one.result().input_ids[0]) for one in pending]


def test_rows_that_were_begun_are_encoded_once() -> None:
    workers: Any = Workers()
    ahead, here = prefetcher(workers)
    ahead.begin([3, 1, 3])
    ahead.begin([3, 1, 3])
    assert ids(ahead.first([3, 1])) == [3, 1]
    assert ids(ahead.take([3, 1, 3])) == [3, 1, 3]
    assert workers.submitted == [3, 1, 3]
    assert here.encoded == []


def test_rows_that_were_not_begun_are_asked_for_at_once_and_others_are_dropped() -> None:
    workers: Any = Workers(later=True)
    ahead, _ = prefetcher(workers)
    ahead.begin([1, 2])
    assert ahead.first([2]) is None
    pending = ahead.take([5, 6])
    assert workers.submitted == [1, 2, 5, 6]
    assert [one.cancelled() for one in workers.futures] == [True, True, False, False]
    assert pending == workers.futures[2:]


def test_until_processes_are_ready_this_one_encodes() -> None:
    workers: Any = Workers(ready=False)
    ahead, here = prefetcher(workers)
    assert ahead.take([1]) is None
    ahead.begin([2, 3])
    workers.ready = True
    assert ids(ahead.take([2, 3])) == [2, 3]
    assert here.encoded == [2, 3]
    assert workers.submitted == []


def test_only_a_row_that_failed_is_encoded_here() -> None:
    workers: Any = Workers(lost=[2])
    ahead, here = prefetcher(workers)
    rows = [EXAMPLES[number] for number in (1, 2, 3, 4)]
    pending = ahead.take([1, 2, 3, 4])
    assert pending is not None
    pending[3] = Future()
    pending[3].cancel()
    prompts, lost = encode_rows(here, rows, pending)  # type: ignore[arg-type]
    assert [int(one.input_ids[0]) for one in prompts if one] == [1, 2, 3, 4]
    assert here.encoded == [2, 4]
    assert lost == []


@pytest.mark.parametrize(("device", "images", "cores", "processes", "expected"), [
    ("cpu", True, 64, 1, 0), ("cuda", False, 64, 1, 0), ("cuda", True, 64, 1, 4), ("cuda", True, 64, 8, 4),
    ("cuda", True, 16, 8, 1), ("cuda", True, 8, 8, 0), ("cuda", True, 2, 8, 0), ("cuda", True, 1, 1, 0),
])  # fmt: skip
def test_without_a_setting_processes_are_for_images_beside_an_accelerator_on_spare_cores(
    monkeypatch: pytest.MonkeyPatch, device: str, images: bool, cores: int, processes: int, expected: int
) -> None:
    monkeypatch.setattr(prefetch, "usable_cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    image: Any = "image"
    examples = [Example("1", "?", "0"), Example("2", "?", "0", (image,) if images else ())]
    accelerator: Any = SimpleNamespace(device=torch.device(device))
    assert default_workers(accelerator, examples) == expected


@pytest.mark.parametrize(("chosen", "ahead", "workers", "expected"), [
    (None, 0, True, True), (None, 1, True, True), (False, 0, True, False), (True, 1, False, False),
])  # fmt: skip
def test_the_next_prompts_are_begun_wherever_other_processes_encode_them(
    chosen: bool | None, ahead: int, workers: bool, expected: bool
) -> None:
    config: Any = SimpleNamespace(rollout=SimpleNamespace(prefetch=chosen, ahead=ahead))
    accelerator: Any = SimpleNamespace(device=torch.device("cpu"))
    pool: Any = Workers() if workers else None
    assert _prefetches(config, accelerator, pool) is expected


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[str]]]:
    """Ids of rows by who encodes them: this process, or others for it; without trials of the model."""
    found: dict[str, list[str]] = {"here": [], "others": []}
    encode, submit = PromptEncoder.encode, PromptWorkers.submit

    def noted(self: PromptEncoder, example: Example, beginning: str = "") -> EncodedPrompt:
        found["here"] += [] if example.id == "probe" else [example.id]
        return encode(self, example, beginning)

    def submitted(self: PromptWorkers, example: Example) -> Any:
        found["others"].append(example.id)
        return submit(self, example)

    monkeypatch.setattr(PromptEncoder, "encode", noted)
    monkeypatch.setattr(PromptWorkers, "submit", submitted)
    yield found
    assert [one.name for one in threading.enumerate() if one.name.startswith("prompt-workers")] == []


def results(run: Path) -> dict[str, bytes]:
    files = [*(run / "rollouts").glob("*.jsonl"), run / "final" / "model.safetensors"]
    return {file.name: file.read_bytes() for file in files}


def assert_same_run(one: Path, other: Path, read_rows: Rows) -> None:
    assert read_rows(one) == read_rows(other)
    assert results(one) == results(other)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "sft"),
    [
        ((), False),
        (("evaluation.every=1", "evaluation.batch_prompts=2"), False),
        (("algorithm.selection=[{name: dynamic_sampling}]", *NO_EVALUATION), False),
        (("rollout.ahead=2", "training.iterations=4"), False),
        (("rollout.max_new_tokens=200", "sft.steps=4", *NO_EVALUATION), True),
    ],
    ids=["plain", "evaluation", "rounds", "ahead", "sft"],
)
@pytest.mark.usefixtures("ready_workers")
def test_a_run_with_processes_equals_the_run_without(
    yaml: Path,
    tmp_path: Path,
    read_rows: Rows,
    encodings: dict[str, list[str]],
    options: Sequence[str],
    sft: bool,
) -> None:
    counts = []
    for count in (0, 2):
        for own in encodings.values():
            own.clear()
        run = [f"data.workers={count}", f"output={tmp_path / str(count)}"]
        jobs.run(yaml, [*options, *run], imitate=sft)
        counts.append({who: len(own) for who, own in encodings.items()})
    assert_same_run(tmp_path / "2", tmp_path / "0", read_rows)
    assert counts[0]["others"] == counts[1]["here"] == 0
    # With further rounds, the prompts of one that is not needed are those of the next iteration.
    assert counts[0]["here"] <= counts[1]["others"] <= counts[0]["here"] + 4


@pytest.mark.slow
@pytest.mark.usefixtures("ready_workers", "copy_engine")
def test_batches_that_are_sampled_in_the_background_take_their_prompts_from_processes(
    yaml: Path, tmp_path: Path, read_rows: Rows, encodings: dict[str, list[str]]
) -> None:
    options = [*AS_VLLM, "rollout.ahead=2", "training.iterations=4", *NO_EVALUATION]
    jobs.run(yaml, [*options, f"output={tmp_path / 'straight'}"])
    encodings["here"].clear()
    jobs.run(yaml, [*options, "data.workers=2"])
    assert encodings["here"] == []
    # Those that are compared with the engine beforehand are prompts of the batch that is sampled next.
    assert len(encodings["others"]) == 4 * 4
    assert_same_run(tmp_path / "run", tmp_path / "straight", read_rows)


@pytest.mark.slow
@pytest.mark.usefixtures("ready_workers")
def test_a_resumed_run_with_processes_equals_the_uninterrupted_one_without(
    yaml: Path, tmp_path: Path, read_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.run(yaml, [*NO_EVALUATION, f"output={tmp_path / 'straight'}"])
    with monkeypatch.context() as patch:
        patch.setattr(OptimizerStep, "__call__", OptimizerStep.__call__)  # undone at the end
        jobs.at_call(OptimizerStep, "__call__", 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(RunEnded):
            jobs.run(yaml, [*NO_EVALUATION, "data.workers=1"])
    _, printed = jobs.run(yaml, [*NO_EVALUATION, "data.workers=2"], resume=True)
    assert "another experiment" not in printed
    assert_same_run(tmp_path / "run", tmp_path / "straight", read_rows)


@pytest.mark.slow
@pytest.mark.usefixtures("ready_workers")
def test_processes_that_are_killed_change_no_number(
    yaml: Path, tmp_path: Path, read_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.run(yaml, [*NO_EVALUATION, f"output={tmp_path / 'straight'}"])
    submit, pools = PromptWorkers.submit, list[PromptWorkers]()

    def killing(self: PromptWorkers, example: Example) -> Any:
        if len(pools) in (5, 7):
            for process in self._processes:
                os.kill(process._process.pid, signal.SIGKILL)
        pools.append(self)
        return submit(self, example)

    monkeypatch.setattr(PromptWorkers, "submit", killing)
    _, printed = jobs.run(yaml, [*NO_EVALUATION, "data.workers=1"])
    assert "a process that encodes prompts has ended with exit status -9; this process encodes" in printed
    assert_same_run(tmp_path / "run", tmp_path / "straight", read_rows)
