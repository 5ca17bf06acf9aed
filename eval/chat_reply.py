"""What an OpenAI-compatible server answers, read with suspicion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, Field, ValidationError
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

# Reasons to stop that leave an answer cut off; a finished one has others (stop, eos_token, null).
_CUT_OFF = {"length", "content_filter", "abort", "error"}


@dataclass(frozen=True)
class Reply:
    """One reply.

    Attributes:
        text: of it; empty when the server sent none (a refusal, or a thought cut off).
        finished: False when a limit or a filter cut it off.
        prompt_tokens: as the server counts them, None when it does not say.
        completion_tokens: likewise.
    """

    text: str
    finished: bool
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Part(BaseModel):
    text: str = ""


class _Message(BaseModel):
    content: str | list[_Part] | None = None


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
    """Return the first choice of a chat completion. Raises ``ValueError``: it is not one, and why."""
    try:
        read = _Body.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        shown = short(body.decode(errors="replace"))
        raise ValueError(f"not a chat completion ({where or 'JSON'}: {first['msg']}): {shown}") from error
    choice, usage = read.choices[0], read.usage or _Usage()
    content = choice.message.content
    text = "".join(part.text for part in content) if isinstance(content, list) else content or ""
    finished = choice.finish_reason not in _CUT_OFF
    return Reply(text, finished, usage.prompt_tokens, usage.completion_tokens)


def wait_asked_for(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that ``Retry-After`` asks for (a number or a date, RFC 9110), None without one."""
    asked = headers.get("Retry-After")
    if not asked:
        return None
    try:
        return max(0.0, Retry().parse_retry_after(asked))
    except InvalidHeader:
        return None


def short(text: str, limit: int = 200) -> str:
    """Return a text on one line, cut."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
