"""ToolEnvironment: a question that the policy answers after calling tools."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from annotated_types import Ge

from data.example import Example, ImageRef
from mm_cpgd.environments.call_formats import CallFormat, ParsedCall, find_calls, instructions, neutral
from mm_cpgd.environments.checks import place_of
from mm_cpgd.environments.coordinates import Coordinates, ToolError, View
from mm_cpgd.environments.images import DEFAULT_PIXELS, LEAST_PIXELS
from mm_cpgd.environments.protocol import Content, Message, Observation, prompt_messages
from mm_cpgd.environments.scores import Call, Progress, Score, get_score
from mm_cpgd.environments.tool import Context
from mm_cpgd.environments.tools import named_tools
from rewards.messages import nearest, short

ANSWER_NOW = "This was the last tool call; answer now."
Count = Annotated[int, Ge(1)]


class ToolEnvironment:
    """A question with tools: calls are run and their results shown until a turn has no call.

    Args:
        seed: of the random numbers of tools that take some.
        tools: names (built in, or ``path/to/file.py:function``), functions, or ``Tool`` objects.
        call_format: how the instructions tell the model to write calls: "json" (Qwen2.5, Qwen3-VL, Hermes) or
            "xml" (Qwen3-Coder, Qwen3.5); both are read.
        describe: who tells the model about its tools: the "system" message of this environment, the chat
            "template" by its argument ``tools``, or "nobody" (a policy that knows them).
        reply_role: role of results; "user" for templates that know no tools, wrapped in ``<tool_response>``.
        max_turns: turns of the policy; a call in the last one is not run, and ends the conversation.
        max_calls: calls that are run in one conversation.
        max_calls_per_turn: calls that are run in one turn.
        max_images: images that tools show in one conversation.
        number_images: write ``Image 2:`` before each image, so that later calls can name it.
        scores: parts of the score by name, each with its options (``environments.scores``).
        template: prompt text with the placeholders ``{question}`` and ``{choices}``.
        system_prompt: text of the system message, before the tools.
        coordinates: see ``View``.
        image_pixels: see ``View``.
        factor: see ``View``.
        min_pixels: see ``View``.
        max_pixels: see ``View``.

    Raises:
        UserError: no tool, two of one name, or a tool or score that cannot be loaded.
    """

    def __init__(
        self,
        seed: int,
        tools: Sequence[Any],
        call_format: CallFormat = "json",
        describe: Literal["system", "template", "nobody"] = "system",
        reply_role: Literal["tool", "user"] = "tool",
        max_turns: Count = 6,
        max_calls: Count = 8,
        max_calls_per_turn: Count = 4,
        max_images: Annotated[int, Ge(0)] = 8,
        number_images: bool = True,
        scores: Mapping[str, Any] | None = None,
        template: str = "{question}",
        system_prompt: str | None = None,
        coordinates: Coordinates = "thousandths",
        image_pixels: Annotated[int, Ge(LEAST_PIXELS)] = DEFAULT_PIXELS,
        factor: Count = 28,
        min_pixels: Count = 3_136,
        max_pixels: Count = 12_845_056,
    ) -> None:
        self.tools = named_tools(tools)
        self.view = View(coordinates, image_pixels, factor, min_pixels, max_pixels)
        self.call_format = call_format
        self.describe = describe
        self.reply_role = reply_role
        self.max_turns = max_turns
        self.max_calls = max_calls
        self.max_calls_per_turn = max_calls_per_turn
        self.max_images = max_images
        self.number_images = number_images
        self.scores: dict[str, Score] = dict(get_score(name, given) for name, given in (scores or {}).items())
        self.template = template
        self.system_prompt = system_prompt
        self._rng = random.Random(f"tools/{seed}")
        self._example: Example | None = None
        self._begin(())

    def _begin(self, images: Sequence[ImageRef]) -> None:
        self._images = list(images)
        self._calls: list[Call] = []
        self._turn = self._run = self._shown = 0

    @property
    def schemas(self) -> list[dict[str, Any]]:
        """The tools' JSON schemas, in the format of chat templates."""
        return [tool.schema(self.view) for tool in self.tools.values()]

    @property
    def template_tools(self) -> list[dict[str, Any]]:
        """The schemas, if the chat template is to describe the tools."""
        return self.schemas if self.describe == "template" else []

    def reset(self, example: Example) -> tuple[Message, ...]:
        """Begin the conversation and return the question, after the description of the tools."""
        self._example = example
        self._begin(example.images)
        messages = prompt_messages(example, self.template, self.system_prompt)
        if self.describe != "system":
            return messages
        text = instructions(self.schemas, self.call_format)
        if messages[0].role == "system":
            return (Message("system", (f"{messages[0].text}\n\n{text}",)), *messages[1:])
        return (Message("system", (text,)), *messages)

    def step(self, completion: str) -> Observation:
        """Run the calls of a turn and return their results; a turn without calls ends the conversation."""
        self._turn += 1
        parsed = find_calls(completion)
        if not parsed:
            return self._observe(completion, [], [], done=True, cut=False)
        is_last = self._turn >= self.max_turns
        results = [self._answer(index, one, is_last) for index, one in enumerate(parsed)]
        calls = [call for call, _ in results]
        replies = [] if is_last else self._readable([content for _, content in results])
        return self._observe(completion, calls, replies, done=is_last, cut=is_last)

    @property
    def example(self) -> Example:
        """The row of the conversation."""
        if self._example is None:
            raise RuntimeError("reset must be called before step")
        return self._example

    def _readable(self, replies: list[tuple[Content, ...]]) -> list[tuple[Content, ...]]:
        """Return the replies to the calls of a turn, with one for all those beyond the limit."""
        left = len(replies) - self.max_calls_per_turn
        if left <= 0:
            return replies
        said = f"Error: {left} more calls are not run: at most {self.max_calls_per_turn} calls in one turn"
        return [*replies[: self.max_calls_per_turn], (said,)]

    def _answer(self, index: int, parsed: ParsedCall, is_last: bool) -> tuple[Call, tuple[Content, ...]]:
        """Run one call; whatever happens, return it with a reply that says so."""
        name = short(parsed.name, 40)

        def refused(status: Any, reason: str, place: str = "") -> tuple[Call, tuple[Content, ...]]:
            said = neutral(short(reason, 300))
            return Call(self._turn, name, status, said + place), (f"Error: {said}",)

        if parsed.problem:
            return refused("malformed", parsed.problem)
        if is_last:
            return refused("limit", f"not run: at most {self.max_turns} turns")
        if index >= self.max_calls_per_turn:
            return refused("limit", f"not run: at most {self.max_calls_per_turn} calls in one turn")
        if self._run >= self.max_calls:
            return refused("limit", f"not run: at most {self.max_calls} calls. Answer now.")
        self._run += 1
        tool = self.tools.get(parsed.name)
        if tool is None:
            return refused("invalid", f"there is no tool {name!r}: {nearest(name, self.tools)}")
        context = Context(self.example, tuple(self._images), self.view, self._rng)
        try:
            given = tool.from_texts(parsed.arguments) if parsed.in_texts else parsed.arguments
            arguments = tool.checked(given)
            content = tool(arguments, context)
        except ToolError as error:
            return refused("invalid", str(error))
        except Exception as error:  # of a tool of the user, or an image that cannot be opened
            return refused(
                "failed", f"{parsed.name} failed: {type(error).__name__}: {error}", place_of(error)
            )
        images = tuple(piece for piece in content if isinstance(piece, ImageRef))
        return Call(self._turn, parsed.name, "ok", "", arguments, images), self._admitted(content)

    def _admitted(self, content: Sequence[Content]) -> tuple[Content, ...]:
        """Number the images of a result, and leave out those beyond the limit."""
        pieces: list[Content] = []
        for piece in content:
            if isinstance(piece, str):
                pieces.append(neutral(piece))
            elif self._shown >= self.max_images:
                pieces.append(f"[an image is left out: at most {self.max_images} are shown]")
                self._shown += 1
            else:
                self._shown += 1
                self._images.append(piece)
                if self.number_images:
                    pieces.append(f"Image {len(self._images)}: ")
                pieces.append(piece)
        return tuple(pieces) or ("done",)

    def _observe(
        self,
        completion: str,
        calls: list[Call],
        replies: list[tuple[Content, ...]],
        *,
        done: bool,
        cut: bool,
    ) -> Observation:
        before, self._calls = tuple(self._calls), [*self._calls, *calls]
        progress = Progress(self.example, completion, self._turn, tuple(calls), before, done, cut)
        given = {name: score(progress) for name, score in self.scores.items()}
        scores = {name: value for name, value in given.items() if value is not None}
        if replies and self._turn == self.max_turns - 1:
            replies[-1] = (*replies[-1], f"\n{ANSWER_NOW}")
        return Observation(self._messages(replies), done, scores, _reason(progress), self._counts(progress))

    def _messages(self, replies: list[tuple[Content, ...]]) -> tuple[Message, ...]:
        if self.reply_role == "tool":
            return tuple(Message("tool", reply) for reply in replies)
        pieces: list[Content] = []
        for reply in replies:
            pieces += ["<tool_response>\n", *reply, "\n</tool_response>\n"]
        return (Message("user", tuple(pieces)),) if pieces else ()

    def _counts(self, progress: Progress) -> dict[str, int]:
        status = [call.status for call in progress.calls]
        left_out = max(0, self._shown - self.max_images) if progress.done else 0
        return {
            "tool_calls": len(status),
            "malformed_calls": status.count("malformed") + status.count("invalid"),
            "failed_calls": status.count("failed"),
            "calls_over_limit": status.count("limit"),
            "images_over_limit": left_out,
            "turns_over_limit": int(progress.cut),
        }


def _told(call: Call) -> str:
    """Return what became of a call; the reason of one that failed says so itself."""
    return call.reason.partition(" ")[2] if call.status == "failed" else f"{call.status}: {call.reason}"


def _reason(progress: Progress) -> str:
    """Return what happened in a turn, in one line."""
    if not progress.calls:
        return f"answered in turn {progress.turn}"
    told = [
        call.name if call.status == "ok" else f"{call.name or 'a call'} ({_told(call)})"
        for call in progress.calls
    ]
    end = "; the limit of turns ends the conversation" if progress.cut else ""
    return short("called " + ", ".join(told), 400) + end
