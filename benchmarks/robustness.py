"""Kills and damage: runs that are killed at random moments, and checkpoints with flipped bytes.

    python -m benchmarks.robustness kills --count 36    # each resumed run equals the uninterrupted one
    python -m benchmarks.robustness flips               # each flipped byte in a checkpoint is noticed
    python -m benchmarks.robustness ranks --count 20 --strategy fsdp2    # one process of several is killed

A kill is a SIGKILL at a random moment of a small run, which is then resumed to its end. Metrics (without
times), final weights and held-out numbers must equal those of the uninterrupted run in every digit. Exit
status 1 if one does not.

``ranks`` starts several processes without an agent that would end them, and kills one of them in a rollout,
an update, a checkpoint or an evaluation. Besides, every other process must end within a minute, by itself,
with exit status 1 and no traceback, and no incomplete checkpoint may be left.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm_cpgd.checkpoint.folder import find_damage

CONFIG = """\
name: small
seed: 3
output: run
policy: {model: "embedded:tiny", dtype: float32}
data:
  train: {path: "generated:all", limit: 60, seed: 1}
  eval: {path: "generated:all", limit: 8, seed: 2}
rollout: {prompts: 8, completions: 4, max_new_tokens: 16, temperature: 1.2, top_p: 0.95}
training: {iterations: 6, mini_batch_prompts: 4, learning_rate: 2.0e-5, threads: 1, inner_epochs: 2}
evaluation: {every: 2}
checkpoint: {every: 1, keep: 2}
"""
TIMES = ("seconds/", "tokens/per_second")


# Phases of a run: where a process is killed, and the largest delay after its start in seconds.
PHASES = {
    "rollout": ("mm_cpgd.rollout:LocalEngine.generate", 0.3),
    "update": ("mm_cpgd.training.optimizer:OptimizerStep.__call__", 0.3),
    "checkpoint": ("mm_cpgd.training.trainer:Trainer.save", 0.15),
    "evaluation": ("mm_cpgd.training.heldout:HeldOut.__call__", 0.3),
}
# Seconds within which the others have to end.
SOON = 60.0


def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mm_cpgd", "train", "config.yaml", *options]
    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@dataclass(frozen=True)
class Kill:
    """Which process is killed, in which call of a phase, and how many seconds after its start."""

    rank: int
    phase: str
    call: int
    delay: float


def start_ranks(folder: Path, processes: int, strategy: str, kill: Kill | None = None) -> list[Any]:
    """Start or resume the run on several processes; ``stderr-R`` holds what process R says."""
    from torch.distributed.elastic.utils.distributed import get_free_port

    os.environ |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "WORLD_SIZE": str(processes)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(get_free_port())}
    # A server that has imported everything, whose children start at once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mm_cpgd.training.run", "mm_cpgd.cli.main", "eval"])
    shared = {name: os.environ[name] for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")}
    runs = [
        context.Process(target=_train, args=(folder, rank, strategy, shared, kill))
        for rank in range(processes)
    ]
    for run in runs:
        run.start()
    return runs


def _train(folder: Path, rank: int, strategy: str, shared: dict[str, str], kill: Kill | None) -> None:
    from mm_cpgd.cli.main import main as command

    os.chdir(folder)
    os.environ |= {
        **shared,
        "LOCAL_WORLD_SIZE": shared["WORLD_SIZE"],
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
    }
    with Path(f"stderr-{rank}").open("wb") as stream, Path(os.devnull).open("wb") as nothing:
        os.dup2(stream.fileno(), sys.stderr.fileno())
        os.dup2(nothing.fileno(), sys.stdout.fileno())
    if kill is not None and kill.rank == rank:
        _arrange(kill)
    sys.argv = ["mm-cpgd", "train", "config.yaml", "--resume", f"distributed.strategy={strategy}"]
    command()


def _arrange(kill: Kill) -> None:
    """Let this process be killed in the phase."""
    module, _, path = PHASES[kill.phase][0].partition(":")
    owner_name, _, name = path.partition(".")
    owner = getattr(importlib.import_module(module), owner_name)
    original, left = getattr(owner, name), kill.call

    def replacement(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            threading.Timer(kill.delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return original(*args, **kwargs)

    setattr(owner, name, replacement)


def results(folder: Path) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Return the metrics without times, and the final weights."""
    lines = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [
        {key: value for key, value in json.loads(line).items() if not key.startswith(TIMES)} for line in lines
    ]
    weights = sorted((folder / "run" / "final").glob("model*.safetensors"))
    return rows, [file.read_bytes() for file in weights]


def straight(folder: Path) -> float:
    """Run without interruption; return the seconds that it took."""
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    begun = time.monotonic()
    if start(folder).wait():
        raise SystemExit("the uninterrupted run failed; run `mm-cpgd train` with the config to see why")
    return time.monotonic() - begun


def kills(folder: Path, count: int, seed: int) -> int:
    """Kill and resume ``count`` runs; return how many differ from the uninterrupted one."""
    seconds = straight(folder)
    expected = results(folder)
    rng, different = random.Random(seed), 0
    for number in range(1, count + 1):
        shutil.rmtree(folder / "run")
        moments = []
        while True:  # the resumed run may be killed again
            run, moment = start(folder, "--resume"), rng.uniform(0.3, 1.0) * seconds
            try:
                run.wait(moment)
                break
            except subprocess.TimeoutExpired:
                run.kill()
                run.wait()
                moments.append(moment)
                if len(moments) == 2:
                    start(folder, "--resume").wait()
                    break
        same = (folder / "run" / "final").is_dir() and results(folder) == expected
        different += not same
        after = " and ".join(f"{moment:.1f} s" for moment in moments) or "its end"
        print(f"{number} of {count}: killed after {after}: {'equal' if same else 'DIFFERENT'}", flush=True)
    return different


def ranks(folder: Path, count: int, seed: int, processes: int, strategy: str) -> int:
    """Kill one of several processes ``count`` times, in all phases; return how often it went wrong."""
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    codes = _ends(start_ranks(folder, processes, strategy))
    if any(codes):
        raise SystemExit((folder / "stderr-0").read_text())
    expected = results(folder)
    rng, wrong = random.Random(seed), 0
    for number in range(count):
        phase = list(PHASES)[number % len(PHASES)]
        rank = number // len(PHASES) % processes
        kill = Kill(rank, phase, rng.randint(1, 3), rng.uniform(0, PHASES[phase][1]))
        shutil.rmtree(folder / "run")
        problems, seconds = _killed(folder, processes, strategy, kill)
        codes = _ends(start_ranks(folder, processes, strategy))
        if any(codes):
            problems.append(f"resuming ended with {codes}")
        elif results(folder) != expected:
            problems.append("the resumed run differs")
        wrong += bool(problems)
        print(
            f"{number + 1} of {count}: process {rank} killed {kill.delay:.2f} s into {phase} {kill.call}: "
            f"the others ended after {seconds:.1f} s; {'; '.join(problems) or 'equal'}",
            flush=True,
        )
    return wrong


def _ends(runs: list[Any]) -> list[int]:
    """Return the exit codes of processes that end."""
    for run in runs:
        run.join()
    return [run.exitcode for run in runs]


def _killed(folder: Path, processes: int, strategy: str, kill: Kill) -> tuple[list[str], float]:
    """Run until a process is killed; return what went wrong with the others, and the seconds to their end."""
    runs = start_ranks(folder, processes, strategy, kill)
    runs[kill.rank].join()
    begun, problems = time.monotonic(), []
    others = [run for run in runs if run is not runs[kill.rank]]
    for run in others:
        run.join(max(0.1, SOON - (time.monotonic() - begun)))
        if run.exitcode is None:
            problems.append("a process did not end")
            run.kill()
    seconds, codes = time.monotonic() - begun, _ends(runs)
    if codes != [-signal.SIGKILL if rank == kill.rank else 1 for rank in range(processes)]:
        problems.append(f"exit codes {codes}")
    said = [(folder / f"stderr-{rank}").read_text() for rank in range(processes) if rank != kill.rank]
    if any("Traceback" in text for text in said):
        problems.append("a traceback")
    if not any("run the same command with --resume" in text for text in said):
        problems.append("no message")
    checkpoints = (folder / "run" / "checkpoints").glob("step-*")
    return problems + [f"{place.name} is damaged" for place in checkpoints if find_damage(place)], seconds


def flips(folder: Path, seed: int) -> int:
    """Flip a byte in each file of each checkpoint; return how many flips are not noticed."""
    straight(folder)
    rng, missed = random.Random(seed), 0
    for checkpoint in sorted((folder / "run" / "checkpoints").glob("step-*")):
        for file in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
            content = file.read_bytes()
            for _ in range(3):
                place = rng.randrange(len(content))
                file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
                found = find_damage(checkpoint)
                missed += found is None
                print(f"{checkpoint.name}/{file.name}, byte {place:,}: {found or 'NOT NOTICED'}", flush=True)
            file.write_bytes(content)
    return missed


def main() -> None:
    """Parse the arguments, carry out one campaign, and exit with 1 if something was not right."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("campaign", choices=("kills", "flips", "ranks"))
    parser.add_argument("--count", type=int, default=8, help="runs that are killed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2, help="of ranks: processes of a run")
    parser.add_argument("--strategy", choices=("ddp", "fsdp2"), default="ddp", help="of ranks")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if chosen.campaign == "kills":
            wrong = kills(folder, chosen.count, chosen.seed)
        elif chosen.campaign == "ranks":
            wrong = ranks(folder, chosen.count, chosen.seed, chosen.processes, chosen.strategy)
        else:
            wrong = flips(folder, chosen.seed)
    print(f"{wrong} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
