"""Video files read by PyAV: times of all frames without decoding them, and the pixels of chosen frames.

A file comes from strangers: only formats that hold their own frames are opened (playlists name other files
and addresses), and the number of frames, their size and the time of decoding are bounded.
"""

from __future__ import annotations

import bisect
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.example import DataError
from data.videos.timeline import Timeline

# Names of FFmpeg's demuxers; none of them opens a second file.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,apng,webp_anim,mpegts,mpeg,ogg,flv,asf"
# Codecs whose frames may be decoded in another order than they are shown in.
REORDERING = ("h264", "hevc")
MAX_FRAMES = 1_000_000
# Seconds of work on one file, for its times or for its frames.
MAX_SECONDS = 120.0
# Frames are evenly spaced if none is further from its place, in seconds: containers round to milliseconds.
TOLERANCE = 0.002


_Identity = tuple[int, int, int, int]
# What was read of the last files, each of few enough frames; a file that has changed is another one.
MAX_KEPT, MAX_KEPT_FRAMES = 256, 20_000
_examined: dict[tuple[_Identity, int], tuple[_Index, tuple[int, int]]] = {}
_lock = threading.Lock()


def _identity(file: IO[bytes]) -> _Identity | None:
    """Return what tells a file and its content from others; None for bytes in memory."""
    try:
        found = os.fstat(file.fileno())
    except (AttributeError, OSError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class VideoFile:
    """A ``VideoSource`` that reads an encoded video, or the clip of it between two times.

    Attributes:
        origin: name in messages.
        stream: opens the encoded bytes.
        start: beginning of the clip in seconds, None for that of the file.
        end: its end, None for that of the file.
        max_pixels: largest width × height of a frame.
    """

    origin: str
    stream: Callable[[], IO[bytes]]
    start: float | None = None
    end: float | None = None
    max_pixels: int = 50_000_000

    def timeline(self) -> Timeline:
        """See ``VideoSource``; reads the whole file and decodes its first frame, unless it is known."""
        index, size = self._examined()
        return index.clip(self.start, self.end, self.origin).timeline(size)

    def read(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        """See ``VideoSource``; jumps to the frame before each that can be decoded alone."""
        index = self._examined()[0].clip(self.start, self.end, self.origin)
        deadline = time.monotonic() + MAX_SECONDS
        wanted = [index.stamps[number] for number in indices]
        done = 0
        # Some containers cannot be jumped in, or to another frame than they say: then from the beginning.
        for jumps in (True, False):
            with self._open() as (container, stream):
                decoder = _Decoder(container, stream, index.keys if jumps else (), deadline, self.origin)
                while done < len(wanted):
                    frame = decoder.at(wanted[done])
                    if frame is None or frame.is_corrupt:
                        break
                    yield _upright(frame, self.origin)
                    done += 1
                else:
                    return
        seconds = (wanted[done] - index.begin) * index.unit
        raise DataError(f"video {self.origin} is damaged: its frame at {seconds:.2f} s cannot be read")

    def _examined(self) -> tuple[_Index, tuple[int, int]]:
        """Return the whole file's index and the size of its frames; those of the last files are kept."""
        with self.stream() as file:
            key = _identity(file)
        with _lock:
            known = _examined.get((key, self.max_pixels)) if key else None
        if known is not None:
            return known
        with self._open() as (container, stream):
            index = _read_index(container, stream, self.origin)
        found = index, self._size()
        if key and len(index.stamps) <= MAX_KEPT_FRAMES:
            with _lock:
                _examined[key, self.max_pixels] = found
                while len(_examined) > MAX_KEPT:
                    _examined.pop(next(iter(_examined)))
        return found

    def _size(self) -> tuple[int, int]:
        with self._open() as (container, stream):
            for frame in container.decode(stream):
                return _upright(frame, self.origin).size
        raise DataError(f"video {self.origin} is damaged: no frame can be decoded")

    @contextmanager
    def _open(self) -> Iterator[tuple[Any, Any]]:
        av = _library()
        try:
            with (
                self.stream() as file,
                av.open(file, mode="r", options={"format_whitelist": FORMATS}) as container,
            ):
                yield container, self._stream_of(container)
        except DataError:
            raise
        except (av.FFmpegError, OSError, ValueError) as error:
            what = getattr(error, "strerror", None) or error or type(error).__name__
            raise DataError(f"video {self.origin} cannot be read: {what}") from error

    def _stream_of(self, container: Any) -> Any:
        if not container.streams.video:
            raise DataError(f"video {self.origin} has no pictures, only sound or text")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise DataError(f"video {self.origin} has a codec that cannot be read; convert it to MP4")
        if stream.width * stream.height > self.max_pixels:
            raise DataError(
                f"video {self.origin} has frames of {stream.width:,} × {stream.height:,} pixels, more than "
                f"{self.max_pixels:,}; shrink it or raise max_image_pixels"
            )
        # Threads of the decoder hold further frames; several processes read ahead instead.
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"max_pixels": str(self.max_pixels)}
        return stream


@dataclass(frozen=True)
class _Index:
    """The frames of a clip: their stamps in units of ``unit`` seconds, ascending.

    ``keys`` are the stamps at which decoding can begin, ``end`` that at which the clip ends; ``begin`` is the
    beginning of the clip, which may lie after the stamp of the frame that is then on the screen.
    """

    stamps: list[int]
    keys: list[int]
    begin: float
    end: float
    unit: float
    rate: float | None

    def clip(self, start: float | None, end: float | None, origin: str) -> _Index:
        if start is None and end is None:
            return self
        length = (self.end - self.begin) * self.unit
        first, last = max(start or 0.0, 0.0), length if end is None else min(end, length)
        if not first < last:
            raise DataError(f"video {origin} lasts {length:.2f} s; its clip from {start} to {end} s is empty")
        begin, stop = self.begin + first / self.unit, self.begin + last / self.unit
        shown = max(0, bisect.bisect_right(self.stamps, begin + TOLERANCE / self.unit) - 1)
        after = max(shown + 1, bisect.bisect_left(self.stamps, stop - TOLERANCE / self.unit))
        return _Index(self.stamps[shown:after], self.keys, begin, stop, self.unit, self.rate)

    def timeline(self, size: tuple[int, int]) -> Timeline:
        stamps = np.asarray(self.stamps, dtype=np.float64)
        seconds = (stamps - self.begin).clip(0) * self.unit
        if self.rate is not None:
            seconds = np.arange(len(stamps)) / self.rate
        return Timeline(seconds, (self.end - self.begin) * self.unit, *size, self.rate)


class _Decoder:
    """Decodes frames of ascending stamps; jumps to ``keys``, over what need not be decoded for them."""

    def __init__(
        self, container: Any, stream: Any, keys: Sequence[int], deadline: float, origin: str
    ) -> None:
        self._container, self._stream, self._keys = container, stream, keys
        self._deadline, self._origin = deadline, origin
        self._frames: Iterator[Any] = container.decode(stream)
        self._position: int | None = None  # stamp of the last frame

    def at(self, stamp: int) -> Any:
        """Return the frame, or None if the decoder passes over it."""
        number = bisect.bisect_right(self._keys, stamp) - 1
        if number > 0 and (self._position is None or self._keys[number] > self._position):
            self._container.seek(self._keys[number], stream=self._stream)
            self._frames = self._container.decode(self._stream)
        for frame in self._frames:
            if time.monotonic() > self._deadline:
                raise DataError(f"video {self._origin} takes more than {MAX_SECONDS:.0f} s to decode")
            if frame.pts is None:
                continue
            self._position = frame.pts
            if frame.pts >= stamp:
                return frame if frame.pts == stamp else None
        return None


def _read_index(container: Any, stream: Any, origin: str) -> _Index:
    """Read the times of all frames from the packets, without decoding them."""
    if container.format.name == "avi" and stream.codec_context.name in REORDERING:
        raise DataError(f"video {origin} has no times of display (H.264 in AVI); convert it to MP4")
    deadline = time.monotonic() + MAX_SECONDS
    stamps: set[int] = set()
    keys: set[int] = set()
    packets, length = 0, 0
    for packet in container.demux(stream):
        if packet.size == 0:
            continue
        packets += 1
        if packets > MAX_FRAMES or time.monotonic() > deadline:
            raise DataError(f"video {origin} has more than {MAX_FRAMES:,} frames or takes too long to read")
        if packet.is_corrupt:
            raise DataError(f"video {origin} is damaged: packet {packets} is incomplete")
        # Files without times of display hold their frames in that order.
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None:
            raise DataError(f"video {origin} does not say when its frames are shown; convert it to MP4")
        if packet.is_keyframe:
            keys.add(stamp)
        if packet.is_discard:
            continue
        stamps.add(stamp)
        length = packet.duration or length
    if not stamps:
        raise DataError(f"video {origin} is empty: it has no frame")
    if packets < stream.frames:
        raise DataError(f"video {origin} ends early: it has {packets:,} of its {stream.frames:,} frames")
    ordered = sorted(stamps)
    unit = float(stream.time_base)
    rate = _even_rate(np.asarray(ordered, dtype=np.float64) * unit, stream)
    length = length or round(1 / ((rate or float(stream.average_rate or 1)) * unit))
    end = ordered[-1] + (length if rate is None else 1 / (rate * unit))
    return _Index(ordered, sorted(keys) or ordered[:1], ordered[0], end, unit, rate)


def _even_rate(seconds: NDArray[np.float64], stream: Any) -> float | None:
    """Return the frames per second if they are evenly spaced, as the container says or as they are."""
    named = [float(rate) for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
    if len(seconds) == 1:
        return named[0] if named else None
    measured = (len(seconds) - 1) / float(seconds[-1] - seconds[0])
    numbers = np.arange(len(seconds))
    for rate in [*named, measured]:
        if np.abs(seconds - seconds[0] - numbers / rate).max() <= TOLERANCE:
            return rate
    return None


def _upright(frame: Any, origin: str) -> Image.Image:
    """Return the frame in RGB as players show it: turned as the file's display matrix says."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            matrix = np.frombuffer(bytes(data), dtype=np.int32).reshape(3, 3)[:2, :2].astype(np.float64)
            if np.linalg.det(matrix) < 0:
                raise DataError(f"video {origin} is mirrored by its display matrix; convert it without one")
    angle = frame.rotation % 360
    if angle % 90:
        raise DataError(f"video {origin} is turned by {angle} degrees; only quarter turns are read")
    image: Image.Image = frame.to_image()
    turns = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
    return image.transpose(turns[angle]) if angle else image


def _library() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise DataError("rows with video files need PyAV: pip install 'mm-cpgd[video]'") from error
    library: ModuleType = av
    return library
