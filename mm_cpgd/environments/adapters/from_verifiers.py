"""Environments of ``verifiers`` 0.1 (``MultiTurnEnv`` and what derives from it) run here.

There the environment drives the model through a client. Here it is asked for the same steps one by one:
``setup_state``, its stop conditions, ``env_response`` by ``get_prompt_messages``, and its rubric at the end.
The calls of tools are read from the policy's text. ``verifiers`` is imported when an environment is made;
versions from 0.2 on have another interface, in which a program calls the model, and are refused.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Coroutine, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, TypeVar

from data.example import Example
from data.images import image_ref
from mm_cpgd.environments.call_formats import (
    CallFormat,
    ParsedCall,
    find_calls,
    instructions,
    neutral,
    read_json,
)
from mm_cpgd.environments.protocol import Content, Message, Observation, prompt_messages
from mm_cpgd.environments.registry import find_named
from mm_cpgd.errors import UserError

Result = TypeVar("Result")


class VerifiersEnvironment:
    """An environment of ``verifiers`` 0.1: the score ``reward`` is its rubric's, and its metrics are scores.

    The example's question and images are the prompt, after the environment's own system prompt. The rubric
    sees its ``answer`` and ``meta["info"]``, and the prompt's texts. One loaded environment serves all
    conversations, as there.

    Args:
        seed: unused by environments of verifiers.
        environment: the name of an installed one, or ``path/to/file.py:load_environment``.
        arguments: of its ``load_environment``.
        call_format: how tools are described, see ``ToolEnvironment``.
        describe: who describes the tools, see ``ToolEnvironment``.
        template: see ``prompt_messages``.

    Raises:
        UserError: verifiers is not installed or of another version, or it is no ``MultiTurnEnv``.
    """

    def __init__(
        self,
        seed: int,
        environment: str,
        arguments: Mapping[str, Any] | None = None,
        call_format: CallFormat = "json",
        describe: Literal["system", "template", "nobody"] = "system",
        template: str = "{question}",
    ) -> None:
        self.inner = _loaded(environment, json.dumps(dict(arguments or {}), sort_keys=True))
        self.call_format = call_format
        self.describe = describe
        self.template = template
        tools = [_fields(one) for one in getattr(self.inner, "tool_defs", None) or []]
        keys = ("name", "description", "parameters")
        functions = [{key: tool[key] for key in keys} for tool in tools]
        self.schemas = [{"type": "function", "function": one} for one in functions]

    @property
    def template_tools(self) -> list[dict[str, Any]]:
        """The schemas, if the chat template is to describe the tools."""
        return self.schemas if self.describe == "template" else []

    def reset(self, example: Example) -> tuple[Message, ...]:
        """Return the question, after the environment's system prompt and the description of its tools."""
        messages = prompt_messages(example, self.template, getattr(self.inner, "system_prompt", None) or None)
        plain = [{"role": message.role, "content": message.text} for message in messages]
        row = {"prompt": plain, "answer": example.answer, "info": dict(example.meta.get("info") or {})}
        if "task" in example.meta:
            row["task"] = example.meta["task"]
        self._state = _wait(self._begin({**row, "example_id": 0}))
        if self.describe != "system" or not self.schemas:
            return messages
        system = messages[0].text + "\n\n" if messages[0].role == "system" else ""
        told = Message("system", (system + instructions(self.schemas, self.call_format),))
        return (told, *(message for message in messages if message.role != "system"))

    def step(self, completion: str) -> Observation:
        """Pass the turn on, and return the environment's response, or at the end the rubric's scores."""
        calls = find_calls(completion) if self.schemas else []
        wrong = [call for call in calls if call.problem]
        counts = {"tool_calls": len(calls), "malformed_calls": len(wrong)}
        if wrong:
            # The environment would take such a turn for an answer.
            told = tuple(Message("tool", (f"Error: {neutral(call.problem)}",)) for call in wrong)
            return Observation(told, reason=f"malformed call: {neutral(wrong[0].problem)}", counts=counts)
        replies = _wait(self._reply(completion, calls))
        if replies is None:
            scores = {"reward": float(self._state["reward"]), **(self._state["metrics"] or {})}
            why = self._state.get("stop_condition") or "the environment ended the conversation"
            numbers = {name: float(value) for name, value in scores.items()}
            return Observation(done=True, scores=numbers, reason=str(why), counts=counts)
        named = ", ".join(call.name for call in calls)
        return Observation(replies, reason=f"called {named}" if named else "replied", counts=counts)

    async def _begin(self, row: dict[str, Any]) -> Any:
        state = await self.inner.init_state(row, client=_no_client(), model="policy", sampling_args={})
        changed = await self.inner.setup_state(state)
        state = state if changed is None else changed  # some return it
        self._read = list(state["prompt"])
        return state

    async def _reply(self, completion: str, calls: Sequence[ParsedCall]) -> tuple[Message, ...] | None:
        """Return the environment's messages, or None at the end, when the rollout has been scored."""
        from verifiers.types import AssistantMessage, ToolCall

        number = len(self._state["trajectory"])
        written = [
            ToolCall(
                id=f"call_{number}_{index}",
                name=one.name,
                arguments=json.dumps(_arguments(one, self.schemas)),
            )
            for index, one in enumerate(calls)
        ]
        turn = AssistantMessage(content=completion, tool_calls=written or None)
        step = {"prompt": self._read, "completion": [turn], "response": None, "tokens": None, "reward": None}
        rest = {"advantage": None, "is_truncated": False, "trajectory_id": self._state["trajectory_id"]}
        await self.inner.add_trajectory_step(self._state, {**step, **rest, "extras": {}})
        if not await self.inner.is_completed(self._state):
            messages = list(await self.inner.get_prompt_messages(self._state))
            if not await self.inner.is_completed(self._state):
                new = messages[len(self._read) + 1 :]
                self._read = messages
                return tuple(_message(_fields(one)) for one in new)
        # Its handlers, of which one writes the completion that the rubric reads. Before 0.1.14 the stop
        # condition runs them, and the completion is written apart.
        if hasattr(self.inner, "cleanup"):
            await self.inner.cleanup(self._state)
        else:
            await self.inner.render_completion(self._state)
        await self.inner.rubric.score_rollout(self._state)
        return None


def _arguments(call: ParsedCall, schemas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the arguments of a call; of the XML form those that are no texts are read as JSON."""
    if not call.in_texts:
        return dict(call.arguments)
    functions = {one["function"]["name"]: one["function"] for one in schemas}
    known = functions.get(call.name, {}).get("parameters", {}).get("properties", {})
    return {key: _read(value, known.get(key, {})) for key, value in call.arguments.items()}


def _read(text: str, schema: Mapping[str, Any]) -> Any:
    if schema.get("type") == "string":
        return text
    try:
        return read_json(text)
    except ValueError:
        return text


def _fields(value: Any) -> dict[str, Any]:
    """Return a message or tool of verifiers, a mapping or a model of pydantic, as a mapping."""
    return dict(value) if isinstance(value, Mapping) else dict(value.model_dump())


def _message(message: Mapping[str, Any]) -> Message:
    content = message.get("content") or ""
    parts = (
        [{"type": "text", "text": content}] if isinstance(content, str) else [_fields(one) for one in content]
    )
    role: Any = message["role"] if message["role"] in ("system", "user", "tool") else "user"
    return Message(role, tuple(map(_piece, parts)) or ("",))


def _piece(part: Mapping[str, Any]) -> Content:
    if part.get("type") == "image_url":
        return image_ref(part["image_url"]["url"])
    return neutral(str(part.get("text", "")))


@lru_cache(maxsize=32)
def _loaded(environment: str, arguments: str) -> Any:
    """Return the environment, loaded once for all conversations with the same arguments."""
    try:
        import verifiers
    except ImportError as error:
        raise UserError(
            f"environment {environment!r} needs verifiers: pip install 'verifiers<0.2'"
        ) from error
    if not hasattr(verifiers, "MultiTurnEnv"):
        found = getattr(verifiers, "__version__", "of another version")
        raise UserError(f"verifiers {found} has no MultiTurnEnv; environments of 0.1 run: 'verifiers<0.2'")
    given = json.loads(arguments)
    if ".py:" in environment:
        made = find_named("environment", environment, {})[1](**given)
    else:
        made = verifiers.load_environment(environment, **given)
    if not isinstance(made, verifiers.MultiTurnEnv):
        raise UserError(f"{environment} made {type(made).__name__}, which is no MultiTurnEnv of verifiers")
    return made


@lru_cache(maxsize=1)
def _no_client() -> Any:
    """Return a client that no environment needs: the policy's turns come from the engine."""
    from verifiers.clients import Client

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the environment called the model itself, which is not possible here")

    refusing = dict.fromkeys(getattr(Client, "__abstractmethods__", ()), refuse)
    return object.__new__(type("NoClient", (Client,), refusing))


def _wait(steps: Coroutine[Any, Any, Result]) -> Result:
    """Run steps of an environment to their end, from any thread."""
    return asyncio.run_coroutine_threadsafe(steps, _loop(os.getpid())).result()


@lru_cache(maxsize=1)
def _loop(process: int) -> asyncio.AbstractEventLoop:
    """Return this process's event loop, one for all: what environments keep is bound to its loop."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="verifiers", daemon=True).start()
    return loop
