"""Positions of prompts with videos in the Qwen-VL families.

A text continues after the largest position of all three axes of the video before it, as in the models'
original implementation and in vLLM (``get_mrope_input_positions``). Some versions of transformers 5 continue
after the height and width of a frame alone, so that text and later frames share positions in time.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import torch
from torch import Tensor


def video_positions(
    token_types: Tensor,
    image_grids: Tensor | None,
    video_grids: Tensor,
    seconds_per_grid: Tensor | None,
    *,
    merge: int,
    tokens_per_second: float | None,
    pairs_apart: bool,
) -> Tensor:
    """Compute the positions of one prompt.

    Args:
        token_types: (L,) 0 text, 1 image, 2 video.
        image_grids: (I, 3) patches in time, height and width of each image.
        video_grids: (V, 3) likewise of each video.
        seconds_per_grid: (V,) seconds between two steps of each video's time axis.
        merge: patches per token in height and in width.
        tokens_per_second: positions per second; None: one per step, whatever time it takes.
        pairs_apart: whether text stands between the steps in time, so that each has positions of its own.

    Returns:
        (3, L) time, height and width.
    """
    images = iter([] if image_grids is None else image_grids.tolist())
    videos = _grids(video_grids, seconds_per_grid, tokens_per_second, pairs_apart=pairs_apart)
    found: list[Tensor] = []
    start = 0
    for kind, run in groupby(token_types.tolist()):
        if kind == 0:
            part = torch.arange(len(list(run))).expand(3, -1)
        elif kind == 1:
            _, height, width = next(images)
            part = _block(torch.zeros(1, dtype=torch.long), height, width, merge)
        else:
            times, height, width = next(videos)
            part = _block(times, height, width, merge)
        found.append(part + start)
        start = int(found[-1].max()) + 1
    return torch.cat(found, 1)


def _grids(
    grids: Tensor, seconds: Tensor | None, rate: float | None, *, pairs_apart: bool
) -> Iterator[tuple[Tensor, int, int]]:
    """Yield the positions in time, and the height and width in patches, of each unbroken run of tokens."""
    for number, (steps, height, width) in enumerate(grids.tolist()):
        if pairs_apart:
            yield from [(torch.zeros(1, dtype=torch.long), height, width)] * steps
            continue
        times = torch.arange(steps)
        if rate is not None:
            # In this order and precision, in which vLLM and the original round.
            times = (times * float(1.0 if seconds is None else seconds[number]) * rate).long()
        yield times, height, width


def _block(times: Tensor, height: int, width: int, merge: int) -> Tensor:
    """Return the positions (3, tokens) of a grid, frame by frame and row by row, from 0."""
    axes = (times, torch.arange(height // merge), torch.arange(width // merge))
    return torch.stack([axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij")])


def positions_of(model: Any, token_types: Tensor, inputs: dict[str, Any]) -> Tensor:
    """Compute the positions of a prompt with videos for a model; ``inputs`` are the processor's."""
    vision = model.config.vision_config
    return video_positions(
        token_types,
        inputs.get("image_grid_thw"),
        inputs["video_grid_thw"],
        inputs.get("second_per_grid_ts"),
        merge=vision.spatial_merge_size,
        tokens_per_second=getattr(vision, "tokens_per_second", None),
        pairs_apart=model.config.model_type.startswith("qwen3"),
    )
