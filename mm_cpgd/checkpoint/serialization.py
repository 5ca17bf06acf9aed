"""Serialization of optimizer, scheduler, sampler and random states to one safetensors file, without pickle.

A state consists of nested dicts, lists, tuples and scalars with tensors in it. The tensors become the file's
tensors; the rest is a JSON tree in the file's metadata. JSON keeps Python's ints and finite floats exactly.
Other values are objects whose first key names the kind: ``{"dict": [[key, value], …]}``, ``{"tuple": […]}``,
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
    """Failure to write or read a checkpoint; the message says why and what to do."""


def save_state(path: Path, state: Any) -> None:
    """Write ``state`` to ``path`` (usually ``*.safetensors``).

    Tensors are stored from any device and load on the CPU; a subclass of dict loads as a dict.
    Raises ``TypeError`` with the path within ``state`` for a value that would not load unchanged, such as a
    set or an object; ``OSError`` or ``SafetensorError`` if the disk fails.
    """
    tensors = _Tensors()
    tree = _encode(state, tensors, "state")
    save_file(tensors.by_name, path, metadata={"state": json.dumps(tree, allow_nan=False)})


def load_state(path: Path) -> Any:
    """Load what ``save_state`` wrote, equal in values, types and order; tensors on the CPU.

    Raises ``CheckpointError`` if the file is missing, damaged, or was not written by ``save_state``.
    """
    try:
        with safe_open(path, "pt", device="cpu") as file:
            tree = json.loads((file.metadata() or {})["state"])
            return _decode(tree, file)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not a readable state file: {error!r}; use another checkpoint"
        ) from None


def random_states() -> dict[str, Any]:
    """Return the states of the Python, NumPy and torch generators of this process, for ``save_state``."""
    states = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def set_random_states(states: Mapping[str, Any]) -> None:
    """Restore the generators to ``random_states``; CUDA's only if the number of devices is the same."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if "cuda" in states and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


class _Tensors:
    """Tensors of a file, named by number; views of one storage are cloned, as safetensors rejects them."""

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
        return [_encode(item, tensors, f"{where}[{i}]") for i, item in enumerate(value)]
    if type(value) is tuple:
        return {"tuple": [_encode(item, tensors, f"{where}[{i}]") for i, item in enumerate(value)]}
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
    raise TypeError(
        f"{where}: a {type(value).__name__} cannot be stored in a checkpoint; convert it to plain data"
    )


def _encode_item(item: tuple[Any, Any], tensors: _Tensors, where: str) -> list[Any]:
    key, value = item
    return [_encode(key, tensors, f"key of {where}"), _encode(value, tensors, f"{where}[{key!r}]")]


def _encode_array(value: np.ndarray[Any, Any] | np.generic, tensors: _Tensors) -> dict[str, Any]:
    # As bytes: torch lacks some of NumPy's types.
    data = torch.from_numpy(np.frombuffer(value.tobytes(), np.uint8).copy())
    encoded = {"array": tensors.add(data), "dtype": value.dtype.str, "shape": list(value.shape)}
    return {**encoded, "scalar": True} if isinstance(value, np.generic) else encoded


def _decode(value: Any, file: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item, file) for item in value]
    if not isinstance(value, dict):
        return value
    kind, content = next(iter(value.items()))
    if kind == "dict":
        return {_decode(key, file): _decode(item, file) for key, item in content}
    if kind == "tuple":
        return tuple(_decode(item, file) for item in content)
    if kind == "float":
        return float(content)
    if kind == "bytes":
        return base64.b64decode(content, validate=True)
    if kind == "tensor":
        return file.get_tensor(content).clone()  # Without the clone it would keep reading from the file.
    if kind == "array":
        return _decode_array(value, file)
    raise ValueError(f"unknown kind {kind!r}")


def _decode_array(value: Mapping[str, Any], file: Any) -> Any:
    dtype = np.dtype(value["dtype"])
    if dtype.kind not in _ARRAY_KINDS:
        raise ValueError(f"arrays of {dtype} are not supported")
    array = (
        np.frombuffer(file.get_tensor(value["array"]).numpy().tobytes(), dtype).reshape(value["shape"]).copy()
    )
    return array[()] if value.get("scalar") else array
