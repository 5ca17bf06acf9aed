"""Fake vLLM server on the loopback interface, which can be slowed, hung, killed and started anew."""

from __future__ import annotations

import json
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

from data import Example, ImageRef
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.rollout import LocalEngine, Sampling
from mm_cpgd.rollout.vllm import VllmEngine
from mm_cpgd.rollout.vllm.pool import Limits
from mm_cpgd.rollout.vllm.server import ServerBackend, open_servers
from mm_cpgd.rollout.vllm.weights_folder import WeightsFolder
from tests.fakes.vllm import Model, image_at, image_in

Weights = dict[str, Tensor]
# Conversation, request and weights to tokens of the prompt, tokens and their log-probabilities.
Answer = Callable[[list[dict[str, Any]], dict[str, Any], Weights], tuple[list[int], list[int], list[float]]]
FIRST = "default"
TOKENS = "inference/v1/generate"


def echo(
    conversation: list[dict[str, Any]], body: dict[str, Any], weights: Weights
) -> tuple[list[int], list[int], list[float]]:
    """Return the seed as the only token; its log-probability is the weight ``w``, 0 before any were sent."""
    return [1], [body["seed"]], [float(weights["w"]) if "w" in weights else 0.0]


class FakeServer:
    """A vLLM server in threads of this process; its port stays when it is started anew.

    Attributes:
        asked: bodies of the requests for completions, in order.
        calls: the other routes that were called, without their slash.
        most_open: largest number of completions in progress.
        delay: seconds that a completion takes.
        hangs: whether completions never end.
        deaf: whether no route answers.
        status: of completions, if not 200.
        text: of a completion's error reply.
        missing: routes that this vLLM does not have.
        settings: what ``/server_info`` says of the model.
        before: called with the route's name before each answer.
    """

    def __init__(self, answer: Answer = echo) -> None:
        self.answer = answer
        self.asked: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.keys: list[str | None] = []
        self.weights: Weights = {}
        self.version = FIRST
        self.started = 1000.5
        self.delay, self.status, self.text = 0.0, 200, "{}"
        self.hangs = self.deaf = False
        self.missing: set[str] = set()
        self.settings = {"dtype": "torch.float32", "logprobs_mode": "processed_logprobs"}
        self.before: Callable[[str], None] = lambda name: None
        self.open = self.most_open = 0
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start with the first weights, as a vLLM does."""
        self.weights, self.version, self.started = {}, FIRST, self.started + 1
        self._released.clear()
        self._server = _Server(("127.0.0.1", self.port), _handler(self))
        self.port = self._server.server_address[1]
        serve = self._server.serve_forever
        threading.Thread(target=serve, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def kill(self) -> None:
        """End at once, also the requests in progress."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        self._released.set()
        with self._lock:
            for one in list(self._sockets):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def restart(self) -> None:
        self.kill()
        self.start()

    def reply(self, name: str, body: Any) -> tuple[int, Any]:
        """Return status and body of a route's reply; a text is sent as it is."""
        self.before(name)
        if self.deaf:
            self._released.wait(60)
        if name == "v1/chat/completions" or (name == TOKENS and name not in self.missing):
            return self._complete(body)
        with self._lock:
            self.calls.append(name)
        if name in self.missing:
            return 404, {"detail": "Not Found"}
        return self._other(name, body)

    def _other(self, name: str, body: Any) -> tuple[int, Any]:
        if name == "collective_rpc":
            return self._reload(Path(body["kwargs"]["weights_path"]))
        if name == "update_weight_version":
            self.version = body["new_version"]
        replies: dict[str, Any] = {
            "health": "",
            "v1/models": {"data": [{"id": "tiny"}]},
            "server_info": {"vllm_config": {"model_config": self.settings}},
            "weight_info": {"weight_version": self.version},
            "update_weight_version": {"success": True},
            "reset_prefix_cache": {"success": True},
            "reset_mm_cache": "",
            "reset_encoder_cache": "",
            "metrics": f"# HELP x\nprocess_start_time_seconds {self.started}\n",
        }
        return (200, replies[name]) if name in replies else (404, {"detail": "Not Found"})

    def _reload(self, folder: Path) -> tuple[int, Any]:
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            return 500, {"error": {"message": f"no files in {folder}", "code": 500}}
        self.weights = {name: value for file in files for name, value in load_file(file).items()}
        return 200, {"results": [None]}

    def _complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        with self._lock:
            self.asked.append(body)
            self.open += 1
            self.most_open = max(self.most_open, self.open)
        try:
            if self.hangs:
                self._released.wait(60)
            time.sleep(self.delay)
            answer = self._chat if "messages" in body else self._tokens
            return (200, answer(body)) if self.status == 200 else (self.status, self.text)
        finally:
            with self._lock:
                self.open -= 1

    def _chat(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt, tokens, logprobs = self.answer(body["messages"], body, self.weights)
        content = [{"token": f"token_id:{t}", "logprob": p} for t, p in zip(tokens, logprobs, strict=True)]
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "…"},
            "logprobs": {"content": content},
            "finish_reason": "stop",
            "token_ids": tokens,
        }
        return {"id": "chatcmpl-1", "choices": [choice], "prompt_token_ids": prompt}

    def _tokens(self, body: dict[str, Any]) -> dict[str, Any]:
        """Answer a prompt of tokens; the answer gets the body in place of messages."""
        assert body["return_token_ids"]
        prompt, tokens, logprobs = self.answer([body], body["sampling_params"], self.weights)
        content = [{"token_id": t, "logprob": p} for t, p in zip(tokens, logprobs, strict=True)]
        choice = {"index": 0, "logprobs": {"content": content}, "finish_reason": "stop", "token_ids": tokens}
        return {"request_id": "1", "choices": [choice], "prompt_token_ids": prompt}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, *args: Any) -> None:
        pass


def _handler(fake: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            self.answer(json.loads(self.rfile.read(size) or b"null"))

        def do_GET(self) -> None:
            self.answer(None)

        def answer(self, body: Any) -> None:
            with fake._lock:
                fake._sockets.add(self.connection)
            fake.keys.append(self.headers.get("Authorization"))
            try:
                status, found = fake.reply(self.path.partition("?")[0].strip("/"), body)
                raw = (found if isinstance(found, str) else json.dumps(found)).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)
            finally:
                with fake._lock:
                    fake._sockets.discard(self.connection)

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def running(*servers: FakeServer) -> Iterator[None]:
    """End the servers with the block."""
    try:
        yield
    finally:
        for server in servers:
            server.kill()


QUICK = Limits(requests=4, wait=2.0, look=0.2)


def connected(
    *servers: FakeServer, folder: Path, limits: Limits = QUICK, timeout: float = 20.0, say: Any = None
) -> ServerBackend:
    """Connect to servers as a run does; weights go through the folder."""
    return open_servers(
        [server.url for server in servers],
        lambda urls, dtype: WeightsFolder(folder, dtype=dtype),
        Accelerator(cpu=True),
        limits,
        timeout=timeout,
        say=say or (lambda text: None),
    )


class PolicyServer(FakeServer):
    """A server whose tokens encode prompt and seed, and that keeps the weights of a policy."""

    def __init__(self, policy: Policy) -> None:
        self.model = Model(policy)
        super().__init__(self._answer)

    def _answer(
        self, conversation: list[dict[str, Any]], body: dict[str, Any], weights: Weights
    ) -> tuple[list[int], list[int], list[float]]:
        if "token_ids" not in conversation[0]:
            return self.model.answer(conversation, body["seed"])
        images = [image_at(part["url"]) for part in conversation[0]["content_parts"]]
        expanded = self.model.expand(conversation[0]["token_ids"], {"image": images})
        return self.model.answer(expanded, body["seed"])

    def _reload(self, folder: Path) -> tuple[int, Any]:
        outcome = super()._reload(folder)
        self.model.load_weights(self.weights.items())
        return outcome


def served(policy: Policy) -> tuple[VllmEngine, PolicyServer]:
    """Return an engine on one server that has the policy's weights."""
    server = PolicyServer(policy)
    engine = VllmEngine(policy, connected(server, folder=Path(tempfile.mkdtemp(prefix="mm-cpgd-test-"))))
    engine.load_weights(policy)
    server.calls.clear()
    return engine, server


class SamplingServer(FakeServer):
    """A server that samples by the local engine from weights of its own, and starts with wrong ones."""

    def __init__(self, folder: Path) -> None:
        self.policy = load_policy(PolicyConfig(model=str(folder), dtype="float32"))
        self.engine = LocalEngine(self.policy)
        self._sampling = threading.Lock()
        super().__init__(self._sample)

    def start(self) -> None:
        super().start()
        with torch.no_grad():
            for parameter in self.policy.parameters():
                parameter.mul_(1.5)

    def _reload(self, folder: Path) -> tuple[int, Any]:
        outcome = super()._reload(folder)
        with self._sampling:
            self.policy.model.load_state_dict(self.weights, strict=False)
        return outcome

    def _sample(
        self, conversation: list[dict[str, Any]], body: dict[str, Any], weights: Weights
    ) -> tuple[list[int], list[int], list[float]]:
        parts = conversation[-1]["content"]
        images = [image_in(part) for part in parts if part["type"] == "image_url"]
        text = "".join(part["text"] for part in parts if part["type"] == "text")
        refs = tuple(ImageRef("sent", lambda image=image: image) for image in images)  # type: ignore[misc]
        names = ("max_tokens", "temperature", "top_p", "top_k", "min_p")
        with self._sampling:
            prompt = self.policy.encoder.encode(Example("1", text, "", images=refs))
            sampling = Sampling(*(body[name] for name in names))
            drawn = self.engine.generate([prompt], sampling, [[body["seed"]]])[0][0]
        return prompt.input_ids.tolist(), drawn.tokens.tolist(), drawn.logprobs.tolist()
