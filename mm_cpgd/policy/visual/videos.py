"""Videos of prompts: which models read them, their frames, and the processor's arguments for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.video_utils import VideoMetadata

from data import DataError, VideoLimits, VideoRef
from data.videos.sampling import Choice, Patches, VideoFrames, choose, read_frames

# Names of the video processors whose tokens and positions are known here.
WITH_TIME_IN_POSITIONS = "Qwen2VLVideoProcessor"  # Qwen2-VL and Qwen2.5-VL
WITH_TIME_IN_TEXT = "Qwen3VLVideoProcessor"


@dataclass(frozen=True)
class PromptVideo:
    """A video of a prompt and how its frames are chosen; opened only when needed.

    Attributes:
        ref: the video.
        limits: of frames, pixels and tokens.
        patches: what a vision token of the model covers.
        videos: number of the prompt's videos.
    """

    ref: VideoRef
    limits: VideoLimits
    patches: Patches
    videos: int = 1

    def choice(self) -> Choice:
        """Return the chosen frames, undecoded. Raises ``DataError``."""
        return choose(self.ref.timeline(), self.limits, self.patches, self.videos)

    def frames(self) -> VideoFrames:
        """Return the chosen frames. Raises ``DataError``."""
        return read_frames(self.ref, self.choice())


def prompt_videos(processor: Any, limits: VideoLimits, refs: Sequence[VideoRef]) -> tuple[PromptVideo, ...]:
    """Return the videos of one prompt.

    Raises:
        DataError: the model's processor is of a family whose videos are not supported.
    """
    if not refs:
        return ()
    patches = video_patches(processor)
    return tuple(PromptVideo(ref, limits, patches, len(refs)) for ref in refs)


def video_patches(processor: Any) -> Patches:
    """Return what a vision token of a video covers; errors as in ``prompt_videos``."""
    videos: Any = getattr(processor, "video_processor", None)
    if type(videos).__name__ not in (WITH_TIME_IN_POSITIONS, WITH_TIME_IN_TEXT):
        raise DataError(
            f"the row has a video, and {type(processor).__name__} reads none here; use Qwen2-VL, "
            "Qwen2.5-VL or Qwen3-VL, or leave the row out"
        )
    return Patches(videos.patch_size * videos.merge_size, videos.temporal_patch_size)


def with_video_places(processor: Any, chat: str) -> str:
    """Return the chat as the processor needs it to write the text of each video.

    Where that text has markers around every pair of frames, the template's markers around the whole video are
    replaced by it, as in the published model; some versions of transformers keep both.
    """
    videos = getattr(processor, "video_processor", None)
    if type(videos).__name__ != WITH_TIME_IN_TEXT:
        return chat
    token = processor.video_token
    return chat.replace(f"{processor.vision_start_token}{token}{processor.vision_end_token}", token)


def processor_options(processor: Any, videos: Sequence[VideoFrames]) -> dict[str, Any]:
    """Return the arguments of the processor's call for frames that are chosen and scaled already."""
    if not videos:
        return {}
    options: dict[str, Any] = {
        "do_resize": False,
        "do_sample_frames": False,
        "video_metadata": [metadata(video.choice) for video in videos],
    }
    if hasattr(processor.video_processor, "cap_pixels_per_frame"):
        options["cap_pixels_per_frame"] = False  # of a resizing that is off; left out, it warns
    return {"videos": [pixels(video) for video in videos], "videos_kwargs": options}


def pixels(video: VideoFrames) -> Tensor:
    """Return the frames (n, 3, height, width) uint8."""
    return torch.from_numpy(np.stack([np.asarray(image) for image in video.images])).permute(0, 3, 1, 2)


def metadata(choice: Choice) -> VideoMetadata:
    """Return what transformers and vLLM know of the frames: the clock that they are counted by."""
    return VideoMetadata(
        total_num_frames=choice.total,
        fps=choice.rate,
        width=choice.size[0],
        height=choice.size[1],
        duration=choice.total / choice.rate,
        frames_indices=list(choice.ticks),
    )


def video_text(processor: Any, choice: Choice, patches: Patches) -> str:
    """Return the text that stands for a video in the prompt, as the processor writes it."""
    tokens = choice.tokens(patches)
    if type(processor.video_processor).__name__ == WITH_TIME_IN_POSITIONS:
        return str(processor.video_token) * tokens
    pairs = len(choice.indices) // patches.frames
    begin, end = processor.vision_start_token, processor.vision_end_token
    inside = begin + processor.video_token * (tokens // pairs) + end
    times = np.asarray(choice.seconds).reshape(pairs, patches.frames)
    # The mean of a pair's first and last frame, as Qwen3-VL's processor computes it.
    return "".join(f"<{(pair[0] + pair[-1]) / 2:.1f} seconds>{inside}" for pair in times)
