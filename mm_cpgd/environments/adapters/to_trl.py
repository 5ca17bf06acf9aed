"""Environments of this project as the ``environment_factory`` of TRL's ``GRPOTrainer``.

TRL (1.x, not imported) renders the tools by the chat template, parses the calls, and runs methods of an
object. So a class is made that has a method for each tool; a call goes through ``ToolEnvironment.step``, with
its checks and limits.
"""

from __future__ import annotations

import inspect
import itertools
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar

from data.example import Example
from data.images import image_ref
from data.videos.timeline import VideoRef
from mm_cpgd.environments.call_formats import write_call
from mm_cpgd.environments.conversation import ToolEnvironment
from mm_cpgd.environments.protocol import Observation
from mm_cpgd.environments.registry import get_environment
from mm_cpgd.environments.tool import Tool
from mm_cpgd.errors import UserError
from rewards.verdict import Verdict


def to_trl(
    environment: str | Callable[[int], Any],
    options: Mapping[str, Any] | None = None,
    *,
    weights: Mapping[str, float] | None = None,
    answer: str = "answer",
    seed: int = 0,
) -> type[Any]:
    """Return a class for ``GRPOTrainer(environment_factory=…)``.

    The data set has TRL's columns ``prompt`` (messages) and ``images`` or ``image``; tools see all columns as
    ``example.meta``. TRL shows its environments no answer: scores of the end (``tool_bonus``, ``answered``)
    are not given there, so score answers by ``reward_funcs`` (``rewards.adapters.to_trl``).

    Args:
        environment: a name as in a config, or a factory; it must make a ``ToolEnvironment``.
        options: the environment's options, if it is named.
        weights: factors of its scores, whose sum is ``get_reward()``; without any there is no such method.
        answer: the column of gold answers.
        seed: of the first conversation; each has another.

    Raises:
        UserError: an environment that cannot be made, or that has no tools.
    """
    make = get_environment(environment, options) if isinstance(environment, str) else environment
    first = _tools_of(make(seed))
    members: dict[str, Any] = {
        "_make": staticmethod(make),
        "_seeds": itertools.count(seed),
        "_weights": dict(weights or {}),
        "_answer": answer,
        **{name: _method(tool, first) for name, tool in first.tools.items()},
    }
    if taken := {"reset", "get_reward"} & set(first.tools):
        raise UserError(f"a tool has the name {taken.pop()!r}, which TRL's environments use; rename it")
    return type("ToolConversation", (_Scored if weights else _Conversation,), members)


class _Conversation:
    """One conversation, in TRL's form; a subclass has the methods of the tools."""

    _make: ClassVar[Any]
    _seeds: ClassVar[Iterator[int]]
    _weights: ClassVar[dict[str, float]]
    _answer: ClassVar[str]

    def __init__(self) -> None:
        self._talk = _tools_of(self._make(next(self._seeds)))
        self._total = 0.0

    def reset(self, **columns: Any) -> None:
        """Begin a conversation about a row of the data set."""
        self._talk.reset(_example(columns, self._answer))
        self._total = 0.0

    def _call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        observation = self._talk.step(write_call(name, arguments))
        for key, weight in self._weights.items():
            score = observation.scores.get(key, 0.0)
            value = score.score if isinstance(score, Verdict) else score
            self._total += weight * (value or 0.0)
        return _reply(observation)


class _Scored(_Conversation):
    """A conversation with a reward of its own."""

    def get_reward(self) -> float:
        """Return the weighted sum of the scores that the calls were given."""
        return self._total


def _tools_of(made: Any) -> ToolEnvironment:
    inner = getattr(made, "environment", made)
    if not isinstance(inner, ToolEnvironment):
        raise UserError(
            f"{type(inner).__name__} has no tools that TRL could call; give a ToolEnvironment, as 'tools' is"
        )
    return inner


def _example(columns: Mapping[str, Any], answer: str) -> Example:
    prompt = columns.get("prompt")
    last = prompt[-1]["content"] if isinstance(prompt, list) and prompt else str(prompt or "")
    question = last if isinstance(last, str) else "".join(one.get("text") or "" for one in last)
    images = columns.get("images") or [one for one in [columns.get("image")] if one is not None]
    return Example(
        id=str(columns.get("id", "")),
        # TRL writes the prompt itself: a marker in the text is no position of an image here.
        question=question.replace("<image", "< image"),
        answer=str(columns.get(answer, "")),
        images=tuple(map(image_ref, images)),
        meta=dict(columns),
    )


def _reply(observation: Observation) -> Any:
    """Return an observation as TRL's tools return it: a text, or content blocks if there are images."""
    pieces = [one for message in observation.messages for one in message.content]
    if all(isinstance(piece, str) for piece in pieces):
        return "".join(map(str, pieces)) or observation.reason
    return [
        {"type": "text", "text": one} if isinstance(one, str) else {"type": "image", "image": one.open()}
        for one in pieces
        if not isinstance(one, VideoRef)  # observations have none
    ]


def _method(tool: Tool, environment: ToolEnvironment) -> Callable[..., Any]:
    """Return a method with the tool's name, types and descriptions, from which TRL makes the schema."""

    def method(self: _Conversation, **arguments: Any) -> Any:
        return self._call(tool.name, arguments)

    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    lines, hints = [], {}
    for one in tool.signature.parameters:
        hints[one.name] = int if one.is_image else _plain(one.hint)
        default = 1 if one.is_image else one.default
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(one.name, kind, default=default, annotation=hints[one.name]))
        lines.append(f"    {one.name}: {one.schema.get('description') or one.name}")
    description = tool.schema(environment.view)["function"]["description"]
    method.__name__ = method.__qualname__ = tool.name
    method.__doc__ = "\n".join([description, "", "Args:", *lines]) if lines else description
    method.__annotations__ = hints
    method.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return method


def _plain(hint: Any) -> Any:
    """Return a type without its limits, which the tool itself checks."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
