"""Features of prompts' images and videos; a frozen vision tower computes them once, and they are cached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from mm_cpgd.policy.batch import EncodedPrompt, HasImages, concatenate_vision
from mm_cpgd.policy.families import (
    image_features,
    vision_modules,
    vision_parameters,
    vision_token_ids,
)
from mm_cpgd.policy.sharding.tensors import is_sharded

# Most patches of one pass through a frozen tower; larger batches are no faster.
MAX_PATCHES = 16384
# The tower takes the patches of videos as it takes those of images.
PATCHES = ("pixel_values", "pixel_values_videos")
GRIDS = ("image_grid_thw", "video_grid_thw")
# Pixel values in the hash key of an image; images with the same key are then compared in full.
KEY_VALUES = 64


@dataclass
class _Images:
    """Vision tensors on another device."""

    vision: dict[str, Tensor]
    vision_features: tuple[object, Tensor] | None = None


class PatchProjection(nn.Conv3d):
    """Patch embedding as a matrix product: much faster than a convolution with one position per patch."""

    def forward(self, patches: Tensor) -> Tensor:
        """Project patches (M, C, T, P, P) to (M, H, 1, 1, 1)."""
        if patches.shape[2:] != self.kernel_size:
            return super().forward(patches)
        return linear(patches.flatten(1), self.weight.flatten(1), self.bias)[..., None, None, None]


def project_patches_as_matrices(model: Any) -> None:
    """Turn the vision tower's patch embedding into a ``PatchProjection``; names and weights do not change."""
    for tower in vision_modules(model):
        for module in tower.modules():
            if type(module) is nn.Conv3d and module.groups == 1 and not any(map(int, module.padding)):
                module.__class__ = PatchProjection


class VisionFeatureCache:
    """Features of a model's vision tower, cached in the prompts while the tower is frozen.

    Args:
        model: a model of a family that ``image_features`` supports.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.parameters = vision_parameters(model)

    @property
    def frozen(self) -> bool:
        """Whether the tower is frozen, so that features stay valid."""
        return not any(parameter.requires_grad for parameter in self.parameters)

    def features(self, prompts: Sequence[HasImages]) -> Tensor | None:
        """Return (1 + K, V, H) as ``image_features`` for the prompts' V vision tokens, in their order.

        None without images and videos.
        """
        seen = [prompt for prompt in prompts if prompt.vision]
        if not seen:
            return None
        device = self.parameters[0].device
        if self.frozen:
            self.encode(seen)
            parts = [
                prompt.vision_features[1].to(device, non_blocking=True)
                for prompt in seen
                if prompt.vision_features
            ]
        else:
            features = self._compute(device, seen)
            parts = list(features.split(_token_counts(features, seen), 1))
        return torch.cat([self._in_order(*pair) for pair in zip(seen, parts, strict=True)], 1)

    @property
    def runs_always(self) -> bool:
        """Whether the tower has to run in every forward pass: all processes gather its shards together."""
        return not self.frozen and any(is_sharded(parameter) for parameter in self.parameters)

    def blank_features(self) -> Tensor:
        """Return the features of a blank image of the smallest size, with the tower's gradient."""
        config = self.model.config.vision_config
        side = getattr(config, "spatial_merge_size", 2)
        channels = getattr(config, "in_channels", None) or getattr(config, "in_chans", 3)
        values = channels * config.temporal_patch_size * config.patch_size**2
        patches = torch.zeros(side * side, values, device=self.parameters[0].device)
        grid = torch.tensor([[1, side, side]], device=patches.device)
        return image_features(self.model, {"pixel_values": patches, "image_grid_thw": grid})

    @torch.no_grad()
    def encode(self, prompts: Sequence[HasImages]) -> None:
        """Run a frozen tower on images and videos, and store the features in each prompt that lacks them."""
        new = _group_by_vision(p for p in prompts if p.vision and not self._has_features(p))
        for batch in _batch_by_patches([same[0] for same in new]):
            features = self._compute(self.parameters[0].device, batch)
            sizes = _token_counts(features, batch)
            for prompt, own in zip(batch, features.split(sizes, 1), strict=True):
                # A copy: a view would keep the features of the whole batch in memory.
                prompt.vision_features = (self, own.to("cpu", copy=True))
        for first, *others in new:
            for prompt in others:
                prompt.vision_features = first.vision_features

    def _compute(self, device: torch.device, prompts: Sequence[HasImages]) -> Tensor:
        """Run the tower; of each prompt the features of all images precede those of all videos."""
        return image_features(self.model, _vision_on(device, [_all_as_images(p) for p in prompts]))

    def _in_order(self, prompt: HasImages, features: Tensor) -> Tensor:
        """Return the features in the order of the prompt's vision tokens."""
        if not isinstance(prompt, EncodedPrompt) or not all(name in prompt.vision for name in PATCHES):
            return features
        image, video = vision_token_ids(self.model.config)
        ids = prompt.input_ids
        is_video = ids[(ids == image) | (ids == video)] == video
        place = is_video.long().argsort(stable=True).argsort()
        return features[:, place.to(features.device)]

    def _has_features(self, prompt: HasImages) -> bool:
        return prompt.vision_features is not None and prompt.vision_features[0] is self


def _group_by_vision(prompts: Iterable[HasImages]) -> list[list[HasImages]]:
    """Group prompts with identical images and videos: several questions may be about one."""
    groups: dict[tuple[float | str, ...], list[list[HasImages]]] = {}
    for prompt in prompts:
        key: list[float] = []
        for name, pixels in prompt.vision.items():
            stride = 1 if name in GRIDS else max(1, pixels.numel() // KEY_VALUES)
            key += pixels.flatten()[::stride].tolist()
        candidates = groups.setdefault((*sorted(prompt.vision), *key), [])
        for group in candidates:
            other = group[0].vision
            if all(torch.equal(other[name], pixels) for name, pixels in prompt.vision.items()):
                group.append(prompt)
                break
        else:
            candidates.append([prompt])
    return [group for candidates in groups.values() for group in candidates]


def _batch_by_patches(prompts: Sequence[HasImages]) -> Iterator[list[HasImages]]:
    """Split prompts into batches of at most ``MAX_PATCHES`` patches, or of a single prompt."""
    batch: list[HasImages] = []
    patches = 0
    for prompt in prompts:
        own = sum(len(prompt.vision[name]) for name in PATCHES if name in prompt.vision)
        if batch and patches + own > MAX_PATCHES:
            yield batch
            batch, patches = [], 0
        batch.append(prompt)
        patches += own
    if batch:
        yield batch


def _all_as_images(prompt: HasImages) -> HasImages:
    """Return the prompt with its videos among the images, of which the tower's input does not differ."""
    if PATCHES[1] not in prompt.vision:
        return prompt
    joined = {names[0]: _joined(prompt.vision, names) for names in (PATCHES, GRIDS)}
    return _Images(joined)


def _joined(vision: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    return torch.cat([vision[name] for name in names if name in vision])


def _token_counts(features: Tensor, prompts: Sequence[HasImages]) -> list[int]:
    """Return how many of the features (1 + K, V, H) belong to each prompt."""
    counts = [int(_joined(prompt.vision, GRIDS).prod(1).sum()) for prompt in prompts]
    patches = sum(counts)
    return [features.shape[1] * count // patches for count in counts]


def _vision_on(device: torch.device, prompts: Sequence[HasImages]) -> dict[str, Tensor]:
    """Return ``concatenate_vision`` of the prompts, moved to the device first.

    A GPU fetches by itself what is in pinned memory, which a concatenation on the CPU is not any more.
    """

    def move(values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(device, non_blocking=True) for name, value in values.items()}

    return concatenate_vision([_Images(move(prompt.vision)) for prompt in prompts])
