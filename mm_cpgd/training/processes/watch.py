"""Watch over the other processes of a run: connections that close when a process ends, however it ends.

A collective notices a lost process late: the next one may be a whole rollout away, and NCCL waits for a GPU
of the same machine until its time-out. The kernel closes the connections of a process that is killed at once,
and keep-alive probes find a machine that is gone within half a minute.

Every other process has one connection to the main process. The main process tells the others of a loss.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import socket
import sys
import threading
from collections.abc import Callable
from types import TracebackType

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from mm_cpgd.errors import ProcessLost, RunEnded
from mm_cpgd.training.processes.lost import is_closed, is_timeout

# Seconds that the main thread has to notice a loss itself and to end in order.
GRACE = 10.0
# Seconds for a connection at the start, and between a collective's error and the watch's own notice.
CONNECT, NOTICE = 10.0, 3.0
# A machine that is gone: seconds until the first probe, between two, and how many fail.
PROBES = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4))
_TOKEN, _NUMBER = 32, 4
_GOODBYE = (2**32 - 1).to_bytes(_NUMBER, "big")


class ProcessWatch:
    """Context manager around a run: ends this process if another one has ended.

    Inside the block, an error of torch.distributed that another process caused becomes ``ProcessLost``. If
    the block does not end within ``GRACE`` seconds of a loss, the process does, with the same message.

    Args:
        accelerator: the run's accelerator.
        timeout: seconds that a collective waits, for the message.
        on_end: called before this process ends outside of the block.
        warn: called with a line if a process cannot be watched.
        advice: what to do after a loss, for the message.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        timeout: float,
        on_end: Callable[[], None] = lambda: None,
        warn: Callable[[str], None] = lambda text: None,
        advice: str = "run the same command with --resume to continue from the newest checkpoint",
    ) -> None:
        self.rank, self.count = accelerator.process_index, accelerator.num_processes
        self.timeout = timeout
        self.on_end = on_end
        self.warn = warn
        self.advice = advice
        self.hosts = [socket.gethostname()]
        self._lost: int | None = None
        self._noticed = threading.Event()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, int] = {}

    def __enter__(self) -> ProcessWatch:
        if self.count > 1:
            self.hosts = gather_object([socket.gethostname()])
            self._connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lost = None if error is None or isinstance(error, RunEnded) else self._explain(error)
        self._close(in_order=error is None or isinstance(error, RunEnded))
        if lost is not None:
            raise lost from error

    def _explain(self, error: BaseException) -> ProcessLost | None:
        """Return the message for an error that another process caused, None for any other error."""
        if self.count == 1:
            return None
        late = is_timeout(error)
        if not late and not is_closed(error):
            return None
        self._noticed.wait(NOTICE)
        if late and self._lost is None:
            return ProcessLost(
                f"process {self.rank} on {socket.gethostname()} waited {self.timeout:g} s "
                "(distributed.timeout) for another process, which hangs or is slower than that; see its "
                f"output, raise distributed.timeout if it is slow; {self.advice}",
                everywhere=True,
            )
        return self._message()

    def _message(self) -> ProcessLost:
        lost = self._lost
        if lost is None:
            return ProcessLost(
                f"another process of the run has ended; {_REASON}; {self.advice}", everywhere=True
            )
        return ProcessLost(
            f"process {lost} on {self.hosts[lost]} has ended; {_REASON}; {self.advice}", everywhere=lost == 0
        )

    def _connect(self) -> None:
        """Connect every other process to the main one, and begin to watch."""
        token, everyone = secrets.token_hex(_TOKEN // 2), threading.Event()
        server = _listen() if self.rank == 0 else None
        offer = [(_addresses(), server.getsockname()[1], token) if server else None]
        acceptor = threading.Thread(target=self._accept, args=(server, token, everyone), daemon=True)
        if server:
            acceptor.start()
        addresses, port, token = broadcast_object_list(offer)[0]
        reached = gather_object([self.rank == 0 or self._join(addresses, port, token)])
        everyone.set()
        if server:
            acceptor.join()
        if not all(reached):
            missing = ", ".join(str(rank) for rank, found in enumerate(reached) if not found)
            self.warn(
                f"process 0 is not reachable from {missing} on port {port} (a firewall?): if a process ends, "
                "the others notice it only at their next exchange"
            )
        if self._connections:
            threading.Thread(target=self._watch, name="process-watch", daemon=True).start()

    def _join(self, addresses: list[str], port: int, token: str) -> bool:
        """Connect to the main process at one of its addresses; return whether it was reached."""
        for address in addresses:
            with contextlib.suppress(OSError):
                connection = socket.create_connection((address, port), timeout=CONNECT / 2)
                connection.sendall(token.encode() + self.rank.to_bytes(_NUMBER, "big"))
                if _receive(connection, _TOKEN) == token.encode():
                    self._add(connection, 0)
                    return True
                connection.close()  # another program's port
        return False

    def _accept(self, server: socket.socket, token: str, everyone: threading.Event) -> None:
        """Accept the connections that know the token, until every process has connected or given up."""
        server.settimeout(0.1)
        with server:
            while not everyone.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = server.accept()
                    self._admit(connection, token)

    def _admit(self, connection: socket.socket, token: str) -> None:
        connection.settimeout(1.0)
        found = _receive(connection, _TOKEN + _NUMBER)
        if not secrets.compare_digest(found[:_TOKEN], token.encode()):
            connection.close()
            return
        self._add(connection, int.from_bytes(found[_TOKEN:], "big"))
        connection.sendall(token.encode())

    def _add(self, connection: socket.socket, rank: int) -> None:
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in PROBES:
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._connections[connection] = rank

    def _watch(self) -> None:
        """Wait for the end of a connection; after a loss, end this process unless it ends itself."""
        with selectors.DefaultSelector() as selector:
            for connection in self._connections:
                selector.register(connection, selectors.EVENT_READ, connection)
            while selector.get_map() and not self._closed.is_set() and not self._noticed.is_set():
                for key, _ in selector.select(timeout=1.0):
                    if self._is_goodbye(key.data):
                        selector.unregister(key.fileobj)
        if self._noticed.is_set() and not self._closed.wait(GRACE):
            self._end()

    def _is_goodbye(self, connection: socket.socket) -> bool:
        """Read one message; return whether the other side has ended in order. Anything else is a loss."""
        try:
            message = _receive(connection, _NUMBER)
        except OSError:
            message = b""
        if message == _GOODBYE:
            return True
        named = int.from_bytes(message, "big") if len(message) == _NUMBER else self._connections[connection]
        with self._lock:
            if not self._closed.is_set():
                self._lost = min(named, self.count - 1)
                self._noticed.set()
                self._tell(self._lost.to_bytes(_NUMBER, "big"))
        return False

    def _tell(self, message: bytes) -> None:
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.send(message, getattr(socket, "MSG_DONTWAIT", 0))

    def _close(self, *, in_order: bool) -> None:
        with self._lock:
            self._closed.set()
            if in_order and self._lost is None:
                self._tell(_GOODBYE)
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)

    def _end(self) -> None:
        lost = self._message()
        if self.rank == 0 or lost.everywhere:
            sys.stderr.write(f"mm-cpgd: {lost}\n")
        with contextlib.suppress(Exception):
            self.on_end()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(lost.exit_code)  # child processes end with their pipes


_REASON = "its own output says why, if it could"


def _listen() -> socket.socket:
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    return socket.create_server(("", 0), backlog=1024)


def _addresses() -> list[str]:
    """Return the addresses at which others may reach this machine, the most promising first."""
    found = []
    if master := os.environ.get("MASTER_ADDR"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((master, 9))  # sends nothing: asks for the route
            found.append(probe.getsockname()[0])
    name = socket.gethostname()
    with contextlib.suppress(OSError):
        found += [str(info[4][0]) for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    return list(dict.fromkeys([*found, name, *([master] if master else [])]))


def _receive(connection: socket.socket, size: int) -> bytes:
    """Return that many bytes, fewer if the other side closes."""
    found = b""
    while len(found) < size and (part := connection.recv(size - len(found))):
        found += part
    return found
