"""From an Example to the tokens and pixels that the model is asked with."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from data import Example, image_size, split_at_images
from mm_cpgd.policy.batch import EncodedPrompt
from mm_cpgd.policy.families import prompt_positions

TOKEN_ALIGNED = ("input_ids", "attention_mask", "mm_token_type_ids")


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

    def encode(self, example: Example) -> EncodedPrompt:
        """Open the images and return the prompt's tensors."""
        pieces = self._pieces(example)
        images = [example.images[piece].open() for piece in pieces if isinstance(piece, int)]
        inputs = self.processor(text=[self._chat(pieces)], images=images or None, return_tensors="pt")
        ids = inputs["input_ids"][0]
        types = inputs["mm_token_type_ids"][0] if "mm_token_type_ids" in inputs else None
        vision = {name: value for name, value in inputs.items() if name not in TOKEN_ALIGNED}
        if self.model is None:
            positions = torch.arange(ids.numel()).unsqueeze(0)
        else:
            positions = prompt_positions(self.model, ids, types, vision)
        return EncodedPrompt(ids, positions, types, vision)

    def length(self, example: Example) -> int:
        """Count the prompt's tokens, without decoding images where their sizes tell enough."""
        pieces = self._pieces(example)
        order = [piece for piece in pieces if isinstance(piece, int)]
        if order and not hasattr(self.processor, "_get_num_multimodal_tokens"):
            return len(self.encode(example))
        text_tokens = len(self.processor.tokenizer(self._chat(pieces))["input_ids"])
        if not order:
            return text_tokens
        sizes = [image_size(example.images[index])[::-1] for index in order]
        counted = self.processor._get_num_multimodal_tokens(image_sizes=sizes)
        # Each image is one placeholder token in the text and this many in the prompt.
        return text_tokens + sum(counted["num_image_tokens"]) - len(order)

    def _pieces(self, example: Example) -> list[str | int]:
        """Return texts and image indices in the order in which the model reads them."""
        return split_at_images(fill_template(self.template, example), len(example.images))

    def _chat(self, pieces: list[str | int]) -> str:
        content = [
            {"type": "image"} if isinstance(piece, int) else {"type": "text", "text": piece}
            for piece in pieces
        ]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if self.system_prompt:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": self.system_prompt}]})
        return self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


def fill_template(template: str, example: Example) -> str:
    """Put question and choices into the prompt template; choices as ``(A) …`` lines."""
    choices = "\n".join(f"({chr(ord('A') + index)}) {text}" for index, text in enumerate(example.choices))
    # The question last: what it says is never read as a part of the template.
    return template.replace("{choices}", choices).replace("{question}", example.question).strip()
