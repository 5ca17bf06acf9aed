"""Runs for the tests of this folder: in this process, or in others that are sabotaged and perhaps killed."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

Sabotage = Callable[[], None]
# Variables that fixtures set.
ENVIRONMENT = ("ACCELERATE_USE_CPU", "TOKENIZERS_PARALLELISM")


def run(
    yaml: Path,
    overrides: Sequence[str] = (),
    *,
    imitate: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    report: bool = False,
) -> tuple[dict[str, Any], str]:
    """Train as the command line does; return the summary and what was printed.

    Without ``report`` none is drawn, which would take longer than the training.
    """
    from rich.console import Console

    from mm_cpgd.config.loading import load_config
    from mm_cpgd.training.run import fine_tune, train

    config = load_config(yaml, list(overrides))
    console = Console(record=True, file=open(os.devnull, "w"), width=1000)  # noqa: SIM115
    work = fine_tune if imitate else train
    draw = nullcontext() if report else patch("mm_cpgd.training.run.write_report")
    try:
        with draw:
            summary = work(config, resume=resume, overwrite=overwrite, console=console)
    finally:
        reset_accelerate()
    return summary, console.export_text()


def reset_accelerate() -> None:
    """Forget devices and precision, so that another run in this process may choose its own."""
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def in_child(
    yaml: Path, overrides: Sequence[str] = (), sabotage: Sabotage | None = None, **options: bool
) -> int:
    """Run in a process of its own; return its exit code, negative for the signal that ended it."""
    return _all_ended([_child(yaml, overrides, sabotage, {}, options)])[0]


def in_two_processes(
    yaml: Path, overrides: Sequence[str] = (), sabotage: Sabotage | None = None, **options: bool
) -> list[int]:
    """Run on two processes, set up as torchrun does, without its agent; return their exit codes."""
    return in_processes(2, yaml, overrides, sabotage, **options)


def in_processes(
    count: int, yaml: Path, overrides: Sequence[str] = (), sabotage: Sabotage | None = None, **options: bool
) -> list[int]:
    """Run on several processes; otherwise as ``in_two_processes``."""
    return in_each_process([overrides] * count, yaml, sabotage, **options)


def in_each_process(
    overrides: Sequence[Sequence[str]], yaml: Path, sabotage: Sabotage | None = None, **options: bool
) -> list[int]:
    """Run on as many processes as there are lists of overrides, one for each."""
    from torch.distributed.elastic.utils.distributed import get_free_port

    shared = {
        "WORLD_SIZE": str(len(overrides)),
        "LOCAL_WORLD_SIZE": str(len(overrides)),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(get_free_port()),
    }
    return _all_ended(
        [
            _child(yaml, own, sabotage, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, options)
            for rank, own in enumerate(overrides)
        ]
    )


def one_after_another(yaml: Path, runs: Sequence[Sequence[str]], seconds: float) -> list[str]:
    """Carry out runs on the same two processes, which saves all starts but one.

    Args:
        yaml: the config of all runs.
        runs: overrides of each.
        seconds: after which they should all have ended.

    Returns:
        The end of what each process has written, if one did not carry out all runs; else nothing.
    """
    from torch.distributed.elastic.utils.distributed import get_free_port

    # Of each run its own: a process may be a run ahead of the other.
    ports = [get_free_port() for _ in runs]
    current = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    count = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    places = [{**current, **count, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    processes = [_context().Process(target=_work_on, args=(yaml, runs, ports, place)) for place in places]
    for process in processes:
        process.start()
    with suppress(AssertionError):  # one that hangs, as the other has failed
        if not any(_all_ended(processes, seconds)):
            return []
    return [yaml.with_name(f"stderr-{rank}").read_text()[-4000:] for rank in range(2)]


def _work_on(
    yaml: Path, runs: Sequence[Sequence[str]], ports: Sequence[int], environment: Mapping[str, str]
) -> None:
    import sys

    sys.stderr = open(yaml.with_name(f"stderr-{environment['RANK']}"), "w", buffering=1)  # noqa: SIM115
    os.environ.update(environment)
    for overrides, port in zip(runs, ports, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        sys.stderr.write(f"{' '.join(overrides)}\n")
        run(yaml, overrides)


class OnRank:
    """Sabotage of some processes of several; picklable."""

    def __init__(self, rank: int, sabotage: Sabotage, *more: int) -> None:
        self.ranks = {str(one) for one in (rank, *more)}
        self.sabotage = sabotage

    def __call__(self) -> None:
        """Carry it out if this is one of the processes."""
        if os.environ.get("RANK") in self.ranks:
            self.sabotage()


def _context() -> multiprocessing.context.ForkServerContext:
    """Return a server that has imported everything and has run nothing: its children start at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["mm_cpgd.training.run", "mm_cpgd.cli.main", "eval", "tests.fakes.training_runs"]
    )
    return context


def _child(
    yaml: Path,
    overrides: Sequence[str],
    sabotage: Sabotage | None,
    environment: Mapping[str, str],
    options: Mapping[str, bool],
) -> Any:
    # The server has the environment of when it was started, perhaps by a test without these.
    current = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    process = _context().Process(
        target=_work, args=(yaml, overrides, sabotage, {**current, **environment}, options)
    )
    process.start()
    return process


def _work(
    yaml: Path,
    overrides: Sequence[str],
    sabotage: Sabotage | None,
    environment: Mapping[str, str],
    options: Mapping[str, bool],
) -> None:
    import sys

    from mm_cpgd.cli.main import main

    os.environ.update(environment)
    if sabotage is not None:
        sabotage()
    command = "sft" if options.get("imitate") else "train"
    sys.argv = ["mm-cpgd", command, str(yaml), *overrides, *["--resume"][: options.get("resume", False)]]
    sys.stderr = open(yaml.with_name(f"stderr-{environment.get('RANK', 0)}"), "w", buffering=1)  # noqa: SIM115
    with patch("mm_cpgd.training.run.write_report"):
        main()


# Seconds for a whole run, and for the other processes after one has failed.
WHOLE, SOON = 240.0, 60.0


def _all_ended(processes: Sequence[Any], seconds: float = WHOLE) -> list[int]:
    """Return the exit codes; after the first failure, the others have to end soon."""
    end, running = time.monotonic() + seconds, list(processes)
    while running and time.monotonic() < end:
        multiprocessing.connection.wait([process.sentinel for process in running], end - time.monotonic())
        running = [process for process in running if process.exitcode is None]
        if any(process.exitcode for process in processes):
            end = min(end, time.monotonic() + SOON)
    for process in running:
        process.kill()
        process.join()
    assert not running, "a process hangs"
    return [process.exitcode for process in processes]


def at_call(owner: Any, name: str, number: int, action: Callable[[], None]) -> None:
    """Replace ``owner.name`` by one that carries out ``action`` before its ``number``-th call."""
    original = getattr(owner, name)
    calls = 0

    def replacement(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            action()
        return original(*args, **kwargs)

    setattr(owner, name, replacement)


def die() -> None:
    """End this process as ``kill -9`` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_rollout() -> None:
    """In the second iteration, before the last of its batches: two of one process, one of each of two."""
    from mm_cpgd.rollout import GroupsInParts

    batches = 2 // int(os.environ.get("WORLD_SIZE", "1"))
    at_call(GroupsInParts, "take", 2 * batches, die)


def die_in_update() -> None:
    """In the second iteration, after one of its four optimizer steps."""
    from mm_cpgd.training.optimizer import OptimizerStep

    at_call(OptimizerStep, "__call__", 4 + 2, die)


def die_in_checkpoint() -> None:
    """While the second checkpoint is written, one of its files there and one not."""
    from mm_cpgd.training import state as saving

    at_call(saving, "save_state", 3, die)


def die_before_writing() -> None:
    """While the state for the second checkpoint is collected from all processes."""
    from mm_cpgd.training.state import TrainingState

    at_call(TrainingState, "writer", 2, die)


def die_in_shards() -> None:
    """While this process's part of the second checkpoint is written."""
    from mm_cpgd.training.saving import saver

    original, calls = saver.write_shards, 0

    def replacement(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            threading.Timer(0.01, die).start()
        original(*args)
        if calls == 2:
            time.sleep(5)

    saver.write_shards = replacement


def die_in_evaluation() -> None:
    """In the evaluation after the second iteration, after one of its batches."""
    from mm_cpgd.training.heldout import HeldOut

    at_call(HeldOut, "__call__", 2, die)


def die_before_the_first_checkpoint() -> None:
    """After the first iteration was logged."""
    from mm_cpgd.training.saving import saver

    at_call(saver, "save_checkpoint", 1, die)


def fail_to_save() -> None:
    """Let the disk of the main process be full."""
    from mm_cpgd.training import state as saving

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    saving.save_file = full
