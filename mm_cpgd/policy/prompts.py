"""From an Example to the tokens and pixels that the model is asked with."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from data import DataError, Example, image_size, split_at_images
from mm_cpgd.policy.batch import Conversation, EncodedPrompt
from mm_cpgd.policy.families import control_texts, image_token_counts, prompt_positions

# What the families call the tensor that tells image tokens from text.
TOKEN_TYPES = ("mm_token_type_ids", "token_type_ids")


class PromptEncoder:
    """Writes the chat, opens the images and tokenizes, one example at a time.

    Args:
        processor: the model's processor from transformers.
        model: needed for positions only; None when only lengths are asked for.
        system_prompt: put before the question, or None for what the chat template does by itself.
        template: ``{question}`` and ``{choices}`` are filled in.
    """

    def __init__(
        self,
        processor: Any,
        model: nn.Module | None = None,
        system_prompt: str | None = None,
        template: str = "{question}",
    ) -> None:
        self.processor = processor
        self.model = model
        self.system_prompt = system_prompt
        self.template = template
        self.control_texts = sorted(control_texts(processor))

    def encode(self, example: Example) -> EncodedPrompt:
        """Open the images and return the prompt's tensors; nothing is ever cut.

        Raises:
            DataError: a marker without an image, control tokens in the text, or an image that does not open.
            ValueError: the processor refuses an image.
        """
        pieces = self._pieces(example)
        refs = tuple(example.images[piece] for piece in pieces if isinstance(piece, int))
        images = [ref.open() for ref in refs]
        chat = self._chat(pieces)
        special = self._wants_special_tokens(chat)
        inputs = self.processor(
            text=[chat], images=images or None, add_special_tokens=special, return_tensors="pt"
        )
        ids = inputs["input_ids"][0]
        types_name = next((name for name in TOKEN_TYPES if name in inputs), TOKEN_TYPES[0])
        types = inputs[types_name][0] if types_name in inputs else None
        aligned = {"input_ids", "attention_mask", types_name}
        vision = {name: value for name, value in inputs.items() if name not in aligned}
        if self.model is None:
            positions = torch.arange(ids.numel()).unsqueeze(0)
        else:
            positions = prompt_positions(self.model, ids, types, vision)
        conversation = Conversation(self._messages(pieces), refs)
        return EncodedPrompt(ids, positions, types, vision, types_name, conversation=conversation)

    def length(self, example: Example) -> int:
        """Count the prompt's tokens, without decoding images where their sizes tell enough.

        Raises:
            DataError, ValueError: as ``encode``.
        """
        pieces = self._pieces(example)
        order = [piece for piece in pieces if isinstance(piece, int)]
        sizes = [image_size(example.images[index])[::-1] for index in order]
        counts = image_token_counts(self.processor, sizes) if sizes else []
        if counts is None:
            return len(self.encode(example))
        chat = self._chat(pieces)
        special = self._wants_special_tokens(chat)
        text = self.processor.tokenizer(chat, add_special_tokens=special)["input_ids"]
        # Each image is one placeholder token in the text and this many in the prompt.
        return len(text) + sum(counts) - len(order)

    def _pieces(self, example: Example) -> list[str | int]:
        """Return texts and image indices in the order in which the model reads them."""
        pieces = split_at_images(fill_template(self.template, example), len(example.images))
        # Read as markup, such a text would end the turn, or claim an image that is not there.
        for token in self.control_texts:
            if any(isinstance(piece, str) and token in piece for piece in pieces):
                raise DataError(f"the prompt's text contains the model's control token {token}")
        return pieces

    def _wants_special_tokens(self, chat: str) -> bool:
        # Most chat templates write the beginning-of-text token themselves; two of them no model has seen.
        begin = self.processor.tokenizer.bos_token
        return not (begin and chat.startswith(begin))

    def _messages(self, pieces: list[str | int]) -> list[dict[str, Any]]:
        content = [
            {"type": "image"} if isinstance(piece, int) else {"type": "text", "text": piece}
            for piece in pieces
        ]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if self.system_prompt:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": self.system_prompt}]})
        return messages

    def _chat(self, pieces: list[str | int]) -> str:
        return self.processor.apply_chat_template(
            self._messages(pieces), add_generation_prompt=True, tokenize=False
        )


def fill_template(template: str, example: Example) -> str:
    """Put question and choices into the prompt template; choices as ``(A) …`` lines.

    A template without ``{choices}`` gets them behind the question: without them it could not be answered.
    """
    if example.choices and "{choices}" not in template:
        template = template.replace("{question}", "{question}\n{choices}")
    choices = "\n".join(f"({chr(ord('A') + index)}) {text}" for index, text in enumerate(example.choices))
    values = {"{question}": example.question, "{choices}": choices}
    # In one pass: what the values say is never read as a part of the template.
    return re.sub(r"\{question\}|\{choices\}", lambda place: values[place[0]], template).strip()
