"""Prompts and completions as padded tensors, the model's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from data import ImageRef
from mm_cpgd.policy.visual.videos import PromptVideo

# MiniCPM-V: the patches of all images in one row (1, channels, patch, patches), beside the images' sizes.
PACKED, SIZES = "pixel_values", "target_sizes"


@dataclass(frozen=True)
class Conversation:
    """A prompt before tokenization, for engines that apply the chat template themselves.

    Attributes:
        messages: in the format of chat templates, with ``{"type": "image"}`` in place of each image and
            ``{"type": "video"}`` in place of each video.
        images: in the same order; opened only when needed.
        videos: likewise.
        tools: JSON schemas of tools that the template itself describes; usually none.
    """

    messages: list[dict[str, Any]]
    images: tuple[ImageRef, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    videos: tuple[PromptVideo, ...] = ()


class HasImages(Protocol):
    """A prompt, or a part of a conversation, with the tensors of its images.

    Attributes:
        vision: see ``EncodedPrompt``.
        vision_features: likewise.
    """

    vision: dict[str, Tensor]
    vision_features: tuple[object, Tensor] | None


@dataclass
class EncodedPrompt:
    """One encoded prompt of L tokens.

    Attributes:
        input_ids: (L,).
        positions: (axes, L); 3 axes for the Qwen family, else 1.
        token_types: (L,) 0 text, 1 image, 2 video; None where the family has none.
        vision: tensors of its images (``pixel_values`` …) and videos (``pixel_values_videos`` …), see
            ``concatenate_vision``.
        types_name: the model's argument name for the token types.
        vision_features: the cache that computed them, and the features of its images and videos from its
            frozen vision tower; never stored in a checkpoint.
        conversation: the prompt before tokenization, if kept.
    """

    input_ids: Tensor
    positions: Tensor
    token_types: Tensor | None = None
    vision: dict[str, Tensor] = field(default_factory=dict)
    types_name: str = "mm_token_type_ids"
    vision_features: tuple[object, Tensor] | None = None
    conversation: Conversation | None = None

    def __len__(self) -> int:
        return self.input_ids.numel()

    @property
    def next_position(self) -> int:
        """Position of the first completion token."""
        return int(self.positions.max()) + 1


def collate_prompts(prompts: Sequence[EncodedPrompt], pad_id: int) -> dict[str, Tensor]:
    """Pad prompts on the left, so that all completions start at the same column.

    Returns:
        ``input_ids``, ``attention_mask`` and, if the family has them, token types (P, L);
        ``position_ids`` (axes, P, L) or (P, L); vision tensors concatenated.
    """
    width = max(map(len, prompts))
    return _collate(prompts, [None] * len(prompts), width, pad_id, left=True)


def collate_rows(
    prompts: Sequence[EncodedPrompt], completions: Sequence[Tensor], pad_id: int
) -> dict[str, Tensor]:
    """Append each completion (T_i,) to its prompt and pad on the right; keys as in ``collate_prompts``."""
    width = max(len(p) + c.numel() for p, c in zip(prompts, completions, strict=True))
    return _collate(prompts, completions, width, pad_id, left=False)


def _collate(
    prompts: Sequence[EncodedPrompt],
    completions: Sequence[Tensor | None],
    width: int,
    pad_id: int,
    *,
    left: bool,
) -> dict[str, Tensor]:
    n, axes = len(prompts), prompts[0].positions.shape[0]
    ids = torch.full((n, width), pad_id)
    mask = torch.zeros(n, width, dtype=torch.long)
    types = torch.zeros(n, width, dtype=torch.long)
    positions = torch.zeros(axes, n, width, dtype=torch.long)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        tail = completion.numel() if completion is not None else 0
        start = width - len(prompt) if left else 0
        middle, end = start + len(prompt), start + len(prompt) + tail
        ids[row, start:middle] = prompt.input_ids
        positions[:, row, start:middle] = prompt.positions
        mask[row, start:end] = 1
        if prompt.token_types is not None:
            types[row, start:middle] = prompt.token_types
        if completion is not None:
            ids[row, middle:end] = completion
            positions[:, row, middle:end] = prompt.next_position + torch.arange(tail)
    batch = {"input_ids": ids, "attention_mask": mask}
    batch["position_ids"] = positions if axes > 1 else positions[0]
    if any(prompt.token_types is not None for prompt in prompts):
        batch[prompts[0].types_name] = types
    return batch | concatenate_vision(prompts)


def concatenate_vision(prompts: Sequence[HasImages]) -> dict[str, Tensor]:
    """Concatenate the vision tensors of prompts or observations, as a processor does that of several images.

    Along the first axis; where other axes differ, as with the number of tiles of an image, smaller tensors
    are filled up with zeros. Pixels that one row holds of all images are concatenated along the last axis.
    """
    names = {name: None for prompt in prompts for name in prompt.vision}  # distinct, in order
    return {
        name: _concatenate(
            [p.vision[name] for p in prompts if name in p.vision], packed=name == PACKED and SIZES in names
        )
        for name in names
    }


def _concatenate(values: Sequence[Tensor], *, packed: bool) -> Tensor:
    if packed:
        return torch.cat(list(values), -1)
    if len({value.shape[1:] for value in values}) > 1:
        sizes = [max(axis) for axis in zip(*(value.shape[1:] for value in values), strict=True)]
        values = [_fill_up(value, sizes) for value in values]
    return torch.cat(list(values))


def _fill_up(value: Tensor, sizes: Sequence[int]) -> Tensor:
    """Append zeros to the axes after the first, up to these sizes."""
    missing = [wanted - size for wanted, size in zip(sizes, value.shape[1:], strict=True)]
    return pad(value, [amount for axis in reversed(missing) for amount in (0, axis)])
