"""HTTP client for OpenAI-compatible servers: rate limit, retries, validated replies, usage. No torch."""

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
from pydantic import BaseModel, Field, ValidationError
from requests.adapters import HTTPAdapter
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from mm_cpgd.errors import UserError
from rewards.messages import short


class RateLimiter:
    """Limits requests to a rate by spacing them evenly, over all threads.

    Args:
        per_minute: requests per minute; None for no limit.
        clock: monotonic, in seconds.
        sleep: waits the given number of seconds.
    """

    def __init__(
        self,
        per_minute: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._clock, self._sleep = clock, sleep
        self._lock, self._next = Lock(), clock()

    def wait(self) -> None:
        """Block until the caller may send its request."""
        while (seconds := self._reserve()) > 0:
            self._sleep(seconds)

    def pause(self, seconds: float) -> None:
        """Block all callers for this many seconds, as the server requested."""
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)

    def _reserve(self) -> float:
        """Reserve the next slot and return 0 if it is free, else return the seconds until it is."""
        with self._lock:
            now = self._clock()
            if now < self._next:
                return self._next - now
            self._next = now + self._gap
            return 0.0


# Finish reasons of a reply that was cut off; a complete one has others (stop, eos_token, null).
_CUT_OFF = {"length", "content_filter", "abort", "error"}


@dataclass(frozen=True)
class Reply:
    """Reply to one request.

    Attributes:
        text: empty when the server sent none (a refusal, or reasoning that was cut off).
        finished: False when a limit or a filter cut the text off.
        prompt_tokens: as counted by the server, None when not reported.
        completion_tokens: likewise.
    """

    text: str
    finished: bool
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _TextContent(BaseModel):
    text: str = ""


class _Message(BaseModel):
    content: str | list[_TextContent] | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Body(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def read_reply(body: bytes) -> Reply:
    """Return the first choice of a chat completion. Raises ``ValueError`` if the body is not one."""
    try:
        read = _Body.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        shown = short(body.decode(errors="replace"), 200)
        raise ValueError(f"not a chat completion ({where or 'JSON'}: {first['msg']}): {shown}") from error
    choice, usage = read.choices[0], read.usage or _Usage()
    content = choice.message.content
    text = "".join(part.text for part in content) if isinstance(content, list) else content or ""
    finished = choice.finish_reason not in _CUT_OFF
    return Reply(text, finished, usage.prompt_tokens, usage.completion_tokens)


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return the seconds given by ``Retry-After`` (a number or a date, RFC 9110), None without the header."""
    value = headers.get("Retry-After")
    if not value:
        return None
    try:
        return max(0.0, Retry().parse_retry_after(value))
    except InvalidHeader:
        return None


# Statuses of failures that may be temporary; a request that failed with another one is not repeated.
TRANSIENT = {408, 409, 425, 429}
# Statuses that every other request would get as well: wrong address, model or key.
_SETUP = {401, 402, 403, 404, 405}
# Upper bound on the seconds that a server may request by Retry-After.
_MAX_RETRY_AFTER = 600.0
_HINTS = {
    400: "the model does not accept this request: check its length, images and sampling settings",
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


class _Transient(EndpointError):
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
        timeout: seconds without a byte until an attempt is abandoned.
        max_retries: further attempts after a failure that may be temporary: 408, 409, 425, 429, 5xx, a lost
            connection, a time-out, an unreadable reply.
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
        self.url, self.model = base_url.rstrip("/") + "/chat/completions", model
        self.concurrency = concurrency
        self._key, self._timeout = api_key, timeout
        self._slots, self._lock = BoundedSemaphore(concurrency), Lock()
        self._limiter = RateLimiter(requests_per_minute, clock=clock, sleep=sleep)
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=concurrency))
        self._backoff = wait_random_exponential(multiplier=first_wait, max=longest_wait)
        self._retrying = Retrying(
            retry=retry_if_exception_type(_Transient),
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
        body = {"model": self.model, "messages": list(messages), **sampling}
        retrying = self._retrying.copy()
        with self._slots:
            try:
                reply = retrying(self._post, body)
            except _Transient as error:
                attempts = _attempts(retrying.statistics["attempt_number"])
                raise EndpointError(f"{error}{attempts}", status=error.status) from error
        self._count(reply)
        return reply

    def _post(self, body: Mapping[str, Any]) -> Reply:
        self._limiter.wait()
        try:
            # No redirects: requests would repeat a redirected POST as a GET.
            response = self._session.post(
                self.url, json=body, timeout=self._timeout, auth=self._authorize, allow_redirects=False
            )
        except requests.Timeout as error:
            raise _Transient(f"{self.url}: no response within {self._timeout:g} s") from error
        except requests.ConnectionError as error:
            raise _Transient(f"{self.url}: no connection ({short(str(error), 200)})") from error
        except requests.RequestException as error:
            raise EndpointError(f"{self.url}: {short(str(error), 200)}") from error
        return self._read(response)

    def _read(self, response: requests.Response) -> Reply:
        status = response.status_code
        if status == 200:
            try:
                return read_reply(response.content)
            except ValueError as error:
                raise _Transient(f"{self.url}: {error}", status=status) from error
        message = self._redact(f"{self.url}: status {status}: {short(response.text, 200) or response.reason}")
        if status in TRANSIENT or status >= 500:
            raise _Transient(message, status=status, wait=retry_after_seconds(response.headers))
        hint = _HINTS.get(status, "check the address and the model's name")
        raise EndpointError(f"{message}; {hint}", status=status)

    def _wait(self, state: RetryCallState) -> float:
        """Return the seconds until the next attempt; a wait set by the server applies to all callers."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _Transient) and error.wait is not None:
            seconds = min(error.wait, _MAX_RETRY_AFTER)
            self._limiter.pause(seconds)
            return seconds
        return self._backoff(state)

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
