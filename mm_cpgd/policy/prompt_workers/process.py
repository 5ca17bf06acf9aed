"""Main function of a process that encodes prompts."""

from __future__ import annotations

import contextlib
import signal
import socket

from mm_cpgd.policy.prompt_workers.messages import receive, send, send_tensors

READY = "ready"


def main(descriptor: int) -> None:
    """Answer each example by the ``PromptEncoder.inputs`` of it, None where that fails; end with the parent.

    Args:
        descriptor: the socket; its first message is the encoder.
    """
    # The parent decides what Ctrl-C means, and still needs its prompts until it has decided.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=descriptor)
    with contextlib.suppress(EOFError, OSError):  # the parent has ended
        _serve(connection)


def _serve(connection: socket.socket) -> None:
    import torch

    # As many processes as there are cores to use.
    torch.set_num_threads(1)
    try:
        encoder = receive(connection)
    except (EOFError, OSError):
        raise
    except Exception as error:
        send(connection, f"{type(error).__name__}: {error}")
        return
    send(connection, READY)
    while True:
        example = receive(connection)
        try:
            inputs = encoder.inputs(example)
        except Exception:  # the parent encodes it again, and meets the same error in its own way
            inputs = None
        try:
            send(connection, None) if inputs is None else send_tensors(connection, inputs)
        except OSError:
            raise
        except Exception:  # a value that cannot be pickled; nothing is sent yet
            send(connection, None)
