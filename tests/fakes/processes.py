"""Functions that run on several processes at once, for what only a process group can do."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable
from typing import Any

import torch


def on_processes(count: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call ``work(*arguments)`` on processes of one gloo group; return what each returned, by rank.

    ``work`` is a function at the top of a module; arguments and results are picklable.
    """
    from torch.distributed.elastic.utils.distributed import get_free_port

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "mm_cpgd.policy"])
    queue = context.Queue()
    port = get_free_port()
    processes = [
        context.Process(target=_work, args=(rank, count, port, queue, work, arguments))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    found = {}
    for _ in processes:
        rank, result = queue.get(timeout=120)
        found[rank] = pickle.loads(result)
    for process in processes:
        process.join(60)
    problems = [value for value in found.values() if isinstance(value, BaseException)]
    if problems:
        raise problems[0]
    return [found[rank] for rank in range(count)]


def _work(
    rank: int, count: int, port: int, queue: Any, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=count)
    try:
        # As bytes: tensors would be passed by shared memory, which ends with this process.
        queue.put((rank, pickle.dumps(work(*arguments))))
    except BaseException as error:
        queue.put((rank, pickle.dumps(error)))
    finally:
        torch.distributed.destroy_process_group()
