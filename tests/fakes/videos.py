"""Small videos written with PyAV: every frame has one grey level, so that a reader's frames can be named."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Grey levels between one frame and the next: far enough apart to survive lossy coding.
STEP = 8


def write_video(
    file: Path,
    frames: int = 30,
    *,
    rate: int = 10,
    times: Sequence[float] | None = None,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    turned: int = 0,
    corner: bool = False,
    noise: bool = False,
) -> Path:
    """Write a video whose frame k has the grey level ``STEP`` · k.

    Args:
        file: its suffix says the container.
        frames: their number.
        rate: frames per second.
        times: seconds at which the frames appear, in place of an even rate.
        size: (width, height).
        codec: name of FFmpeg's encoder.
        turned: degrees of the display matrix.
        noise: add noise, so that the file is larger.
        corner: make the upper left quarter of the coded frames white.
    """
    av = pytest.importorskip("av")
    shown = [number / rate for number in range(frames)] if times is None else list(times)
    with av.open(str(file), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, options={"g": "12"})
        stream.width, stream.height = size
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        unit = Fraction(1, 1000) if times is not None else Fraction(1, rate)
        stream.codec_context.time_base = unit
        if turned:
            stream.set_display_rotation(turned)
        for number, second in enumerate(shown):
            pixels = np.full((size[1], size[0], 3), STEP * number % 256, np.uint8)
            if noise:
                pixels += np.random.default_rng(number).integers(0, 6, pixels.shape, np.uint8)
            if corner:
                pixels[: size[1] // 2, : size[0] // 2] = 255
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = round(second / unit), unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file


def level(image: Any) -> int:
    """Return the number of the frame that an image of ``write_video`` is."""
    return round(float(np.asarray(image).mean()) / STEP)
