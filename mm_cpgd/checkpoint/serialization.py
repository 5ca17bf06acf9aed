"""State of optimizers, schedulers, samplers and random generators in one safetensors file, without pickle.

A state is nested dicts, lists, tuples and scalars with tensors in it. The tensors become the file's tensors;
all else is a tree in JSON in the file's metadata. JSON keeps Python's ints and finite floats exactly. What it
lacks is an object whose first key names the kind: ``{"dict": [[key, value], …]}``, ``{"tuple": […]}``,
``{"tensor": "3"}``, ``{"array": "4", "dtype": …, "shape": …}``, ``{"bytes": base64}``, ``{"float": "nan"}``.
"""

from __future__ import annotations

import base64
import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mm_cpgd.errors import UserError

_ARRAY_KINDS = "biufcSU"


class CheckpointError(UserError):
    """A checkpoint cannot be written or read; the message says why and what to do."""


def save_state(path: Path, state: Any) -> None:
    """Write ``state`` to ``path`` (usually ``*.safetensors``).

    Tensors are stored from any device, and come back on the CPU; a subclass of dict comes back as a dict.
    Raises ``TypeError`` with the place in ``state`` for a value that would not come back the same, such as a
    set or an object; ``OSError`` or ``SafetensorError`` where the disk refuses.
    """
    tensors = _Tensors()
    tree = _encode(state, tensors, "state")
    save_file(tensors.by_name, path, metadata={"state": json.dumps(tree, allow_nan=False)})


def load_state(path: Path) -> Any:
    """Return what ``save_state`` wrote, equal in values, types and order; tensors on the CPU.

    Raises ``CheckpointError`` if the file is missing, damaged, or was not written by ``save_state``.
    """
    try:
        with safe_open(path, "pt", device="cpu") as file:
            tree = json.loads((file.metadata() or {})["state"])
            return _decode(tree, file)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is no readable state file: {error!r}; take another checkpoint"
        ) from None


def random_states() -> dict[str, Any]:
    """Return the states of the Python, NumPy and torch generators of this process, for ``save_state``."""
    states = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put the generators back to ``random_states``; CUDA's only where as many devices are there as were."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if "cuda" in states and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


class _Tensors:
    """The tensors of a file under their numbers; safetensors refuses two views of one storage."""

    def __init__(self) -> None:
        self.by_name: dict[str, Tensor] = {}
        self._storages: set[int] = set()

    def add(self, tensor: Tensor) -> str:
        name = str(len(self.by_name))
        stored = tensor.detach().cpu().contiguous()
        if stored.untyped_storage().data_ptr() in self._storages:
            stored = stored.clone()
        self._storages.add(stored.untyped_storage().data_ptr())
        self.by_name[name] = stored
        return name


def _encode(value: Any, tensors: _Tensors, where: str) -> Any:
    if isinstance(value, Mapping):
        return {"dict": [_encode_item(item, tensors, where) for item in value.items()]}
    if type(value) is list:
        return [_encode(part, tensors, f"{where}[{i}]") for i, part in enumerate(value)]
    if type(value) is tuple:
        return {"tuple": [_encode(part, tensors, f"{where}[{i}]") for i, part in enumerate(value)]}
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if type(value) is bytes:
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, Tensor):
        return {"tensor": tensors.add(value)}
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in _ARRAY_KINDS:
        return _encode_array(value, tensors)
    raise TypeError(f"{where}: a {type(value).__name__} cannot be stored in a checkpoint; make it plain data")


def _encode_item(item: tuple[Any, Any], tensors: _Tensors, where: str) -> list[Any]:
    key, value = item
    return [_encode(key, tensors, f"key of {where}"), _encode(value, tensors, f"{where}[{key!r}]")]


def _encode_array(value: np.ndarray[Any, Any] | np.generic, tensors: _Tensors) -> dict[str, Any]:
    # As bytes, because torch lacks some of NumPy's types.
    data = torch.from_numpy(np.frombuffer(value.tobytes(), np.uint8).copy())
    place = {"array": tensors.add(data), "dtype": value.dtype.str, "shape": list(value.shape)}
    return {**place, "scalar": True} if isinstance(value, np.generic) else place


def _decode(value: Any, file: Any) -> Any:
    if isinstance(value, list):
        return [_decode(part, file) for part in value]
    if not isinstance(value, dict):
        return value
    kind, content = next(iter(value.items()))
    if kind == "dict":
        return {_decode(key, file): _decode(part, file) for key, part in content}
    if kind == "tuple":
        return tuple(_decode(part, file) for part in content)
    if kind == "float":
        return float(content)
    if kind == "bytes":
        return base64.b64decode(content, validate=True)
    if kind == "tensor":
        return file.get_tensor(content).clone()  # The bare one reads from the file for as long as it lives.
    if kind == "array":
        return _decode_array(value, file)
    raise ValueError(f"unknown kind {kind!r}")


def _decode_array(value: Mapping[str, Any], file: Any) -> Any:
    dtype = np.dtype(value["dtype"])
    if dtype.kind not in _ARRAY_KINDS:
        raise ValueError(f"arrays of {dtype} are not read")
    array = (
        np.frombuffer(file.get_tensor(value["array"]).numpy().tobytes(), dtype).reshape(value["shape"]).copy()
    )
    return array[()] if value.get("scalar") else array
