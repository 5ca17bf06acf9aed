"""Encoding of an ``Example`` as the tokens and pixels of a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from data import DataError, Example, ImageRef, VideoLimits, VideoRef
from data.example import Place, fill_template, split_at_media
from data.images import image_size
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.environments.call_formats import takes_tools
from mm_cpgd.environments.protocol import EnvironmentFactory, Message, template_tools
from mm_cpgd.errors import UserError
from mm_cpgd.policy.batch import Conversation, EncodedPrompt
from mm_cpgd.policy.families import control_texts, image_token_counts, prompt_positions
from mm_cpgd.policy.visual.videos import (
    PromptVideo,
    processor_options,
    prompt_videos,
    video_text,
    with_video_places,
)

# The families' names of the tensor that distinguishes image tokens from text.
TOKEN_TYPES = ("mm_token_type_ids", "token_type_ids")
# Of the environment that writes a prompt; that of each completion has a seed of its own, and the same prompt.
PROMPT_SEED = 0
# Outputs of the processor that positions are computed from, and that the model then does not need.
OF_POSITIONS = ("second_per_grid_ts",)


class PromptEncoder:
    """Applies the chat template, opens images and videos and tokenizes, one example at a time.

    Args:
        processor: the model's processor from transformers.
        model: needed for positions only; None if only lengths are requested.
        system_prompt: text of the system message; None leaves it to the chat template.
        system_turns: "row" uses an example's own system turn in its place, "config" leaves that out.
        template: prompt text with the placeholders ``{question}`` and ``{choices}``.
        video: which frames of a video the model sees, and how large; None: the defaults.

    Attributes:
        environment: makes the environment whose messages are the prompt; None: the example's question is.
    """

    def __init__(
        self,
        processor: Any,
        model: nn.Module | None = None,
        system_prompt: str | None = None,
        template: str = "{question}",
        *,
        system_turns: Literal["row", "config"] = "row",
        video: VideoLimits | None = None,
    ) -> None:
        self.processor = processor
        self.model = model
        self.system_prompt = system_prompt
        self.template = template
        self.system_turns = system_turns
        self.video = video or VideoLimits()
        self.control_texts = sorted(control_texts(processor))
        self.environment: EnvironmentFactory | None = None
        self._written: tuple[tuple[object, ...], Conversation] | None = None

    @classmethod
    def of(cls, config: PolicyConfig, processor: Any, model: nn.Module | None = None) -> PromptEncoder:
        """Return the encoder of a config's prompts."""
        return cls(
            processor,
            model,
            config.system_prompt,
            config.prompt_template,
            system_turns=config.system_turns,
            video=VideoLimits(**config.video.model_dump()),
        )

    def encode(self, example: Example, beginning: str = "") -> EncodedPrompt:
        """Open the images and return the prompt's tensors; nothing is ever truncated.

        Args:
            example: the row.
            beginning: beginning of the response, which the model is to continue.

        Raises:
            DataError: a marker without an image, control tokens in the text, or an unreadable image.
            ValueError: the processor rejects an image.
            UserError: an environment leaves its tools to a chat template that has no place for them.
        """
        return self.prompt(self.inputs(example, beginning), example, beginning)

    def without_model(self) -> PromptEncoder:
        """Return an encoder for ``inputs`` alone, which another process can be sent."""
        other = copy(self)
        other.model = other._written = None
        return other

    def inputs(self, example: Example, beginning: str = "") -> dict[str, Any]:
        """Open the images and return what the processor makes of the prompt: the slow part of ``encode``.

        Needs no model, so that another process can do it. Arguments and errors as in ``encode``.
        """
        conversation = self._conversation(example)
        images = [image.open() for image in conversation.images]
        videos = [video.frames() for video in conversation.videos]
        chat = with_video_places(self.processor, self._chat(conversation) + beginning)
        special = self._needs_special_tokens(chat)
        return dict(
            self.processor(
                text=[chat],
                images=images or None,
                add_special_tokens=special,
                return_tensors="pt",
                **processor_options(self.processor, videos),
            )
        )

    def prompt(self, inputs: Mapping[str, Any], example: Example, beginning: str = "") -> EncodedPrompt:
        """Return the prompt's tensors from the ``inputs`` of the same example; opens no image."""
        ids = inputs["input_ids"][0]
        types_name = next((name for name in TOKEN_TYPES if name in inputs), TOKEN_TYPES[0])
        types = inputs[types_name][0] if types_name in inputs else None
        aligned = {"input_ids", "attention_mask", types_name}
        vision = {name: value for name, value in inputs.items() if name not in aligned}
        if self.model is None:
            positions = torch.arange(ids.numel()).unsqueeze(0)
        else:
            positions = prompt_positions(self.model, ids, types, vision)
        vision = {name: value for name, value in vision.items() if name not in OF_POSITIONS}
        conversation = self._conversation(example)
        if beginning:
            turn = {"role": "assistant", "content": [{"type": "text", "text": beginning}]}
            conversation.messages.append(turn)
        return EncodedPrompt(ids, positions, types, vision, types_name, conversation=conversation)

    def chat(self, example: Example) -> str:
        """Return the prompt's text, as the chat template writes it; images are not opened.

        Raises:
            DataError: as ``encode``.
        """
        return self._chat(self._conversation(example))

    def length(self, example: Example) -> int:
        """Count the prompt's tokens, without decoding images if their sizes suffice, or videos.

        Raises:
            DataError, ValueError: as ``encode``.
        """
        conversation = self._conversation(example)
        sizes = [image_size(image)[::-1] for image in conversation.images]
        counts = image_token_counts(self.processor, sizes) if sizes else []
        if counts is None:
            return len(self.encode(example))
        chat = with_video_places(self.processor, self._chat(conversation))
        videos = conversation.videos
        if videos:  # the chat has one placeholder for each
            texts = [video_text(self.processor, video.choice(), video.patches) for video in videos]
            between = chat.split(self.processor.video_token)
            chat = "".join(part for pair in zip(between, [*texts, ""], strict=True) for part in pair)
        special = self._needs_special_tokens(chat)
        text = self.processor.tokenizer(chat, add_special_tokens=special)["input_ids"]
        # Each image is one placeholder token in the text, and ``counts`` tokens in the prompt.
        return len(text) + sum(counts) - len(sizes)

    def conversation_of(self, messages: Sequence[Message]) -> Conversation:
        """Return an environment's messages as chat templates take them.

        ``system_prompt`` comes first unless they have a system message.

        Raises:
            DataError: control tokens in the text, or a video for a model that reads none.
        """
        turns = list(messages)
        if self.system_prompt and all(turn.role != "system" for turn in turns):
            turns.insert(0, Message.of("system", self.system_prompt))
        self._check_texts([piece for turn in turns for piece in turn.content])
        rendered = [
            {
                "role": turn.role,
                "content": [
                    {"type": "text", "text": piece} if isinstance(piece, str) else {"type": _kind(piece)}
                    for piece in turn.content
                ],
            }
            for turn in turns
        ]
        videos = [video for turn in turns for video in turn.videos]
        return Conversation(
            rendered,
            tuple(image for turn in turns for image in turn.images),
            videos=prompt_videos(self.processor, self.video, videos),
        )

    def for_environment(self, example: Example) -> Example:
        """Return the example as an environment gets it: with its system turn or without."""
        return replace(example, system=None) if self.system_turns == "config" else example

    def _conversation(self, example: Example) -> Conversation:
        if self.environment is not None:
            return self._written_by(self.environment, example)
        pieces = self._pieces(example)
        images = tuple(example.images[index] for index in _indices(pieces, "image"))
        return Conversation(self._messages(pieces, example), images, videos=self._videos(pieces, example))

    def _written_by(self, factory: EnvironmentFactory, example: Example) -> Conversation:
        """Return an environment's prompt; the last example's is not written again."""
        key = (example, factory, self.system_prompt, self.system_turns)
        known = self._written
        if known is None or any(one is not other for one, other in zip(known[0], key, strict=True)):
            environment = factory(PROMPT_SEED)
            found = self.conversation_of(environment.reset(self.for_environment(example)))
            tools = tuple(template_tools(environment))
            if tools and not takes_tools(self._template_text()):
                raise UserError(
                    "the environment leaves the description of its tools to the model's chat template, which "
                    "has no place for tools; set describe: system in rollout.environment.options"
                )
            known = self._written = (key, replace(found, tools=tools))
        return replace(known[1], messages=list(known[1].messages))

    def _template_text(self) -> str:
        """Return the model's chat template; of several by name, all."""
        of_processor = getattr(self.processor, "chat_template", None)
        found = of_processor or getattr(self.processor.tokenizer, "chat_template", None) or ""
        return "\n".join(found.values()) if isinstance(found, dict) else str(found)

    def _pieces(self, example: Example) -> list[str | Place]:
        """Return texts and places of images and videos in the order in which the model reads them."""
        text = fill_template(self.template, example)
        pieces = split_at_media(text, len(example.images), len(example.videos))
        self._check_texts([*pieces, self._system(example)])
        return pieces

    def _check_texts(self, pieces: Iterable[object]) -> None:
        # As a control token, such a text would end the turn or refer to an image that does not exist.
        texts = [piece for piece in pieces if isinstance(piece, str)]
        for token in self.control_texts:
            if any(token in text for text in texts):
                raise DataError(f"the prompt's text contains the model's control token {token}")

    def _videos(self, pieces: list[str | Place], example: Example) -> tuple[PromptVideo, ...]:
        refs = [example.videos[index] for index in _indices(pieces, "video")]
        return prompt_videos(self.processor, self.video, refs)

    def _needs_special_tokens(self, chat: str) -> bool:
        # Most chat templates write the beginning-of-text token themselves; no model was trained with two.
        begin = self.processor.tokenizer.bos_token
        return not (begin and chat.startswith(begin))

    def _system(self, example: Example) -> str:
        own = example.system if self.system_turns == "row" else None
        return own or self.system_prompt or ""

    def _messages(self, pieces: list[str | Place], example: Example) -> list[dict[str, Any]]:
        content = [
            {"type": "text", "text": piece} if isinstance(piece, str) else {"type": piece.kind}
            for piece in pieces
        ]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if system := self._system(example):
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        return messages

    def _chat(self, conversation: Conversation) -> str:
        return self.processor.apply_chat_template(
            conversation.messages,
            tools=list(conversation.tools) or None,
            add_generation_prompt=True,
            tokenize=False,
        )


def _kind(piece: ImageRef | VideoRef) -> str:
    return "image" if isinstance(piece, ImageRef) else "video"


def _indices(pieces: list[str | Place], kind: Literal["image", "video"]) -> list[int]:
    """Return the indices of the images or videos in the order in which the model reads them."""
    return [piece.index for piece in pieces if isinstance(piece, Place) and piece.kind == kind]
