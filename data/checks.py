"""Checks of a single example; each returns why the row is unusable, in one readable line, or None."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from data.example import DataError, Example, split_at_media
from data.images import image_size
from data.videos.sampling import VideoLimits, choose, read_frames

# In a prompt the tokenizer would turn these into control tokens (an end of turn, an image pad, …).
CONTROL_TOKENS = (
    "<|image_pad|>",
    "<|video_pad|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
)
ImageCheck = Literal["decode", "header"]


def check_example(
    example: Example,
    *,
    check_images: ImageCheck | None = "decode",
    control_tokens: Sequence[str] = CONTROL_TOKENS,
    video: VideoLimits | None = None,
) -> str | None:
    """Return why the example cannot be used, or None.

    Args:
        example: checked on its own; duplicate ids are found by ``load_examples``.
        check_images: ``"decode"`` every image, read only its ``"header"``, or (None) leave images unopened.
        control_tokens: strings that must not occur in any of the example's texts.
        video: limits of videos, as for ``check_all_media``.
    """
    reason = check_text(example, control_tokens=control_tokens)
    if reason is None and check_images is not None:
        reason = check_all_media(example, check_images, video)
    return reason


def check_text(example: Example, *, control_tokens: Sequence[str] = CONTROL_TOKENS) -> str | None:
    """Return the first problem of the texts and their markers, or None."""
    if not example.question.strip():
        return "empty question"
    if not example.answer.strip():
        return "empty answer"
    texts = (
        example.question,
        example.answer,
        example.solution or "",
        example.system or "",
        *example.choices,
    )
    if any(_has_surrogate(text) for text in (example.id, *texts)):
        return "the text contains half a surrogate pair, which is no character; fix the text's encoding"
    token = next((token for token in control_tokens if any(token in text for text in texts)), None)
    if token is not None:
        return f"the text contains the model's control token {token}"
    try:
        text = "\n".join((example.question, *example.choices))
        split_at_media(text, len(example.images), len(example.videos))
    except DataError as error:
        return str(error)
    return None


def _has_surrogate(text: str) -> bool:
    """Return whether the text cannot be encoded, as tokenizers have to."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def check_all_media(example: Example, how: ImageCheck, video: VideoLimits | None = None) -> str | None:
    """Return the problem of the first unusable image or video, or None.

    Args:
        example: the row.
        how: ``"header"`` reads the times of a video's frames and decodes one of them, ``"decode"`` those that
            the limits choose.
        video: limits of videos; None: the defaults.
    """
    try:
        for image in example.images:
            if how == "header":
                image_size(image)
            else:
                image.open()
        for ref in example.videos:
            choice = choose(ref.timeline(), video or VideoLimits(), videos=len(example.videos))
            if how == "decode":
                read_frames(ref, choice)
    except DataError as error:
        return str(error)
    return None
