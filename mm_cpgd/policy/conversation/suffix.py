"""Suffix of a prompt in a conversation of several turns: the policy's turns, and observations between them.

The completion of one turn is sampled tokens alone, of which only their ids and number matter. In a
conversation the tokens after the prompt are the policy's own and those of observations, which have images and
therefore positions of their own. The last token of a suffix is always the policy's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from data import ImageRef
from mm_cpgd.policy.batch import EncodedPrompt, HasImages, concatenate_vision
from mm_cpgd.policy.families import prompt_positions


@dataclass
class EncodedObservation:
    """What the policy reads between two of its turns, K tokens.

    Attributes:
        input_ids: (K,), from the end of the policy's turn to the beginning of its next one.
        token_types: (K,) 0 text, 1 image, 2 video; None where the family has none.
        vision: tensors of its images, as in ``EncodedPrompt``.
        vision_features: as in ``EncodedPrompt``.
        images: the images themselves, for engines that encode them.
    """

    input_ids: Tensor
    token_types: Tensor | None = None
    vision: dict[str, Tensor] = field(default_factory=dict)
    vision_features: tuple[object, Tensor] | None = None
    images: tuple[ImageRef, ...] = ()

    def __len__(self) -> int:
        return self.input_ids.numel()


@dataclass
class Suffix:
    """What a suffix of T tokens, some of them observed, has beside its tokens and its completion mask.

    Attributes:
        positions: (axes, T), as the tokens have them after their prompt.
        token_types: (T,) or None, as in ``EncodedPrompt``.
        vision: tensors of the images of all observations, in order.
        vision_features: as in ``EncodedPrompt``; never stored in a checkpoint.
    """

    positions: Tensor
    token_types: Tensor | None = None
    vision: dict[str, Tensor] = field(default_factory=dict)
    vision_features: tuple[object, Tensor] | None = None

    def state(self) -> dict[str, Any]:
        """Return the content for a checkpoint."""
        return {name: value for name, value in vars(self).items() if name != "vision_features"}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Suffix:
        """Rebuild the suffix that ``state`` describes."""
        return cls(**state)


@dataclass
class ContinuedPrompt(EncodedPrompt):
    """Prompt and suffix as one prompt, which knows the prompt that others begin with, too.

    Attributes:
        prompt: the prompt alone.
        tokens: (T,) of the suffix.
        suffix: of these tokens.
        images: of its observations, for engines that encode them.
    """

    prompt: EncodedPrompt = field(kw_only=True)
    tokens: Tensor = field(kw_only=True)
    suffix: Suffix = field(kw_only=True)
    images: tuple[ImageRef, ...] = field(default=(), kw_only=True)


Part = Tensor | EncodedObservation
"""Piece of a suffix: the tokens (k,) of a turn, or an observation."""


def join_parts(parts: Sequence[Part]) -> tuple[Tensor, Tensor]:
    """Return the tokens (T,) of these turns and observations, and which of them are the policy's own (T,)."""
    ids = [part.input_ids if isinstance(part, EncodedObservation) else part for part in parts]
    own = [torch.full((len(part),), not isinstance(part, EncodedObservation)) for part in parts]
    return torch.cat(ids), torch.cat(own)


def suffix_of(model: nn.Module, prompt: EncodedPrompt, parts: Sequence[Part]) -> Suffix:
    """Return positions, token types and images of the suffix that these parts form after the prompt.

    Args:
        model: computes positions by its own rule.
        prompt: the prompt.
        parts: turns and observations in order.
    """
    tokens, _ = join_parts(parts)
    observations = [part for part in parts if isinstance(part, EncodedObservation)]
    types = None
    if prompt.token_types is not None:
        types = torch.cat([_types(part, prompt.token_types) for part in parts])
    pictures = [one for one in observations if one.vision]
    vision = concatenate_vision(pictures)
    # A suffix begins with text, which goes on where the prompt has ended on all axes.
    positions = prompt_positions(model, tokens, types, vision) + prompt.next_position
    return Suffix(positions, types, vision, _join_features(pictures))


def extend(prompt: EncodedPrompt, tokens: Tensor, suffix: Suffix) -> ContinuedPrompt:
    """Return prompt and suffix as one prompt, which the policy can continue.

    Args:
        prompt: L tokens.
        tokens: (T,) of the suffix.
        suffix: of these tokens.

    Returns:
        A prompt of L + T tokens, with the image features if those of all its images are known.
    """
    types = None
    if prompt.token_types is not None and suffix.token_types is not None:
        types = torch.cat([prompt.token_types, suffix.token_types])
    with_images = [one for one in (prompt, suffix) if one.vision]
    return ContinuedPrompt(
        torch.cat([prompt.input_ids, tokens]),
        torch.cat([prompt.positions, suffix.positions], 1),
        types,
        concatenate_vision(with_images),
        prompt.types_name,
        vision_features=_join_features(with_images),
        prompt=prompt,
        tokens=tokens,
        suffix=suffix,
    )


def extend_rows(
    prompts: Sequence[EncodedPrompt], completions: Sequence[Tensor], suffixes: Sequence[Suffix | None]
) -> tuple[list[EncodedPrompt], list[Tensor]]:
    """Return rows in which completions with observations are part of the prompt, and the others beside it.

    Args:
        prompts: n prompts.
        completions: of each the tokens (T_i,) after it.
        suffixes: of each completion with observations.
    """
    rows = list(zip(prompts, completions, suffixes, strict=True))
    extended = [one if suffix is None else extend(one, tokens, suffix) for one, tokens, suffix in rows]
    rest = [tokens if suffix is None else tokens[:0] for _, tokens, suffix in rows]
    return extended, rest


def suffix_lengths(mask: Tensor) -> Tensor:
    """Return the tokens (n,) of each suffix from the completion mask (n, T): up to the last own token.

    Without observations that is the number of own tokens.
    """
    after = mask.flip(1).int().cumsum(1).flip(1) > 0
    return after.sum(1)


def _types(part: Part, like: Tensor) -> Tensor:
    if isinstance(part, EncodedObservation) and part.token_types is not None:
        return part.token_types
    return like.new_zeros(len(part))


def _join_features(
    parts: Sequence[HasImages],
) -> tuple[object, Tensor] | None:
    """Return the image features of several parts, if one cache has computed all of them."""
    if any("pixel_values_videos" in part.vision for part in parts):
        return None  # of a prompt with both, the features of images precede those of videos
    known = [part.vision_features for part in parts if part.vision_features is not None]
    if not known or len(known) < len(parts) or len({id(cache) for cache, _ in known}) > 1:
        return None
    return known[0][0], torch.cat([features for _, features in known], 1)
