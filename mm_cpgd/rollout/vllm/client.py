"""HTTP client of one vLLM server: its routes, time limits, and an end to all requests at once."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from mm_cpgd.errors import UserError
from mm_cpgd.rollout.vllm.backend import VllmCompletion

# Seconds to connect.
CONNECT = 5.0
_STARTED = re.compile(r"^process_start_time_seconds (\S+)", re.MULTILINE)
_CACHES = ("prefix", "mm", "encoder")
# Route for prompts of tokens with images.
TOKENS = "/inference/v1/generate"
Messages = list[dict[str, Any]]


class ServerFailed(Exception):
    """A server that cannot be reached, does not answer in time, or fails; another one may do better.

    Attributes:
        answered: whether the server is there and said so itself.
    """

    def __init__(self, message: str, *, answered: bool = False) -> None:
        super().__init__(message)
        self.answered = answered


class RequestRefused(Exception):
    """A request that the server does not accept, so that no other server would."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}, {text}")
        self.status = status


@dataclass(frozen=True)
class TokenRequest:
    """A prompt of tokens, as ``/inference/v1/generate`` takes it.

    Attributes:
        token_ids: of each image one alone.
        images: as data URLs, in order.
    """

    token_ids: list[int]
    images: tuple[str, ...] = ()


class VllmClient:
    """One vLLM server; may be used by several threads.

    Args:
        url: the server's address, without ``/v1``.
        timeout: seconds to wait for a completion, and for other answers that the engine gives between two of
            its steps.
        patience: seconds to wait for the rest, which needs no engine.
        load_timeout: seconds to wait for new weights to be loaded; None: ``timeout``.

    Attributes:
        model: name of the served model, which requests have to give.
        dtype: number format in which the server computes; empty: unknown.
        logprobs_mode: which log-probabilities it returns; empty: unknown.

    Raises:
        UserError: this is no address.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 1800.0,
        patience: float = 60.0,
        load_timeout: float | None = None,
    ) -> None:
        parts = check_address(url)
        self.url = url.rstrip("/").removesuffix("/v1")
        self.timeout = timeout
        self.patience = patience
        self.load_timeout = load_timeout or timeout
        self.model = self.dtype = self.logprobs_mode = ""
        self._kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._place = parts.netloc.rpartition("@")[2]
        self._prefix = urlsplit(self.url).path
        self._open: set[HTTPConnection] = set()
        self._aborts = 0
        self._lock = threading.Lock()

    def chat(
        self, conversation: list[dict[str, Any]], seed: int, options: Mapping[str, Any]
    ) -> VllmCompletion:
        """Sample one completion.

        Raises:
            ServerFailed, RequestRefused: see there.
        """
        body = {
            "model": self.model,
            "messages": conversation,
            "seed": seed,
            "n": 1,
            # Otherwise that of the model's generation_config.json would apply.
            "repetition_penalty": 1.0,
            "logprobs": True,
            "top_logprobs": 0,
            "return_token_ids": True,
            **options,
            # Keys of JSON objects are strings.
            "logit_bias": {str(token): bias for token, bias in options["logit_bias"].items()},
        }
        reply = self.call("POST", "/v1/chat/completions", body, self.timeout)
        return _completion(reply)

    def generate(self, prompt: TokenRequest, seed: int, options: Mapping[str, Any]) -> VllmCompletion:
        """Sample one completion of a prompt of tokens.

        Raises:
            ServerFailed, RequestRefused: see there.
        """
        body = {
            "model": self.model,
            "token_ids": prompt.token_ids,
            "content_parts": [{"type": "image_url", "url": url} for url in prompt.images],
            "return_token_ids": True,
            "sampling_params": {
                "seed": seed,
                "n": 1,
                "repetition_penalty": 1.0,
                "logprobs": 0,
                "detokenize": "stop" in options,
                **options,
                "logit_bias": {str(token): bias for token, bias in options["logit_bias"].items()},
            },
        }
        try:
            reply = self.call("POST", TOKENS, body, self.timeout)
        except RequestRefused as error:
            if error.status == 404:
                raise RequestRefused(404, f"it has no {TOKENS}, which conversations need") from error
            raise
        return _completion(reply)

    def inspect(self) -> None:
        """Ask which model the server has, and with which settings it was started."""
        models, info = self.call("GET", "/v1/models"), self.call("GET", "/server_info?config_format=json")
        try:
            self.model = str(models["data"][0]["id"])
            settings = info["vllm_config"]["model_config"]
        except (KeyError, IndexError, TypeError) as error:
            raise RequestRefused(200, f"no list of models, or no settings: {str(models)[:200]}") from error
        self.dtype = str(settings.get("dtype", "")).removeprefix("torch.")
        self.logprobs_mode = str(settings.get("logprobs_mode", ""))

    def health(self) -> None:
        """Return if the server answers and its engine runs."""
        self.call("GET", "/health")

    def stamp(self) -> str:
        """Return a text that changes if the server starts anew, or someone else sends it weights.

        It is the version of the weights; of a vLLM that keeps none, the time when it was started.
        """
        try:
            return f"version {self.call('GET', '/weight_info', wait=self.timeout)['weight_version']}"
        except RequestRefused as error:
            if error.status != 404:
                raise
        started = _STARTED.search(str(self.call("GET", "/metrics")))
        if not started:
            raise RequestRefused(404, "neither /weight_info nor a time of start in /metrics")
        return f"started {started[1]}"

    def set_version(self, version: str) -> str:
        """Let the server note this as the version of its weights, if it can; return its stamp."""
        try:
            self.call("POST", "/update_weight_version", {"new_version": version}, self.timeout)
        except RequestRefused as error:
            if error.status != 404:
                raise
        return self.stamp()

    def reload(self, folder: Path) -> None:
        """Load weights from a folder, and forget everything that was computed with the old ones.

        Raises:
            ServerFailed: among others, the server cannot read the folder; it has to be started again then.
            RequestRefused: it has no such routes.
        """
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        self.call("POST", "/collective_rpc", body, self.load_timeout)
        self.reset_caches()

    def reset_caches(self) -> None:
        """Forget keys and values of prompts, and features of images."""
        for cache in _CACHES:
            path = f"/reset_{cache}_cache"
            # Requests of another process may be running: they begin anew, and are not counted in the end.
            query = "?reset_running_requests=true" if cache == "prefix" else ""
            reply = self.call("POST", path + query, {}, self.timeout)
            if isinstance(reply, dict) and reply.get("success") is False:
                raise ServerFailed(f"did not reset its {cache} cache", answered=True)

    def abort(self) -> None:
        """End all open requests; their callers get ``ServerFailed``."""
        with self._lock:
            self._aborts += 1
            for connection in self._open:
                if connection.sock is not None:
                    _shut(connection.sock)

    def call(self, method: str, path: str, body: Any = None, wait: float | None = None) -> Any:
        """Send a request; return the JSON of its reply, or text that is none.

        Raises:
            ServerFailed: no connection, no reply in time, or a status from 500.
            RequestRefused: another status than 200.
        """
        connection = self._kind(self._place, timeout=CONNECT)
        with self._lock:
            self._open.add(connection)
            aborts = self._aborts
        try:
            connection.connect()
            connection.sock.settimeout(wait or self.patience)
            if aborts != self._aborts:
                raise ConnectionAbortedError("broken off here")
            connection.request(method, self._prefix + path, *_content(body))
            reply = connection.getresponse()
            status, text = reply.status, reply.read().decode(errors="replace")
        except TimeoutError as error:
            raise ServerFailed(f"does not answer {path} in time") from error
        except (OSError, HTTPException) as error:
            raise ServerFailed(f"cannot be reached ({str(error) or type(error).__name__})") from error
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()
        if status >= 500:
            raise ServerFailed(f"fails at {path}: {status}, {_message(text)}", answered=True)
        if status != 200:
            raise RequestRefused(status, _message(text))
        return _parse(text)


def _completion(reply: Any) -> VllmCompletion:
    """Return the completion in a reply of either route.

    Raises:
        ServerFailed: it was broken off.
        RequestRefused: there is none.
    """
    try:
        choice = reply["choices"][0]
        if choice["finish_reason"] == "abort":
            raise ServerFailed("broke off a completion")
        logprobs = [entry["logprob"] for entry in (choice["logprobs"] or {}).get("content") or []]
        return VllmCompletion(reply["prompt_token_ids"], choice["token_ids"], logprobs)
    except (KeyError, IndexError, TypeError) as error:
        raise RequestRefused(200, f"a reply that is none of vLLM's: {str(reply)[:200]}") from error


def check_address(url: str) -> SplitResult:
    """Return the parts of a server's address. Raises ``UserError`` if it is none."""
    try:
        parts = urlsplit(url)
        HTTPConnection(parts.netloc.rpartition("@")[2])  # checks the host, and connects only later
        if parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0):
            return parts
    except (ValueError, HTTPException):
        pass
    raise UserError(f"rollout.vllm: {url!r} is no address of a server; write http://HOST:PORT")


def _content(body: Any) -> tuple[bytes | None, dict[str, str]]:
    headers = {"Connection": "close"}
    if key := os.environ.get("VLLM_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    if body is None:
        return None, headers
    return json.dumps(body).encode(), {**headers, "Content-Type": "application/json"}


def _parse(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


def _message(text: str) -> str:
    """Return the message of an error reply, which may be JSON."""
    found = _parse(text)
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and key in found:
            found = found[key]
    return str(found)[:300]


def _shut(sock: socket.socket) -> None:
    """Wake the thread that waits for an answer."""
    with contextlib.suppress(OSError):  # not connected any more
        sock.shutdown(socket.SHUT_RDWR)
