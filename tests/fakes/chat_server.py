"""Small OpenAI-compatible server with scripted replies, for tests of its clients."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class HttpReply:
    """HTTP response of the server: any body, after a delay.

    ``hang_up`` sends nothing, ``cut`` only so many bytes of the body, ``drip`` a byte of the body in so many
    seconds, ``drip_head`` one of the status line and the headers. ``length`` False declares no length.
    """

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    hang_up: bool = False
    cut: int | None = None
    drip: float = 0.0
    drip_head: float = 0.0
    length: bool = True


def chat_reply(text: str | None, finish_reason: str | None = "stop", **more: Any) -> HttpReply:
    """Return a chat completion with that text."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return HttpReply({"choices": [choice], "usage": usage, **more})


@dataclass
class Stub:
    """Recorded requests and scripted replies; the last reply of the script is repeated."""

    script: list[HttpReply]
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    most_at_once: int = 0
    by_prompt: Callable[[str], HttpReply] | None = None
    under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> HttpReply:
        with self.lock:
            self.times.append(time.monotonic())
            self.asked.append(body)
            self.headers.append(headers)
            self.paths.append(path)
            self.under_way += 1
            self.most_at_once = max(self.most_at_once, self.under_way)
            chosen = self.script[min(len(self.asked), len(self.script)) - 1] if self.script else HttpReply()
        if self.by_prompt:
            content = body["messages"][-1]["content"]
            text = content if isinstance(content, str) else "".join(one.get("text", "") for one in content)
            chosen = self.by_prompt(text)
        time.sleep(chosen.delay)
        with self.lock:
            self.under_way -= 1
        return chosen


@contextmanager
def stub_server(
    *script: HttpReply, by_prompt: Callable[[str], HttpReply] | None = None, port: int = 0
) -> Iterator[Stub]:
    """Run a server within the block, on a free port unless one is given."""
    stub = Stub(list(script), by_prompt=by_prompt)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = stub.answer(self.path, dict(self.headers), body)
            if answer.hang_up:
                self.close_connection = True
                return
            raw = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            head = {**answer.headers, **({"Content-Length": str(len(raw))} if answer.length else {})}
            lines = [
                f"HTTP/1.0 {answer.status} Status",
                *(f"{name}: {value}" for name, value in head.items()),
            ]
            self._send("".join(f"{line}\r\n" for line in [*lines, ""]).encode(), answer.drip_head)
            self._send(raw[: answer.cut], answer.drip)

        def _send(self, data: bytes, drip: float) -> None:
            for piece in [data[i : i + 1] for i in range(len(data))] if drip else [data]:
                self.wfile.write(piece)
                time.sleep(drip)

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 64
        allow_reuse_address = True

        def handle_error(self, *args: Any) -> None:
            pass

    server = Server(("127.0.0.1", port), Handler)
    stub.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
