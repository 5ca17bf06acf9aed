"""Training on real vLLM servers with weights in a folder: one, two, and one that is killed on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.utils.distributed import get_free_port

from tests.vllm.conftest import BOUND, Ended, Train
from tests.vllm.serving import Serving

pytest.importorskip("vllm", reason="needs a real vLLM: make test-vllm")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serving, Serving]]:
    folder = tmp_path_factory.mktemp("servers")
    servers = (Serving(get_free_port(), folder / "a.log"), Serving(get_free_port(), folder / "b.log"))
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.wait()
        yield servers
    finally:
        for server in servers:
            server.kill()


@pytest.fixture
def servers(pair: tuple[Serving, Serving]) -> tuple[Serving, Serving]:
    for server in pair:
        if server.process is None or server.process.poll() is not None:
            server.start()
            server.wait()
    return pair


def on(*servers: Serving, wait: float = 120.0) -> str:
    urls = ", ".join(server.url for server in servers)
    return f"rollout.vllm={{mode: server, weights: folder, urls: [{urls}], wait: {wait}}}"


def rows_of(ended: Ended) -> list[list[Any]]:
    names = ("reward/mean", "completion/length_mean", "optimizer/grad_norm")
    return [[row[name] for name in names] for row in ended.rows]


def test_a_server_always_has_the_weights_of_the_trainer(train: Train, servers: Any) -> None:
    # The tiny policy's embeddings are tied; its twelve pictures repeat from the second iteration on.
    ended = train(on(servers[0]), "training.iterations=8")
    assert len(ended.differences) == 8
    assert max(ended.differences) <= 1e-4
    assert all(row["optimizer/grad_norm"] > 0.01 for row in ended.rows[:4])


def test_at_a_large_step_the_log_probabilities_are_the_trainers(train: Train, servers: Any) -> None:
    ended = train(
        on(servers[0]), "training.iterations=4", "training.learning_rate=1e-3", "policy.freeze_vision=false"
    )
    assert max(ended.differences) <= 1e-4


@pytest.mark.parametrize(
    "more",
    [
        ["policy.lora={rank: 4}", "training.learning_rate=1e-3"],
        ["rollout.temperature=0.7", "rollout.top_k=5", "rollout.top_p=0.9"],
    ],
)
def test_adapters_and_cuts_count_on_both_sides(train: Train, servers: Any, more: list[str]) -> None:
    ended = train(on(servers[0]), "training.iterations=3", *more)
    assert max(ended.differences) <= BOUND


def test_two_servers_share_the_prompts_of_the_same_run(train: Train, servers: Any) -> None:
    alone = train(on(servers[0]), "training.iterations=4")
    before = [server.answered() for server in servers]
    ended = train(on(*servers), "training.iterations=4")
    assert max(ended.differences) <= BOUND
    shares = [server.answered() - count for server, count in zip(servers, before, strict=True)]
    assert sum(shares) == 4 * 8 * 4
    assert min(shares) >= 4 * 8
    for row, expected in zip(rows_of(ended), rows_of(alone), strict=True):
        assert row == pytest.approx(expected, rel=1e-2)


def test_two_processes_share_two_servers(train: Train, servers: Any) -> None:
    ended = train(on(*servers), "training.iterations=3", "distributed.strategy=fsdp2", processes=2)
    assert max(ended.differences) <= BOUND


def iterations_of(folder: Path) -> int:
    try:
        return len((folder / "metrics.jsonl").read_text().splitlines())
    except OSError:
        return 0


def once_at(folder: Path, iteration: int, action: Any) -> threading.Thread:
    """Do something in a thread when the run in this folder has logged an iteration."""

    def wait() -> None:
        deadline = time.monotonic() + 200
        while iterations_of(folder) < iteration and time.monotonic() < deadline:
            time.sleep(0.05)
        action()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_a_server_that_is_killed_is_left_out_and_its_prompts_go_to_the_other(
    train: Train, servers: Any, yaml: Path
) -> None:
    killed = once_at(yaml.with_name("run"), 3, servers[0].kill)
    ended = train(on(*servers), "training.iterations=10")
    killed.join()
    assert max(ended.differences) <= BOUND
    assert len(ended.differences) == 10
    assert "warning: the vLLM server" in ended.output.replace("\n", " ")


def test_a_server_that_is_restarted_samples_again_by_the_current_weights(
    train: Train, servers: Any, yaml: Path
) -> None:
    def restart() -> None:
        servers[0].kill()
        servers[0].start()

    restarted = once_at(yaml.with_name("run"), 3, restart)
    # By one server alone: the run waits for it.
    ended = train(on(servers[0], wait=200.0), "training.iterations=8")
    restarted.join()
    assert max(ended.differences) <= BOUND
    assert len(ended.differences) == 8
    assert "answers again and has the current" in ended.output.replace("\n", " ")


def test_without_any_server_left_the_run_ends_with_a_checkpoint(
    train: Train, servers: Any, yaml: Path
) -> None:
    killed = once_at(yaml.with_name("run"), 2, servers[1].kill)
    ended = train(on(servers[1], wait=2.0), "training.iterations=40", status=1)
    killed.join()
    assert "vLLM server" in ended.output
    assert list((yaml.with_name("run") / "checkpoints").iterdir())
