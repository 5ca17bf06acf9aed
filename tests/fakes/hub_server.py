"""A hub of models on loopback that serves small files and notes what it is asked for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0" * 39 + "1"


@dataclass
class FakeHub:
    """The server's address, and the paths that it was asked for, in order."""

    url: str = ""
    paths: list[str] = field(default_factory=list)

    @property
    def files(self) -> set[str]:
        """Names of the files that it was asked for."""
        return {path.rpartition("/")[2] for path in self.paths if "/resolve/" in path}


@contextlib.contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[FakeHub]:
    """Serve files, by paths of the form ``OWNER/NAME/FILE``, within the block."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, *arguments: object) -> None:
            pass

        def _answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0].strip("/")
            hub.paths.append(path)
            repository, _, rest = path.partition("/resolve/")
            content = b"" if not path else files.get(f"{repository}/{rest.partition('/')[2]}")
            self.send_response(404 if content is None else 200)
            if content is None:
                known = any(name.rpartition("/")[0] in path for name in files)
                self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{abs(hash(path))}"')
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if body and content:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
