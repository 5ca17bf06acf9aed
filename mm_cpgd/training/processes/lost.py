"""Errors by which torch.distributed reports that another process has ended or hangs."""

from __future__ import annotations

from collections.abc import Iterator

# Parts of the messages of gloo, NCCL and the store. Their types say nothing: gloo raises plain RuntimeErrors.
_CLOSED = (
    "connection closed by",
    "connection reset by",
    "connection refused",
    "broken pipe",
    "socket closed",
    "remote process exited",
    "ncclremoteerror",
    "nccl communicator was aborted",
    "failed to recv, got 0 bytes",
)
_TIMED_OUT = ("timed out waiting", "collective operation timeout", "wait timeout", "socket timeout")
_SPEAKERS = ("gloo", "nccl", "store", "process group", "c10d")


def is_closed(error: BaseException) -> bool:
    """Return whether an error says that the connection to another process is gone."""
    return any(_says(text, _CLOSED) for text in _texts(error))


def is_timeout(error: BaseException) -> bool:
    """Return whether an error says that another process did not answer in time."""
    return any(_says(text, _TIMED_OUT) for text in _texts(error))


def _says(text: str, parts: tuple[str, ...]) -> bool:
    return any(part in text for part in parts)


def _texts(error: BaseException | None) -> Iterator[str]:
    """Yield the messages of the error and its causes that come from torch.distributed."""
    from torch.distributed import DistError

    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        text = str(error).lower()
        if isinstance(error, DistError) or (isinstance(error, RuntimeError) and _says(text, _SPEAKERS)):
            yield text
        error = error.__cause__ or error.__context__
