"""Complete runs on servers that sample from weights of their own, some of which die or hang on the way."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mm_cpgd.errors import RunEnded
from tests.fakes.training_runs import at_call, in_child, in_two_processes, run
from tests.fakes.vllm_server import SamplingServer, running

Rows = Callable[[Path], list[dict[str, Any]]]
Two = tuple[SamplingServer, SamplingServer]
SMALL = [
    "training.iterations=3",
    "rollout.prompts=4",
    "rollout.batch_prompts=1",
    "rollout.completions=3",
    "rollout.max_new_tokens=6",
    "data.eval=null",
    "checkpoint.every=0",
]


@pytest.fixture(scope="module")
def pair(wordy_folder: Path) -> Two:
    return SamplingServer(wordy_folder), SamplingServer(wordy_folder)


@pytest.fixture
def servers(pair: Two) -> Iterator[Two]:
    for server in pair:
        server.kill()
        server.hangs, server.before, server.asked = False, lambda name: None, []
        server.start()
    with running(*pair):
        yield pair


def served(*servers: SamplingServer, wait: float = 20.0) -> list[str]:
    urls = ", ".join(server.url for server in servers)
    return [
        *SMALL,
        "rollout.engine=vllm",
        f"rollout.vllm={{mode: server, weights: folder, urls: [{urls}], requests: 4, wait: {wait}}}",
    ]


def at_request(server: SamplingServer, number: int, action: Callable[[], Any]) -> None:
    """Do something at a server's n-th request for a completion, in a thread of its own."""
    count = 0

    def before(name: str) -> None:
        nonlocal count
        count += name == "v1/chat/completions"
        if name == "v1/chat/completions" and count == number:
            thread = threading.Thread(target=action)
            thread.start()
            thread.join()

    server.before = before


def metrics(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the metrics that depend on neither the clock nor the engine."""
    own = ("seconds/", "tokens/per_second", "rollout/")
    return [{name: value for name, value in row.items() if not name.startswith(own)} for row in rows]


def same_run(there: list[dict[str, Any]], here: list[dict[str, Any]]) -> None:
    assert len(there) == len(here)
    for row, expected in zip(metrics(there), metrics(here), strict=True):
        assert row == pytest.approx(expected, rel=1e-3, abs=1e-6, nan_ok=True)
    assert max(row["rollout/logprob_difference_max"] for row in there) < 1e-4


@pytest.fixture
def here(yaml: Path, tmp_path: Path, read_rows: Rows) -> list[dict[str, Any]]:
    """The metrics of the run on the local engine, whose folder is removed by the next run."""
    run(yaml, SMALL)
    return read_rows(tmp_path / "run")


@pytest.mark.parametrize("dies", [False, True])
def test_a_run_on_two_servers_is_that_on_the_local_engine_even_if_one_dies(
    yaml: Path, tmp_path: Path, read_rows: Rows, here: list[dict[str, Any]], servers: Two, dies: bool
) -> None:
    if dies:
        at_request(servers[0], 8, servers[0].kill)
    _, printed = run(yaml, served(*servers), overwrite=True)
    same_run(read_rows(tmp_path / "run"), here)
    assert printed.count("warning: the vLLM server") == dies
    assert all(len(server.asked) >= 3 for server in servers)
    assert not (tmp_path / "run" / "weights").exists()


def test_a_server_that_is_restarted_takes_part_again(
    yaml: Path, tmp_path: Path, read_rows: Rows, here: list[dict[str, Any]], servers: Two
) -> None:
    at_request(servers[0], 8, servers[0].restart)
    _, printed = run(yaml, served(*servers), overwrite=True)
    same_run(read_rows(tmp_path / "run"), here)
    assert "answers again and has the current weights" in printed
    assert len(servers[0].asked) > 10


@pytest.mark.parametrize("number", [3, 20])
def test_a_run_that_all_servers_leave_ends_with_a_checkpoint_and_is_continued(
    yaml: Path, tmp_path: Path, read_rows: Rows, here: list[dict[str, Any]], servers: Two, number: int
) -> None:
    at_request(servers[0], number, servers[0].kill)
    overrides = served(servers[0], wait=0.5)
    with pytest.raises(RunEnded, match=r"no vLLM server has answered for 0\.5 s.*checkpoint is in.*--resume"):
        run(yaml, overrides, overwrite=True)
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 1
    servers[0].before = lambda name: None
    servers[0].start()
    run(yaml, overrides, resume=True)
    same_run(read_rows(tmp_path / "run"), here)


def test_an_evaluation_that_all_servers_leave_ends_with_a_checkpoint_too(
    yaml: Path, tmp_path: Path, servers: Two
) -> None:
    overrides = [one for one in served(servers[0], wait=0.5) if not one.startswith("data.eval")]
    # 12 completions of an iteration after 4 of the evaluation before training.
    at_request(servers[0], 4 + 12 + 2, servers[0].kill)
    with pytest.raises(RunEnded, match=r"no vLLM server has answered.*checkpoint is in"):
        run(yaml, [*overrides, "evaluation.every=1"])
    assert list((tmp_path / "run" / "checkpoints").iterdir())


def test_two_processes_end_together_with_a_checkpoint_and_go_on_together(
    yaml: Path, tmp_path: Path, read_rows: Rows, here: list[dict[str, Any]], servers: Two
) -> None:
    # In the second iteration, when one process may have its completions and the other has not.
    at_request(servers[0], 12 + 7, servers[0].kill)
    overrides = [*served(servers[0], wait=0.5), "output=" + str(tmp_path / "two")]
    assert in_two_processes(yaml, overrides) == [1, 1]
    assert "no vLLM server has answered" in (tmp_path / "stderr-0").read_text()
    assert len(list((tmp_path / "two" / "checkpoints").iterdir())) == 1
    servers[0].before = lambda name: None
    servers[0].start()
    assert in_two_processes(yaml, overrides, resume=True) == [0, 0]
    same_run(read_rows(tmp_path / "two"), here)


def be_asked_to_stop() -> None:
    """Let the process get SIGTERM some time after it has begun its second iteration."""
    from mm_cpgd.rollout.vllm.server import ServerBackend

    def soon() -> None:
        threading.Timer(2.0, os.kill, [os.getpid(), signal.SIGTERM]).start()

    at_call(ServerBackend, "load", 2, soon)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_that_is_asked_to_stop_does_not_wait_for_its_requests(
    yaml: Path, tmp_path: Path, servers: Two, processes: int
) -> None:
    def hang() -> None:
        servers[0].hangs = True

    at_request(servers[0], 12 + 5, hang)
    started = time.monotonic()
    start = in_child if processes == 1 else in_two_processes
    ended = start(yaml, served(servers[0], wait=60.0), be_asked_to_stop)
    assert ended in (128 + signal.SIGTERM, [128 + signal.SIGTERM] * 2)
    assert time.monotonic() - started < 45
    assert list((tmp_path / "run" / "checkpoints").iterdir())
    assert "run the same command with --resume to continue" in (tmp_path / "stderr-0").read_text()


@pytest.mark.parametrize(("ahead", "expected"), [(1, [0, 1, 1, 1]), (2, [0, 1, 2, 1])])
def test_a_run_that_samples_ahead_survives_the_death_of_a_server(
    yaml: Path, tmp_path: Path, read_rows: Rows, servers: Two, ahead: int, expected: list[int]
) -> None:
    at_request(servers[0], 8, servers[0].kill)
    run(yaml, [*served(*servers), f"rollout.ahead={ahead}", "training.iterations=4"])
    assert [row["rollout/staleness"] for row in read_rows(tmp_path / "run")] == expected


def test_a_run_that_samples_ahead_ends_with_a_checkpoint_when_no_server_is_left(
    yaml: Path, tmp_path: Path, read_rows: Rows, servers: Two
) -> None:
    at_request(servers[0], 12 + 12 + 4, servers[0].kill)
    overrides = [*served(servers[0], wait=0.5), "rollout.ahead=1"]
    with pytest.raises(RunEnded, match=r"no vLLM server has answered.*checkpoint is in.*--resume"):
        run(yaml, overrides)
    servers[0].before = lambda name: None
    servers[0].start()
    run(yaml, overrides, resume=True)
    assert [row["iteration"] for row in read_rows(tmp_path / "run")] == [1, 2, 3]
