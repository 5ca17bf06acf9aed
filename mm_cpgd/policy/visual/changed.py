"""Prompts behind another picture: patches blackened, blank, shuffled or noised, with as many visual tokens.

The tensors that the processor made of a prompt's images and videos are changed, not the files: the prompt
keeps its tokens, positions and grid, so that log-probabilities behind both pictures are of the same sequence.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from mm_cpgd.errors import UserError
from mm_cpgd.policy.batch import EncodedPrompt

How = Literal["mask", "blank", "shuffle", "noise"]
PIXELS = ("pixel_values", "pixel_values_videos")
GRIDS = {"pixel_values": "image_grid_thw", "pixel_values_videos": "video_grid_thw"}
# Steps of the diffusion whose noise is added, and the ends of its schedule (NoisyRollout's code).
NOISE_STEPS = 1000
LARGEST_BETA, SMALLEST_BETA = 0.5e-2, 1e-5
PATCH = 14


class UnknownPixels(UserError):
    """A processor's pixels, in a layout whose patches are not known."""


@dataclass(frozen=True)
class PictureChange:
    """What is done to the pictures of a prompt.

    Attributes:
        how: *mask* blackens each patch with probability ``share``; *blank* is the processor's mean colour
            everywhere; *shuffle* permutes the patches of each image; *noise* adds Gaussian noise.
        share: of the patches, for *mask*; PAPO takes 0.6, VPPO 0.5.
        steps: of 1000 diffusion steps, for *noise*; 0 leaves the picture as it is.
    """

    how: How = "mask"
    share: float = 0.6
    steps: int = 500


@dataclass(frozen=True)
class PixelScale:
    """How a processor turns pixels from 0 to 1 into its tensors, (pixel − mean) / std by channel.

    Attributes:
        mean: (C,), std: (C,), for each channel.
        patch: side of a patch in pixels, for tensors that hold whole images.
    """

    mean: Tensor
    std: Tensor
    patch: int = PATCH

    @classmethod
    def of(cls, processor: Any, model: Any = None) -> PixelScale:
        """Read the scale from a processor, and the side of a patch from its model's config."""
        images = processor.image_processor
        patch = getattr(images, "patch_size", None)
        if patch is None and model is not None:
            patch = getattr(getattr(model.config, "vision_config", None), "patch_size", None)
        side = patch if isinstance(patch, int) else PATCH
        if not getattr(images, "do_normalize", True) or getattr(images, "image_mean", None) is None:
            return cls(torch.zeros(3), torch.ones(3), side)
        return cls(torch.tensor(images.image_mean).float(), torch.tensor(images.image_std).float(), side)


def changed_prompts(
    prompts: Sequence[EncodedPrompt], change: PictureChange, scale: PixelScale, seeds: Sequence[str]
) -> list[EncodedPrompt]:
    """Return the prompts behind changed pictures, each drawn by its own seed; those without stay the same."""
    return [changed_prompt(one, change, scale, seed) for one, seed in zip(prompts, seeds, strict=True)]


def changed_prompt(
    prompt: EncodedPrompt, change: PictureChange, scale: PixelScale, seed: str
) -> EncodedPrompt:
    """Return the prompt behind its changed pictures; the same object if it has none.

    Args:
        prompt: tokens and pixels; stays as it is.
        change: what to do.
        scale: of the processor.
        seed: of the draws; the result depends on nothing else.

    Raises:
        UnknownPixels: pixels in a layout that is not known.
    """
    names = [name for name in PIXELS if name in prompt.vision]
    if not names:
        return prompt
    generator = torch.Generator().manual_seed(random.Random(seed).getrandbits(62))
    vision = dict(prompt.vision)
    for name in names:
        pixels = vision[name]
        layout = _layout(pixels, vision.get(GRIDS[name]), scale)
        vision[name] = _CHANGES[change.how](pixels, layout, change, scale, generator)
    return replace(prompt, vision=vision, vision_features=None, conversation=None)


@dataclass(frozen=True)
class _Layout:
    """Where a tensor of pixels has its channels and patches.

    Attributes:
        channel: the axis of channels, once the last axis of packed patches is divided.
        cells: shape of the patches' grid, as the leading or the last two axes.
        images: patches of each image, where they are rows.
        patch: side of a patch; 0 where patches are rows.
    """

    channel: int
    cells: tuple[int, ...]
    images: tuple[int, ...]
    patch: int


def _layout(pixels: Tensor, grid: Tensor | None, scale: PixelScale) -> _Layout:
    channels = len(scale.mean)
    if pixels.dim() == 2 and grid is not None and pixels.shape[1] % channels == 0:
        counts = tuple(int(count) for count in grid.prod(1))
        return _Layout(1, (len(pixels),), counts, 0)
    if pixels.dim() >= 4 and pixels.shape[-3] == channels:
        # MiniCPM-V packs the patches of all images in one row whose height is the patch's.
        side = pixels.shape[-2] if pixels.shape[-1] > 4 * pixels.shape[-2] else scale.patch
        rows, columns = (-(-size // side) for size in pixels.shape[-2:])
        return _Layout(pixels.dim() - 3, (*pixels.shape[:-3], rows, columns), (), side)
    raise UnknownPixels(
        f"pictures of this model cannot be changed patch by patch: its processor gives pixels of shape "
        f"{tuple(pixels.shape)}; leave out the parts of algorithm that compare pictures, and set "
        "tracking.visual_kl_every=0"
    )


def _by_channel(values: Tensor, pixels: Tensor, layout: _Layout) -> Tensor:
    """Return values (C,) of channels in a shape that can be combined with the pixels."""
    if not layout.patch:  # a row holds all values of the first channel, then those of the second
        return values.repeat_interleave(pixels.shape[1] // len(values)).to(pixels)
    return values.to(pixels).view(-1, 1, 1)


def _over_pixels(cells: Tensor, pixels: Tensor, layout: _Layout) -> Tensor:
    """Return a value of each cell for each of its pixels."""
    if not layout.patch:
        return cells.unsqueeze(1)
    height, width = pixels.shape[-2:]
    wide = cells.repeat_interleave(layout.patch, -2).repeat_interleave(layout.patch, -1)
    return wide[..., :height, :width].unsqueeze(-3)


def _mask(
    pixels: Tensor, layout: _Layout, change: PictureChange, scale: PixelScale, generator: torch.Generator
) -> Tensor:
    chosen = torch.rand(layout.cells, generator=generator) < change.share
    black = _by_channel(-scale.mean / scale.std, pixels, layout)
    return torch.where(_over_pixels(chosen, pixels, layout), black, pixels)


def _blank(
    pixels: Tensor, layout: _Layout, change: PictureChange, scale: PixelScale, generator: torch.Generator
) -> Tensor:
    return torch.zeros_like(pixels) + _by_channel((0.5 - scale.mean) / scale.std, pixels, layout)


def _shuffle(
    pixels: Tensor, layout: _Layout, change: PictureChange, scale: PixelScale, generator: torch.Generator
) -> Tensor:
    if not layout.patch:
        pieces = pixels.split(list(layout.images))
        return torch.cat([one[torch.randperm(len(one), generator=generator)] for one in pieces])
    return _shuffle_cells(pixels, layout.patch, generator)


def _shuffle_cells(pixels: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Permute the whole patches of each image; a margin narrower than a patch stays."""
    rows, columns = pixels.shape[-2] // side, pixels.shape[-1] // side
    found = pixels.clone()
    for image in found.flatten(0, -4):
        inside = image[:, : rows * side, : columns * side]
        cells = inside.unflatten(1, (rows, side)).unflatten(3, (columns, side)).permute(1, 3, 0, 2, 4)
        order = torch.randperm(rows * columns, generator=generator)
        moved = cells.flatten(0, 1)[order].unflatten(0, (rows, columns))
        inside.copy_(moved.permute(2, 0, 3, 1, 4).reshape(inside.shape))
    return found


def _noise(
    pixels: Tensor, layout: _Layout, change: PictureChange, scale: PixelScale, generator: torch.Generator
) -> Tensor:
    if not change.steps:
        return pixels
    signal, spread = noise_scales(change.steps)
    mean, std = (_by_channel(values, pixels, layout) for values in (scale.mean, scale.std))
    noise = torch.randn(pixels.shape, generator=generator).to(pixels)
    return ((signal * (pixels * std + mean) + spread * noise).clamp(0, 1) - mean) / std


def noise_scales(steps: int) -> tuple[float, float]:
    """Return √ᾱ and √(1 − ᾱ) after these steps: factors of the picture and of noise of variance 1.

    β runs along a sigmoid from 1e-5 to 0.5e-2 over 1000 steps, and ᾱ is the product of the 1 − β up to this
    step, as in NoisyRollout's code (arXiv 2504.13055).
    """
    slope = torch.linspace(-6, 6, NOISE_STEPS, dtype=torch.float64).sigmoid()
    betas = slope * (LARGEST_BETA - SMALLEST_BETA) + SMALLEST_BETA
    kept = float((1 - betas).cumprod(0)[steps])
    return kept**0.5, (1 - kept) ** 0.5


_CHANGES: dict[str, Callable[..., Tensor]] = {
    "mask": _mask,
    "blank": _blank,
    "shuffle": _shuffle,
    "noise": _noise,
}
