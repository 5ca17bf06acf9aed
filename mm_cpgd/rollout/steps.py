"""Decoding step whose kernels are recorded once as a CUDA graph and repeated without Python.

A step of a 3B model starts some two thousand kernels; started one by one from Python they take several times
as long as the GPU needs for them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# Operations for which the host waits: it reads a value, or allocates a result whose shape depends on one.
READS = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten.unique_consecutive,
    aten.unique_dim,
    aten._unique2,
    aten.bincount,
    aten.equal,
    aten.is_nonzero,
}
COPIES = {aten._to_copy, aten.copy_}


class HostReads(TorchDispatchMode):
    """Names of the operations within the ``with`` block for which the host waits for values of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the operation."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.overloadpacket in READS or _indexes_by_mask(func, args) or _crosses(func, args, result):
            self.found.append(str(func))
        return result


def _indexes_by_mask(func: Any, args: tuple[Any, ...]) -> bool:
    if func.overloadpacket not in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
        return False
    return any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1])


def _crosses(func: Any, args: tuple[Any, ...], result: Any) -> bool:
    """Return whether a copy is from one device to another."""
    if func.overloadpacket not in COPIES:
        return False
    source = args[1] if func.overloadpacket is aten.copy_ else args[0]
    return bool(source.device != result.device)


Step = Callable[[], None]


class EagerStep:
    """Calls a step."""

    def __call__(self, step: Step, version: int) -> None:
        """Do the step."""
        step()


class GraphStep:
    """Calls a step once, and repeats its kernels from then on, until the tensors that it uses change.

    A step is a function without arguments and results that changes tensors in place. It is not kept: it holds
    the tensors, whose memory must be freed as soon as all is sampled. If the host reads values of the device
    in it, or recording fails, it is called each time.
    """

    def __init__(self) -> None:
        self.version: int | None = None
        self.graph: Step | None = None
        self.records: bool | None = None

    def __call__(self, step: Step, version: int) -> None:
        """Do the step; kernels recorded for another ``version`` are not used."""
        if version != self.version:
            self.graph, self.version = None, version
            # The first time by calling it: kernels load and libraries choose theirs; neither is recorded.
            self._call(step)
            return
        if self.graph is None and self.records:
            self._record(step)
        if self.graph is None:
            step()
        else:
            self.graph()

    def _call(self, step: Step) -> None:
        if self.records is not None:
            step()
            return
        with HostReads() as reads:
            step()
        self.records = not reads.found
        if reads.found:
            _say(f"the host reads values in it ({', '.join(sorted(set(reads.found)))})")

    def _record(self, step: Step) -> None:
        try:
            self.graph = record(step)
        except RuntimeError as error:
            self.records = False
            _say(f"recording failed: {str(error).splitlines()[0]}")


def record(step: Step) -> Step:
    """Record the kernels of a step, none of which runs meanwhile, and return what repeats them.

    Raises:
        RuntimeError: they cannot be recorded.
    """
    graph = torch.cuda.CUDAGraph()
    enabled, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    # Casts that autocast keeps would be freed when it ends, before the graph that refers to them. Other
    # threads, which load images, may use the device meanwhile.
    with (
        torch.autocast("cuda", dtype, enabled, cache_enabled=False),
        torch.cuda.graph(graph, capture_error_mode="thread_local"),
    ):
        step()
    return graph.replay


def _say(reason: str) -> None:
    logging.getLogger(__name__).warning("tokens are sampled without a CUDA graph: %s", reason)
