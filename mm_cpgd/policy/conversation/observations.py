"""Encoding of what a policy reads between two of its turns, by the model's own chat template.

What was sampled is never decoded and encoded again: the text of an observation is the difference that its
messages make to a rendered conversation, from the end of a turn that stands in for the policy's to the
beginning of its next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from data import ImageRef
from mm_cpgd.environments.protocol import Message
from mm_cpgd.errors import UserError
from mm_cpgd.policy.conversation.suffix import EncodedObservation
from mm_cpgd.policy.families import SHARED_PREFIX
from mm_cpgd.policy.prompts import TOKEN_TYPES, PromptEncoder

# Families whose positions, image tokens and turns are known to continue in the middle of a conversation.
CONVERSATIONS = SHARED_PREFIX
# Stands in for the policy's turn: no template, tool or user writes this.
TURN = "\u2e28turn of the policy\u2e29"
QUESTION = {"role": "user", "content": [{"type": "text", "text": "?"}]}


class ObservationEncoder:
    """Encodes observations as the tokens that continue a conversation.

    Args:
        encoder: of the same model's prompts.
        end_ids: tokens that end a turn of the policy.

    Raises:
        UserError: the model's family or its chat template cannot continue a conversation.
    """

    def __init__(self, encoder: PromptEncoder, end_ids: Sequence[int]) -> None:
        self.encoder = encoder
        self.end_ids = frozenset(end_ids)
        self._check()

    def encode(self, messages: Sequence[Message], last: int) -> EncodedObservation:
        """Open the images and return the tokens between two turns of the policy.

        Args:
            messages: what the policy reads; control tokens in their text are taken apart.
            last: last token of the turn before; if it is the one with which the template ends a turn, it is
                not written again.

        Raises:
            DataError: an image cannot be read.
            ValueError: the processor rejects an image.
        """
        images = [image for message in messages for image in message.images]
        processor = self.encoder.processor
        inputs = processor(
            text=[self._text([self._rendered(message) for message in messages])],
            images=[image.open() for image in images] or None,
            add_special_tokens=False,
            return_tensors="pt",
        )
        return self._observation(dict(inputs), tuple(images), last)

    def harmless(self, text: str) -> str:
        """Return a text of which nothing is read as a control token: tools repeat what a policy wrote."""
        for token in self.encoder.control_texts:
            text = text.replace(token, f"{token[:1]} {token[1:]}")
        return text

    def _observation(
        self, inputs: Mapping[str, Any], images: tuple[ImageRef, ...], last: int
    ) -> EncodedObservation:
        ids: Tensor = inputs["input_ids"][0]
        types_name = next((name for name in TOKEN_TYPES if name in inputs), None)
        types: Tensor | None = None if types_name is None else inputs[types_name][0]
        # Another token that ends a turn does not stand in the template: its own follows then.
        start = int(last == int(ids[0]))
        aligned = {"input_ids", "attention_mask", types_name}
        vision = {name: value for name, value in inputs.items() if name not in aligned}
        return EncodedObservation(
            ids[start:], None if types is None else types[start:], vision, images=images
        )

    def _rendered(self, message: Message) -> dict[str, Any]:
        """Return a message in the format of chat templates."""
        content = [
            {"type": "text", "text": self.harmless(piece)} if isinstance(piece, str) else {"type": "image"}
            for piece in message.content
        ]
        return {"role": message.role, "content": content}

    def _text(self, messages: Sequence[dict[str, Any]]) -> str:
        """Return what the template writes after the policy's turn, if these messages follow it."""
        turn = {"role": "assistant", "content": [{"type": "text", "text": TURN}]}
        chat: str = self.encoder.processor.apply_chat_template(
            [QUESTION, turn, *messages], add_generation_prompt=True, tokenize=False
        )
        return chat.rpartition(TURN)[2]

    def _check(self) -> None:
        """Raise unless family and template continue a conversation behind a turn that they leave as it is."""
        kind = getattr(getattr(self.encoder.model, "config", None), "model_type", "")
        if kind not in CONVERSATIONS:
            raise _refusal(f"a {kind!r} model cannot continue a conversation after an observation")
        processor = self.encoder.processor
        turn = {"role": "assistant", "content": [{"type": "text", "text": TURN}]}
        chat = processor.apply_chat_template([QUESTION, turn, QUESTION], tokenize=False)
        ids = processor.tokenizer(chat.rpartition(TURN)[2], add_special_tokens=False)["input_ids"]
        if chat.count(TURN) != 1 or not ids or ids[0] not in self.end_ids:
            raise _refusal(
                "the model's chat template does not keep an earlier turn of the policy and end it with one "
                "of its end tokens"
            )


def _refusal(reason: str) -> UserError:
    return UserError(
        f"rollout.environment: {reason}; conversations of several turns are supported for "
        f"{', '.join(CONVERSATIONS)} with their chat templates (docs/training.md)"
    )
