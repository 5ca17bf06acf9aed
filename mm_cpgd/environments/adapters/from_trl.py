"""Environments written for TRL's ``environment_factory``, OpenEnv's clients in that form included, run here.

Such an environment is a class: ``reset(**columns)`` returns a text or content blocks for the last message of
the user, every other public method is a tool, and ``get_reward()``, if there is one, scores the conversation
(TRL 1.x, ``GRPOTrainer``). TRL is not imported.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any

from PIL import Image

from data.example import Example
from data.images import image_ref
from mm_cpgd.environments.conversation import ToolEnvironment
from mm_cpgd.environments.options import checked_options
from mm_cpgd.environments.protocol import Content, Message, Observation
from mm_cpgd.environments.registry import find_named
from mm_cpgd.environments.tool import Tool
from mm_cpgd.errors import UserError

NOT_TOOLS = ("reset", "get_reward")


class TrlEnvironment:
    """An environment of TRL: its methods are tools, and ``get_reward`` is the score ``reward``.

    The text that its ``reset`` returns must be the same for all completions of an example.

    Args:
        seed: unused by TRL's environments, which take no argument.
        environment: ``path/to/file.py:Class``, or the class itself.
        template: prompt text with the placeholders ``{question}`` and ``{choices}``.
        system_prompt: text of the system message, before the tools.
        options: further options are those of ``ToolEnvironment``, without ``tools``.

    Raises:
        UserError: the class cannot be loaded, has no ``reset`` or no tool, or a method cannot be a tool.
    """

    def __init__(
        self,
        seed: int,
        environment: str | Callable[[], Any],
        template: str = "{question}",
        system_prompt: str | None = None,
        **options: Any,
    ) -> None:
        make = find_named("environment", environment, {})[1] if isinstance(environment, str) else environment
        self.instance = make()
        methods = public_methods(self.instance)
        if "reset" not in methods:
            raise UserError(f"{type(self.instance).__name__} has no method reset, as TRL's environments have")
        tools = [Tool(_pieces_of(method)) for name, method in methods.items() if name not in NOT_TOOLS]
        where = f"environment {type(self.instance).__name__}"
        given = checked_options(where, ToolEnvironment, {**options, "tools": tools}, skip=("seed",))
        self.talk = ToolEnvironment(seed, template=template, system_prompt=system_prompt, **given)
        self._get_reward = methods.get("get_reward")

    @property
    def template_tools(self) -> list[dict[str, Any]]:
        """See ``protocol.template_tools``."""
        return self.talk.template_tools

    def reset(self, example: Example) -> tuple[Message, ...]:
        """Return the question, with what the environment's own ``reset`` adds to it."""
        told = _called(self.instance.reset, columns_of(example))
        messages = self.talk.reset(example)
        if told is None:
            return messages
        last = messages[-1]
        return (*messages[:-1], replace(last, content=(*last.content, *_blocks(told))))

    def step(self, completion: str) -> Observation:
        """Run the calls of a turn; at the end, ask the environment for its reward."""
        observation = self.talk.step(completion)
        if not observation.done or self._get_reward is None:
            return observation
        return replace(observation, scores={**observation.scores, "reward": float(self._get_reward())})


def public_methods(instance: Any) -> dict[str, Callable[..., Any]]:
    """Return the bound methods that TRL finds: the class's functions whose names have no underscore first."""
    found = inspect.getmembers(type(instance), predicate=inspect.isfunction)
    return {name: getattr(instance, name) for name, _ in found if not name.startswith("_")}


def columns_of(example: Example) -> dict[str, Any]:
    """Return the example as columns of a data set, as TRL passes them to ``reset``."""
    fields = {"id": example.id, "question": example.question, "answer": example.answer}
    prompt = [{"role": "user", "content": example.question}]
    return {**example.meta, **fields, "prompt": prompt, "images": [ref.open() for ref in example.images]}


def _called(function: Callable[..., Any], columns: Mapping[str, Any]) -> Any:
    """Call ``reset`` with the columns that it takes."""
    parameters = inspect.signature(function).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return function(**columns)
    return function(**{name: value for name, value in columns.items() if name in parameters})


def _pieces_of(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return the method with a result of this project's tools: texts, numbers and images."""
    if inspect.iscoroutinefunction(method):
        raise UserError(f"the tool {method.__name__!r} is asynchronous; write a plain method")

    @wraps(method)
    def tool(**arguments: Any) -> Any:
        return _blocks(method(**arguments))

    # Of the bound method, without ``self``, also where the function states a signature itself.
    tool.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
    return tool


def _blocks(result: Any) -> list[Content]:
    """Return TRL's content blocks as texts and images; anything that is no list is text."""
    if not isinstance(result, list):
        return [str(result)]
    return [_block(one) for one in result]


def _block(block: Any) -> Content:
    if isinstance(block, Mapping) and block.get("type") == "text":
        return str(block["text"])
    if isinstance(block, Mapping) and block.get("type") == "image":
        return image_ref(block["image"])
    return image_ref(block) if isinstance(block, Image.Image) else str(block)
