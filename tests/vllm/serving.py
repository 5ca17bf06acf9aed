"""A real vLLM server in processes of its own, started and ended by a test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.paths import ROOT
from tests.vllm.conftest import environment

# vLLM's build for CPUs cannot compute a prompt in parts if requests have seeds of their own.
FLAGS = ["--no-enable-chunked-prefill", "--max-num-batched-tokens", "8192", "--max-num-seqs", "64"]
FLAGS += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "512"]


@dataclass
class Serving:
    """A vLLM server in a process group of its own, which also holds its engine.

    Attributes:
        port: on the loopback interface.
        log: file for its output.
        model: folder of the policy that it starts with.
        more: further arguments.
        process: None before it is started.
    """

    port: int
    log: Path
    model: Path = ROOT / "mm_cpgd/tiny/assets"
    more: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *FLAGS, *self.more]
        command += ["--model", str(self.model), "--served-model-name", "tiny"]
        command += ["--logprobs-mode", "processed_logprobs", "--host", "127.0.0.1", "--port", str(self.port)]
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**environment(), "VLLM_SERVER_DEV_MODE": "1"},
                start_new_session=True,
            )

    def wait(self) -> None:
        deadline = time.monotonic() + 270
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text(errors="replace")[-3000:]
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.5)
        raise AssertionError(f"{self.url} does not start: {self.log.read_text(errors='replace')[-3000:]}")

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(60)

    def answered(self, route: str = "/v1/chat/completions") -> int:
        """Return how many requests to this route it has answered since it was first started."""
        return self.log.read_text(errors="replace").count(f'"POST {route} HTTP/1.1" 200')
