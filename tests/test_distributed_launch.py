"""Two agents of torchrun, as on two machines, train what one process trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.utils.distributed import get_free_port

SHORT = ("training.iterations=4", "data.eval.limit=24", "training.threads=1")
# Metrics of the guard compare iterations; times depend on the clock.
CLOCK = ("seconds/", "tokens/per_second")


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(CLOCK)} for line in lines]


def launch(node: int, port: int, options: list[str], folder: Path) -> subprocess.Popen[str]:
    rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "a-run"]
    nodes = ["--nnodes", "2", "--node_rank", str(node), "--nproc_per_node", "1", "--max-restarts", "0"]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *nodes, *rendezvous, "-m", "mm_cpgd", *options],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        stdout=(folder / f"out-{node}").open("w"),
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("one")
    subprocess.run(
        [sys.executable, "-m", "mm_cpgd", "train", "quickstart", *SHORT, f"output={folder / 'run'}"],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=250,
    )
    return rows(folder / "run")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_agents_train_the_quickstart_as_one_process_does(
    one_process: list[dict[str, Any]], tmp_path: Path, strategy: str
) -> None:
    port = get_free_port()
    options = [
        "train",
        "quickstart",
        *SHORT,
        f"output={tmp_path / 'run'}",
        f"distributed.strategy={strategy}",
    ]
    agents = [launch(node, port, options, tmp_path) for node in range(2)]
    assert [agent.wait(250) for agent in agents] == [0, 0], (tmp_path / "out-0").read_text()[-3000:]
    found = rows(tmp_path / "run")
    assert [row["iteration"] for row in found] == [0, 1, 2, 3, 4]
    for one, other in zip(found, one_process, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-4)


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_both_agents(tmp_path: Path) -> None:
    port = get_free_port()
    options = ["train", "quickstart", *SHORT, f"output={tmp_path / 'run'}", "training.iterations=1000"]
    agents = [launch(node, port, options, tmp_path) for node in range(2)]
    try:
        wait_for(tmp_path / "run" / "metrics.jsonl", 150)
        worker = int(Path(f"/proc/{agents[1].pid}/task/{agents[1].pid}/children").read_text().split()[0])
        os.kill(worker, 9)
        wait_for(tmp_path / "out-0", 60, holding="run the same command with --resume")
        # Within a minute too, on a machine that does nothing else.
        assert all(agent.wait(150) != 0 for agent in agents)
    finally:
        for agent in agents:
            agent.terminate()  # a killed agent would leave its process behind
            agent.wait(60)


def wait_for(file: Path, seconds: float, holding: str = "") -> None:
    end = time.monotonic() + seconds
    while not file.exists() or holding not in file.read_text():
        assert time.monotonic() < end, f"{file} does not appear, or without {holding!r}"
        time.sleep(0.2)
