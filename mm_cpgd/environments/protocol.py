"""Protocol of environments: messages with text, images and videos, observations, and the plain environment.

An environment holds the conversation about one example: it writes the prompt, and replies to each turn of the
policy until it is done. One instance serves one completion and has a state of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

from PIL import Image

from data.example import Example, ImageRef, fill_template, split_at_media
from data.images import image_ref
from data.videos.timeline import VideoRef
from rewards.verdict import Verdict

# Text, or an image that is opened late.
Content = str | ImageRef
Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: who speaks; "tool" for the result of a tool call.
        content: texts and images, in the order in which the model reads them; in a prompt videos, too.
    """

    role: Role
    content: tuple[Content | VideoRef, ...]

    @classmethod
    def of(cls, role: Role, *content: Content | VideoRef | Image.Image) -> Message:
        """Return a message of texts and images; a PIL image becomes a reference, which holds its pixels."""
        pieces = (image_ref(one) if isinstance(one, Image.Image) else one for one in content)
        return cls(role, tuple(pieces))

    @property
    def text(self) -> str:
        """The texts, without the images."""
        return "".join(piece for piece in self.content if isinstance(piece, str))

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """The images, in order."""
        return tuple(piece for piece in self.content if isinstance(piece, ImageRef))

    @property
    def videos(self) -> tuple[VideoRef, ...]:
        """The videos, in order."""
        return tuple(piece for piece in self.content if isinstance(piece, VideoRef))


@dataclass(frozen=True)
class Observation:
    """Reply of an environment to one turn of the policy.

    Attributes:
        messages: what the model reads before its next turn; empty if and only if ``done``.
        done: whether the conversation has ended.
        scores: parts of the score that this step gives, by name: finite numbers or verdicts. The parts of one
            name are added over the turns.
        reason: one line that a person understands.
        counts: what is counted in the metrics, by name, such as ``{"tool_calls": 1, "malformed_calls": 0}``.
    """

    messages: tuple[Message, ...] = ()
    done: bool = False
    scores: Mapping[str, float | Verdict] = field(default_factory=dict)
    reason: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


class Environment(Protocol):
    """Conversation about one example, for one completion."""

    def reset(self, example: Example) -> Sequence[Message]:
        """Begin the conversation and return the prompt, equal for all completions of an example."""
        ...

    def step(self, completion: str) -> Observation:
        """Reply to one turn of the policy, given as text; special tokens of tool calls are kept in it."""
        ...


class EnvironmentFactory(Protocol):
    """Maker of environments; the same seed gives the same behaviour."""

    def __call__(self, seed: int) -> Environment:
        """Return a new environment, whose randomness derives from ``seed`` alone."""
        ...


def prompt_messages(
    example: Example, template: str = "{question}", system_prompt: str | None = None
) -> tuple[Message, ...]:
    """Return the example as messages: its system turn or else ``system_prompt``, and its question.

    Args:
        example: the row; its images and videos stand where ``<image>`` and ``<video>`` mark them, or else
            before the text.
        template: text with the placeholders ``{question}`` and ``{choices}``.
        system_prompt: text of the system message for examples without one; None: no system message.

    Raises:
        DataError: a marker without an image or a video.
    """
    pieces = split_at_media(fill_template(template, example), len(example.images), len(example.videos))
    images, videos = example.images, example.videos
    content = tuple(
        one if isinstance(one, str) else images[one.index] if one.kind == "image" else videos[one.index]
        for one in pieces
    )
    system = example.system or system_prompt
    head = (Message("system", (system,)),) if system else ()
    return (*head, Message("user", content))


class PlainEnvironment:
    """The environment without tools: the prompt is the example's question, and the first turn ends it.

    Args:
        seed: unused; there is no randomness.
        template: see ``prompt_messages``.
        system_prompt: see ``prompt_messages``.
    """

    def __init__(self, seed: int = 0, template: str = "{question}", system_prompt: str | None = None) -> None:
        self.template = template
        self.system_prompt = system_prompt

    def reset(self, example: Example) -> tuple[Message, ...]:
        """Return the example's messages."""
        return prompt_messages(example, self.template, self.system_prompt)

    def step(self, completion: str) -> Observation:
        """End the conversation."""
        return Observation(done=True, reason="one turn")


def template_tools(environment: Any) -> list[dict[str, Any]]:
    """Return the tools' JSON schemas for the ``tools`` argument of the chat template; usually none.

    An environment whose prompt does not describe its tools, because the template does, has the schemas as its
    attribute ``template_tools``.
    """
    return list(getattr(environment, "template_tools", ()))
