"""What the vision tower makes of prompts' images; with a frozen tower it is asked once for each prompt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from mm_cpgd.policy.batch import EncodedPrompt, concatenate_vision
from mm_cpgd.policy.families import image_features, vision_modules

# Patches of one pass through a frozen tower; more at a time are no faster.
PATCHES = 16384
# Values of an image that are looked at before images are compared as a whole.
SAMPLES = 64


class PatchProjection(nn.Conv3d):
    """A convolution that each patch meets at one place only is a matrix product, and far faster as one."""

    def forward(self, patches: Tensor) -> Tensor:
        """Project patches (M, C, T, P, P) to (M, H, 1, 1, 1)."""
        if patches.shape[2:] != self.kernel_size:
            return super().forward(patches)
        return linear(patches.flatten(1), self.weight.flatten(1), self.bias)[..., None, None, None]


def project_patches_as_matrices(model: Any) -> None:
    """Let the vision tower's patch embedding be a ``PatchProjection``; names and weights stay as they are."""
    for tower in vision_modules(model):
        for module in tower.modules():
            if type(module) is nn.Conv3d and module.groups == 1 and not any(map(int, module.padding)):
                module.__class__ = PatchProjection


class Sight:
    """Asks the vision tower of a model.

    Args:
        model: of a family that ``image_features`` knows.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.parameters = [p for module in vision_modules(model) for p in module.parameters()]

    @property
    def frozen(self) -> bool:
        """Whether what was seen once stays true."""
        return not any(parameter.requires_grad for parameter in self.parameters)

    def of(self, prompts: Sequence[EncodedPrompt]) -> Tensor | None:
        """Return (1 + K, V, H) for the prompts' V image tokens, as ``image_features``; None for none."""
        seeing = [prompt for prompt in prompts if prompt.vision]
        if not seeing:
            return None
        device = self.parameters[0].device
        if not self.frozen:
            return image_features(self.model, _to(concatenate_vision(seeing), device))
        self.look(seeing)
        return torch.cat(
            [prompt.seen[1].to(device, non_blocking=True) for prompt in seeing if prompt.seen], 1
        )

    @torch.no_grad()
    def look(self, prompts: Sequence[EncodedPrompt]) -> None:
        """Note in each prompt what a frozen tower makes of its images, unless it is there already."""
        new = _by_images(p for p in prompts if p.vision and (p.seen is None or p.seen[0] is not self))
        for part in _by_patches([alike[0] for alike in new]):
            found = image_features(self.model, _to(concatenate_vision(part), self.parameters[0].device))
            share = [int(p.vision["image_grid_thw"].prod(1).sum()) for p in part]
            patches = sum(share)
            sizes = [found.shape[1] * own // patches for own in share]
            for prompt, own in zip(part, found.split(sizes, 1), strict=True):
                # A copy of its own: a view would keep the whole batch in memory.
                prompt.seen = (self, own.to("cpu", copy=True))
        for first, *others in new:
            for prompt in others:
                prompt.seen = first.seen


def _by_images(prompts: Iterable[EncodedPrompt]) -> list[list[EncodedPrompt]]:
    """Put prompts together whose images are the same: several questions may be asked about one."""
    found: dict[tuple[float, ...], list[list[EncodedPrompt]]] = {}
    for prompt in prompts:
        pixels, grids = prompt.vision["pixel_values"], prompt.vision["image_grid_thw"]
        some = pixels.flatten()[:: max(1, pixels.numel() // SAMPLES)]
        candidates = found.setdefault((*grids.flatten().tolist(), *some.tolist()), [])
        for alike in candidates:
            if torch.equal(alike[0].vision["pixel_values"], pixels):
                alike.append(prompt)
                break
        else:
            candidates.append([prompt])
    return [alike for candidates in found.values() for alike in candidates]


def _by_patches(prompts: Sequence[EncodedPrompt]) -> Iterator[list[EncodedPrompt]]:
    part: list[EncodedPrompt] = []
    patches = 0
    for prompt in prompts:
        own = prompt.vision["pixel_values"].shape[0]
        if part and patches + own > PATCHES:
            yield part
            part, patches = [], 0
        part.append(prompt)
        patches += own
    if part:
        yield part


def _to(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}
