"""HTTP client of one OpenAI-compatible server: retries, error messages, usage. No torch."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import BoundedSemaphore, Lock
from typing import Any

import requests
from PIL import Image
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from eval.generate.http_session import ConnectionLost, HttpReply, HttpSession, Malformed
from eval.generate.rate import RateLimiter, retry_after_seconds
from eval.generate.reply import Reply, error_status, filtered, read_reply
from mm_cpgd.errors import UserError
from rewards import Status
from rewards.messages import short

# Statuses of failures that may be temporary; a request that failed with another one is not repeated.
TRANSIENT = {408, 409, 425, 429}
# Statuses that every other request would get as well: wrong address, model or key.
_SETUP = {401, 402, 403, 404, 405}
# Statuses caused by the request itself, which say nothing about the next one.
REQUEST_ERRORS = {400, 413, 422}
# Statuses of a request whose content a filter of the service may have stopped.
_FILTERED = {200, 400, 403, 422}
# Upper bound on the seconds that a server may request by Retry-After.
_MAX_RETRY_AFTER = 600.0
_HINTS = {
    400: "the model does not accept this request: check its length, images and sampling settings "
    "(max_completion_tokens=N as a setting replaces max_tokens, temperature=null leaves it out)",
    401: "the key is missing or wrong",
    403: "the key may not use this model",
    404: "check the address, which usually ends in /v1, and the model's name",
    413: "the request is too large: send smaller images",
    422: "the server does not support a setting that was sent",
}


class EndpointError(UserError):
    """A request got no usable reply.

    Attributes:
        status: the HTTP status, None without a complete HTTP response.
        setup: True when every other request would fail the same way (address, model, key).
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status, self.setup = status, status in _SETUP


class TransientError(EndpointError):
    """Failure after which the request is repeated, after ``wait`` seconds if the server set that."""

    def __init__(self, message: str, *, status: int | None = None, wait: float | None = None) -> None:
        super().__init__(message, status=status)
        self.wait = wait


@dataclass(frozen=True)
class Usage:
    """Usage of an endpoint so far: successful requests, and tokens as far as the server reports them."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Endpoint:
    """One model of an OpenAI-compatible server. May be used from many threads.

    Args:
        base_url: including ``/v1``, such as ``http://localhost:8000/v1``.
        model: its name on the server.
        api_key: sent as a bearer token; None for a server without keys. Never shown.
        concurrency: maximum number of concurrent requests; further callers wait.
        requests_per_minute: attempts, including retries; None for no limit.
        timeout: seconds until an attempt without a complete reply is abandoned, however slowly it arrives.
        max_retries: further attempts after a failure that may be temporary: 408, 409, 425, 429, 5xx, a lost
            connection, a reply that ended early, a time-out, an unreadable reply.
        first_wait: bound of the first back-off in seconds; it doubles with each attempt. The wait is drawn
            uniformly below the bound ("full jitter"), unless the server sets one by Retry-After.
        longest_wait: bound of every back-off.
        clock: monotonic, in seconds.
        sleep: waits the given number of seconds.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None = None,
        *,
        concurrency: int = 8,
        requests_per_minute: float | None = None,
        timeout: float = 120.0,
        max_retries: int = 5,
        first_wait: float = 1.0,
        longest_wait: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        _check(base_url, concurrency, requests_per_minute, timeout, max_retries)
        self.base_url = base_url.rstrip("/")
        self.url, self.model = f"{self.base_url}/chat/completions", model
        self.concurrency = concurrency
        self._key, self._timeout = api_key, timeout
        self._slots, self._lock = BoundedSemaphore(concurrency), Lock()
        self.limiter = RateLimiter(requests_per_minute, clock=clock, sleep=sleep)
        self._session = HttpSession(concurrency)
        self._backoff = wait_random_exponential(multiplier=first_wait, max=longest_wait)
        self._retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            stop=stop_after_attempt(max_retries + 1),
            wait=self._wait,
            sleep=sleep,
            reraise=True,
        )
        self.usage = Usage()

    def chat(self, messages: Sequence[Mapping[str, Any]], **sampling: Any) -> Reply:
        """Return the model's reply to a conversation.

        Args:
            messages: messages of the chat API: ``role``, and ``content`` as text or a list of content items.
            sampling: sent unchanged: ``temperature``, ``max_tokens``, ``seed``, …

        Raises:
            EndpointError: there was no reply, and retries failed or were pointless.
        """
        retrying = self._retrying.copy()
        with self._slots:
            try:
                return retrying(self.attempt, messages, sampling)
            except TransientError as error:
                attempts = _attempts(retrying.statistics["attempt_number"])
                raise EndpointError(f"{error}{attempts}", status=error.status) from error

    def attempt(self, messages: Sequence[Mapping[str, Any]], sampling: Mapping[str, Any]) -> Reply:
        """Send one request, when the rate allows it, and return the reply.

        Raises:
            TransientError: a failure that may be temporary.
            EndpointError: another one.
        """
        body = {"model": self.model, "messages": list(messages), **sampling}
        self.limiter.wait()
        try:
            reply = self._read(self._session.post(self.url, body, self._timeout, self._authorize))
        except ConnectionLost as error:
            raise TransientError(f"{self.url}: {short(str(error), 200)}") from error
        except Malformed as error:
            raise EndpointError(f"{self.url}: {short(str(error), 200)}") from error
        self._count(reply)
        return reply

    def _read(self, response: HttpReply) -> Reply:
        status = response.status
        if status // 100 == 2:
            status = error_status(response.body) or status
        if status // 100 == 2 and not filtered(response.body):
            try:
                return read_reply(response.body)
            except ValueError as error:
                raise TransientError(f"{self.url}: {self._redact(str(error))}", status=status) from error
        text = self._redact(short(response.body.decode(errors="replace"), 200)) or response.reason
        if status in _FILTERED and filtered(response.body):
            return Reply(text, False, declined=Status.FILTERED)
        message = f"{self.url}: status {status}: {text}"
        if status in TRANSIENT or status >= 500:
            raise TransientError(message, status=status, wait=retry_after_seconds(response.headers))
        hint = _HINTS.get(status, "check the address and the model's name")
        if status // 100 == 3 and (place := response.headers.get("Location")):
            hint = f"it points to {short(self._redact(place), 100)}: give the address that replies itself"
        raise EndpointError(f"{message}; {hint}", status=status)

    def _wait(self, state: RetryCallState) -> float:
        """Return the seconds until the next attempt; a wait set by the server applies to all callers."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, TransientError) and error.wait is not None:
            return self.pause(error.wait)
        return self._backoff(state)

    def pause(self, seconds: float) -> float:
        """Send nothing for the seconds that the server asked for, at most ten minutes; return them."""
        bounded = min(seconds, _MAX_RETRY_AFTER)
        self.limiter.pause(bounded)
        return bounded

    def alive(self, timeout: float = 10.0) -> bool:
        """Return whether the server replies at all to a question for its models; sends no prompt."""
        try:
            with requests.get(
                f"{self.base_url}/models", timeout=timeout, auth=self._authorize,
                allow_redirects=False, stream=True,
            ) as response:  # fmt: skip
                return response.status_code < 500
        except requests.RequestException:
            return False

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # As auth, not as a header: an entry in the user's .netrc would override a header.
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _redact(self, text: str) -> str:
        return text.replace(self._key, "…") if self._key else text

    def _count(self, reply: Reply) -> None:
        with self._lock:
            self.usage = replace(
                self.usage,
                requests=self.usage.requests + 1,
                prompt_tokens=self.usage.prompt_tokens + (reply.prompt_tokens or 0),
                completion_tokens=self.usage.completion_tokens + (reply.completion_tokens or 0),
            )


def text_content(text: str) -> dict[str, Any]:
    """Return a text content item of a chat message."""
    return {"type": "text", "text": text}


def image_content(image: Image.Image) -> dict[str, Any]:
    """Return an image content item of a chat message: a PNG in a data URL, lossless and self-contained."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def _attempts(count: int) -> str:
    return f" ({count} attempts)" if count > 1 else ""


def _check(
    base_url: str, concurrency: int, requests_per_minute: float | None, timeout: float, max_retries: int
) -> None:
    if not base_url.startswith(("http://", "https://")):
        raise EndpointError(f"endpoint {base_url!r} must begin with http:// or https:// and end in /v1")
    at_least: tuple[tuple[str, float, float], ...] = (
        ("concurrency", concurrency, 1),
        ("max_retries", max_retries, 0),
    )
    for name, value, least in at_least:
        if value < least:
            raise EndpointError(f"{name} {value} must be at least {least:g}")
    for name, above in (("requests_per_minute", requests_per_minute), ("timeout", timeout)):
        if above is not None and above <= 0:
            raise EndpointError(f"{name} {above:g} must be above 0")
