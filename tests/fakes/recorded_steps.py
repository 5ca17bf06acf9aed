"""Recording of a step on a CPU, like a CUDA graph: operations on the same tensors, without Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mm_cpgd.rollout.steps import GraphStep, HostReads, Step


class Recording(TorchDispatchMode):
    """Records the operations of the ``with`` block, and undoes their changes of tensors at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.changed: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            self.changed += [
                (one, one.clone()) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)
            ]
        result = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, result))
        return result

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for tensor, before in reversed(self.changed):
            tensor.copy_(before)

    def replay(self) -> None:
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, Tensor):
                    assert old.shape == new.shape
                    old.copy_(new)


def record(step: Callable[[], None]) -> Callable[[], None]:
    """Stand in for ``mm_cpgd.rollout.steps.record``."""
    recording = Recording()
    with torch.no_grad(), recording:
        step()
    return recording.replay


class CheckedStep(GraphStep):
    """Calls each step, and notes the operations in it for which the host waits.

    Args:
        found: receives their names.
    """

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __call__(self, step: Step, version: int) -> None:
        with HostReads() as reads:
            step()
        self.found.extend(reads.found)
