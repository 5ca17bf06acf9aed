"""Checks of what environments return: one message that names the environment and what is allowed."""

from __future__ import annotations

import math
import numbers
import sysconfig
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.example import Example, ImageRef
from data.videos.timeline import VideoRef
from mm_cpgd.environments.protocol import ROLES, Environment, Message, Observation, template_tools
from mm_cpgd.errors import UserError
from rewards.messages import short
from rewards.verdict import Verdict

# Folders of code in which somebody who has written an environment does not look for a mistake.
_OTHERS = (str(Path(__file__).parents[1]), *(sysconfig.get_path(name) for name in ("stdlib", "purelib")))


class CheckedEnvironment:
    """An environment whose messages and observations are checked; its own exceptions pass through.

    Args:
        name: of the environment, for messages.
        environment: what a factory returned.

    Raises:
        UserError: it has no ``reset`` or ``step``.
    """

    def __init__(self, name: str, environment: Environment) -> None:
        for method in ("reset", "step"):
            if not callable(getattr(environment, method, None)):
                raise UserError(
                    f"environment {name!r} made {type(environment).__name__}, which has no method {method}; "
                    "an environment has reset(example) and step(completion)"
                )
        self.name = name
        self.environment = environment

    @property
    def template_tools(self) -> list[dict[str, Any]]:
        """See ``protocol.template_tools``."""
        return template_tools(self.environment)

    def reset(self, example: Example) -> tuple[Message, ...]:
        """Return the prompt. Raises ``UserError`` if it is none."""
        messages = check_messages(f"environment {self.name!r}: reset", self.environment.reset(example))
        if not messages or messages[-1].role == "assistant":
            raise UserError(
                f"environment {self.name!r}: reset returned no message for the policy to reply to; "
                "the last one must be of the user"
            )
        return messages

    def step(self, completion: str) -> Observation:
        """Return the observation. Raises ``UserError`` if it is none."""
        return check_observation(f"environment {self.name!r}: step", self.environment.step(completion))


def check_messages(where: str, messages: Any) -> tuple[Message, ...]:
    """Return the messages as a tuple.

    Raises:
        UserError: not a sequence of messages with a known role, and texts, images and videos as content.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)):
        raise UserError(
            f"{where} returned {type(messages).__name__}{_hint(messages)}; allowed: a sequence of Message"
        )
    for message in messages:
        if not isinstance(message, Message):
            raise UserError(f"{where} returned a {type(message).__name__}; allowed: Message(role, content)")
        if message.role not in ROLES:
            raise UserError(f"{where}: a message has the role {message.role!r}; allowed: {', '.join(ROLES)}")
        if not isinstance(message.content, tuple) or not message.content:
            raise UserError(
                f"{where}: the content of a message is {short(repr(message.content))}; "
                "allowed: a tuple of texts, images and videos"
            )
        for piece in message.content:
            if not isinstance(piece, (str, ImageRef, VideoRef)):
                raise UserError(
                    f"{where}: the content of a message holds {type(piece).__name__}; "
                    "allowed: str, ImageRef and VideoRef (Message.of takes PIL images too)"
                )
    return tuple(messages)


def _hint(returned: Any) -> str:
    return "; a return statement may be missing" if returned is None else ""


def check_observation(where: str, observation: Any) -> Observation:
    """Return the observation, its messages as a tuple.

    Raises:
        UserError: not an observation, messages although it is done or none although it is not, a video in a
            message, a score that is neither a finite number nor a verdict, or a count that is not whole.
    """
    if not isinstance(observation, Observation):
        raise UserError(
            f"{where} returned {type(observation).__name__}{_hint(observation)}; allowed: Observation"
        )
    messages = check_messages(where, observation.messages)
    if observation.done and messages:
        raise UserError(
            f"{where}: the observation is done and has messages, which nobody would read; leave them out"
        )
    if not observation.done and not messages:
        raise UserError(f"{where}: the observation has no messages and is not done; reply, or set done=True")
    if any(message.videos for message in messages):
        raise UserError(
            f"{where}: a message has a video, which only the prompt may have; show images, such as its frames"
        )
    if any(message.role == "assistant" for message in messages):
        raise UserError(
            f"{where}: a message has the role assistant, which only the policy has; use user or tool"
        )
    for name, score in _named(where, "scores", observation.scores):
        value = score.score if isinstance(score, Verdict) else score
        is_number = isinstance(value, numbers.Real) and math.isfinite(value)
        if not is_number and not (isinstance(score, Verdict) and value is None):
            raise UserError(f"{where}: score {name!r} is {value!r}; allowed: a finite number or a Verdict")
    for name, count in _named(where, "counts", observation.counts):
        if isinstance(count, bool) or not isinstance(count, numbers.Integral):
            raise UserError(f"{where}: count {name!r} is {count!r}; allowed: a whole number")
    return Observation(
        messages,
        bool(observation.done),
        dict(observation.scores),
        str(observation.reason),
        dict(observation.counts),
    )


def _named(where: str, what: str, values: Any) -> list[tuple[str, Any]]:
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise UserError(f"{where}: {what} is {values!r}; allowed: a mapping by name")
    return list(values.items())


def place_of(error: BaseException) -> str:
    """Return where an error was raised, " (file.py, line 3)": in the user's own code if that was called."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith((*_OTHERS, "<"))]
    if not (last := (own or frames)[-1:]):
        return ""
    return f" ({Path(last[0].filename).name}, line {last[0].lineno})"
