"""Start of the processes of a run: each says what it is about to run before they form a group.

A process that cannot run (no GPU, an unreadable config, a missing file) would leave the others waiting for it
until ``distributed.timeout``. So they first exchange reports through the store by which a group is formed:
the main process reads all of them and writes a verdict, which is an error on all processes or on none.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mm_cpgd.config.schema import RunConfig
from mm_cpgd.config.yaml import shorten
from mm_cpgd.errors import USER_ERRORS, UserError
from mm_cpgd.training.resume import file_digests

# What launchers set for processes that shall form a group.
LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PREFIX = "mm-cpgd/start"
# Seconds that a process without a config waits for the others, and the main one for readers of a bad verdict.
PATIENCE = 60.0
# Differences between two processes that a message names.
SHOWN = 4
_VERSIONS = ("torch", "transformers", "accelerate", "numpy")


@dataclass(frozen=True)
class Report:
    """What one process is about to run.

    Attributes:
        rank: its number among all processes.
        host: name of its machine.
        problem: why it cannot run, None if it can.
        facts: what has to be the same on all processes, by name.
    """

    rank: int
    host: str
    problem: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def start_together(config: RunConfig, command: str, check: Callable[[], None]) -> None:
    """Check this process, and that all processes of the launch can run and are about to run the same.

    Args:
        config: the complete config.
        command: the command and its flags, for instance ``train --resume``.
        check: raises a user error if this process cannot run.

    Raises:
        UserError: on all processes: the problem of the lowest rank that has one, a difference between two
            processes, or one that has not come within ``distributed.timeout``.
    """
    seconds = config.distributed.timeout
    agree(
        lambda: {"command": command, **_plain(config), **_files(config)}, check,
        Limit(seconds, f"{seconds:g} s (distributed.timeout)"),
    )  # fmt: skip


@dataclass(frozen=True)
class Limit:
    """Time that the processes of a launch have to meet.

    Attributes:
        seconds: its length.
        text: how messages name it.
    """

    seconds: float
    text: str


def agree(facts: Callable[[], Mapping[str, Any]], check: Callable[[], None], limit: Limit) -> None:
    """Check this process, and that all processes of the launch can run and have the same facts.

    Args:
        facts: returns JSON values by name, called after ``check``; versions and the kind of device are added.
        check: raises a user error if this process cannot run.
        limit: for processes that do not come.

    Raises:
        UserError: as ``start_together``.
    """
    problem: Exception | None = None
    found: dict[str, Any] = {}
    try:
        check()
        check_device(os.environ)
        found = {**facts(), **_environment()} if is_launched(os.environ) else {}
    except USER_ERRORS as error:
        problem = error
    if is_launched(os.environ):
        message = _exchange(None if problem else found, problem, limit)
        if message is not None:
            raise UserError(message) from problem
    elif problem is not None:
        raise problem


def fail_start(error: Exception) -> None:
    """Tell the other processes of the launch that this one cannot even read its config.

    Raises:
        UserError: the problem of the lowest rank that has one, ``error`` or another.
    """
    if is_launched(os.environ):
        message = _exchange(None, error, Limit(PATIENCE, f"{PATIENCE:g} s"))
        raise UserError(message or str(error)) from error


def is_launched(environment: Mapping[str, str]) -> bool:
    """Return whether a launcher has started several processes and said how they find one another."""
    if not all(environment.get(name) for name in LAUNCHED):
        return False
    return environment["WORLD_SIZE"].isdecimal() and int(environment["WORLD_SIZE"]) > 1


def check_device(environment: Mapping[str, str]) -> None:
    """Check that this process has a GPU of its own, where torch sees any.

    Raises:
        UserError: the machine has fewer GPUs than processes.
    """
    import torch

    own = environment.get("LOCAL_RANK", "0")
    if not own.isdecimal() or not _uses_gpu(environment) or int(own) < torch.cuda.device_count():
        return
    raise UserError(
        f"LOCAL_RANK={own}, and torch sees {torch.cuda.device_count()} GPUs here (CUDA_VISIBLE_DEVICES="
        f"{environment.get('CUDA_VISIBLE_DEVICES', 'not set')}); start as many processes per machine as it "
        "has GPUs, each of which sees all of them"
    )


def verdict(reports: Sequence[Report]) -> str | None:
    """Return why these processes cannot run together, None if they can; ``reports`` in the order of ranks."""
    troubled = [report for report in reports if report.problem is not None]
    if troubled:
        first = troubled[0]
        alike = len(troubled) == len(reports) and len({report.problem for report in reports}) == 1
        return first.problem if alike else f"process {first.rank} on {first.host}: {first.problem}"
    main = reports[0]
    for report in reports[1:]:
        names = sorted(
            name for name in {*main.facts, *report.facts} if main.facts.get(name) != report.facts.get(name)
        )
        if names:
            pairs = [
                f"{name} is {shorten(report.facts.get(name))} instead of {shorten(main.facts.get(name))}"
                for name in names[:SHOWN]
            ]
            more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            return (
                f"process {report.rank} on {report.host} is about to run something else than process 0 on "
                f"{main.host}: {', '.join(pairs)}{more}; start all processes with the same command, config "
                "files and versions"
            )
    return None


def _exchange(facts: Mapping[str, Any] | None, problem: Exception | None, limit: Limit) -> str | None:
    """Send this process's report, and return the verdict about all of them."""
    from torch.distributed import DistError, PrefixStore, rendezvous

    rank = int(os.environ["RANK"])
    report = Report(rank, socket.gethostname(), None if problem is None else str(problem), dict(facts or {}))
    try:
        store, rank, count = next(rendezvous("env://", timeout=timedelta(seconds=limit.seconds)))
        _KEPT.append(store)
        board = PrefixStore(PREFIX, store)
        board.set(f"report/{rank}", json.dumps(asdict(report)))
        if rank == 0:
            board.set("verdict", json.dumps(_judge(board, count, limit)))
        # Somewhat longer than the main process, whose message names those that have not come.
        board.wait(["verdict"], timedelta(seconds=limit.seconds + PATIENCE / 2))
        message: str | None = json.loads(board.get("verdict"))
        if message is not None:
            _leave(board, rank, count)
    except (DistError, ConnectionError, OSError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UserError(
            f"process {rank} on {report.host} has not met all others at {place} (MASTER_ADDR, MASTER_PORT) "
            f"within {limit.text}: {_first_line(error)}"
        ) from error
    return message


# The group that accelerate forms uses the same server, which lives as long as this store.
_KEPT: list[Any] = []


def _judge(board: Any, count: int, limit: Limit) -> str | None:
    """Wait for the reports of all processes, and return the verdict."""
    from torch.distributed import DistError

    names = [f"report/{rank}" for rank in range(count)]
    try:
        board.wait(names, timedelta(seconds=limit.seconds))
    except DistError:
        missing = [str(rank) for rank, name in enumerate(names) if not board.check([name])]
        if not missing:
            raise
        return (
            f"{'processes' if len(missing) > 1 else 'process'} {', '.join(missing)} of {count} did not start "
            f"within {limit.text}; their own output says why"
        )
    return verdict([Report(**json.loads(board.get(name))) for name in names])


def _leave(board: Any, rank: int, count: int) -> None:
    """Note that the verdict was read; the main process, which serves it, waits for the others some time."""
    read, end = board.add("read", 1), time.monotonic() + PATIENCE
    while rank == 0 and read < count and time.monotonic() < end:
        time.sleep(0.05)
        read = board.add("read", 0)


def _plain(config: RunConfig) -> dict[str, Any]:
    """Return every value of the config by its dotted name."""
    flat: dict[str, Any] = {}

    def add(tree: Mapping[str, Any], prefix: str) -> None:
        for key, value in tree.items():
            if isinstance(value, dict):
                add(value, f"{prefix}{key}.")
            else:
                flat[prefix + key] = value

    add(json.loads(json.dumps(config.model_dump(), default=str)), "")
    return flat


def _files(config: RunConfig) -> dict[str, Any]:
    """Return a digest of each file of rules and of parts of the objective."""
    return {f"the content of {path}": digest for path, digest in file_digests(config).items()}


def _environment() -> dict[str, Any]:
    """Return the versions and the kind of device of this process."""
    found: dict[str, Any] = {"version of Python": f"{sys.version_info[0]}.{sys.version_info[1]}"}
    for name in ("mm-cpgd", *_VERSIONS):
        try:
            found[f"version of {name}"] = version(name)
        except PackageNotFoundError:
            found[f"version of {name}"] = None
    return {**found, "device": "GPU" if _uses_gpu(os.environ) else "CPU"}


def _uses_gpu(environment: Mapping[str, str]) -> bool:
    import torch

    on_cpu = environment.get("ACCELERATE_USE_CPU", "").strip().lower() in ("1", "true", "yes", "y", "on", "t")
    return not on_cpu and torch.cuda.is_available()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
