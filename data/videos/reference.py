"""Video references: every form in which a row may hold a video, opened lazily.

Accepted: a path to a file or to a folder of images (absolute, or relative to the data file's folder),
``file://``, encoded bytes, a ``data:`` URL, ``{"bytes": …, "path": …}``, a list of images, and an object with
any of these under ``video``, ``path``, ``url`` or ``frames`` and with ``fps``, ``video_start`` and
``video_end``. Web addresses are refused, as for images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from data.example import DataError
from data.images import MAX_PIXELS, encoded_stream, file_paths, image_ref, open_paths, portable
from data.videos.container import VideoFile
from data.videos.pictures import SUFFIXES, PictureFolder, PictureSequence
from data.videos.timeline import VideoRef

_CONTENT = ("frames", "video", "path", "url")
_RATE = ("fps", "video_fps", "sample_fps")


@dataclass(frozen=True)
class Clip:
    """The times that a row gives beside a video, in seconds, and the rate of a list of frames."""

    start: float | None = None
    end: float | None = None
    fps: float | None = None


def video_ref(
    value: Any,
    clip: Clip | None = None,
    *,
    folder: Path | None = None,
    max_pixels: int = MAX_PIXELS,
    reload: Callable[[], Any] | None = None,
) -> VideoRef:
    """Return a reference to the video that ``value`` stands for; opens nothing.

    Args:
        value: any of the accepted forms, see the module docstring.
        clip: times from other columns of the row; those of an object come first.
        folder: base of relative paths; None where the rows come from no folder.
        max_pixels: videos with larger frames are refused when they are opened.
        reload: returns ``value`` again. With it the reference keeps no encoded bytes in memory.

    Raises:
        DataError: a web address, times that are none, frames without a rate, or a value that is no video.
    """
    clip = clip or Clip()
    if isinstance(value, Mapping):
        clip = _clip_of(value, clip)
        value = next((value[name] for name in ("bytes", *_CONTENT) if value.get(name) is not None), None)
        return video_ref(
            value, clip, folder=folder, max_pixels=max_pixels, reload=reload and partial(_content, reload)
        )
    _check(clip)
    if isinstance(value, (list, tuple)):
        return _pictures(value, clip, folder, max_pixels)
    if isinstance(value, (bytes, bytearray)) or (isinstance(value, str) and value[:5].lower() == "data:"):
        origin = (
            f"data URL ({len(value):,} characters)" if isinstance(value, str) else f"bytes ({len(value):,})"
        )
        stream = partial(_reloaded, reload) if reload else partial(encoded_stream, value)
        return _file(origin, stream, clip, max_pixels)
    if not isinstance(value, (str, Path)) or not str(value).strip():
        raise DataError(f"a video is given as {type(value).__name__}; use a path, bytes or a list of images")
    paths = file_paths(str(value), folder, "video")
    place = next((path for path in paths if path.is_dir()), None)
    if place is not None:
        origin = _named(str(value), clip)
        return VideoRef(
            origin, PictureFolder(origin, place, _rate(clip, origin), max_pixels, clip.start, clip.end)
        )
    return _file(str(value), partial(open_paths, paths, "video"), clip, max_pixels)


def is_list_of_images(value: Any) -> bool:
    """Return whether a list is one video as images, rather than several videos."""
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(isinstance(one, (str, Path)) and Path(one).suffix.lower() in SUFFIXES for one in value)
    )


def portable_video(ref: VideoRef) -> VideoRef:
    """Return a reference to the same video for another process, which cannot read the rows again.

    Raises:
        DataError: the encoded bytes cannot be read.
    """
    source = ref.source
    if isinstance(source, PictureSequence):
        return replace(ref, source=replace(source, pictures=tuple(map(portable, source.pictures))))
    if isinstance(source, VideoFile) and _func(source.stream) is _reloaded:
        with source.stream() as stream:
            return replace(ref, source=replace(source, stream=partial(encoded_stream, stream.read())))
    return ref


def video_content(ref: VideoRef) -> object:
    """Return what a digest of the video is made of: its bytes, or the source itself if it is drawn.

    Raises:
        DataError: the file cannot be read.
    """
    source = ref.source
    if not isinstance(source, VideoFile):
        return source
    with source.stream() as stream:
        return stream.read(), source.start, source.end


def _func(stream: Callable[[], IO[bytes]]) -> object:
    return stream.func if isinstance(stream, partial) else stream


def _file(origin: str, stream: Callable[[], IO[bytes]], clip: Clip, max_pixels: int) -> VideoRef:
    name = _named(origin, clip)
    return VideoRef(name, VideoFile(name, stream, clip.start, clip.end, max_pixels))


def _pictures(value: Sequence[Any], clip: Clip, folder: Path | None, max_pixels: int) -> VideoRef:
    if not value:
        raise DataError("a video is given as an empty list of images")
    refs = tuple(image_ref(one, folder=folder, max_pixels=max_pixels) for one in value)
    origin = _named(f"{len(refs):,} images from {refs[0].origin}", clip)
    return VideoRef(origin, PictureSequence(origin, refs, _rate(clip, origin), clip.start, clip.end))


def _named(origin: str, clip: Clip) -> str:
    origin = origin if len(origin) <= 200 else origin[:200] + "…"
    if clip.start is None and clip.end is None:
        return origin
    return f"{origin} [{clip.start or 0:g} s to {'its end' if clip.end is None else f'{clip.end:g} s'}]"


def _rate(clip: Clip, origin: str) -> float:
    if clip.fps is None:
        raise DataError(
            f"video {origin} is a list of images without their rate; give it as fps, or in a column video_fps"
        )
    return clip.fps


def _clip_of(value: Mapping[str, Any], clip: Clip) -> Clip:
    def first(*names: str) -> Any:
        return next((value[name] for name in names if value.get(name) is not None), None)

    start, end, fps = first("video_start", "start"), first("video_end", "end"), first(*_RATE)
    return Clip(
        clip.start if start is None else seconds(start, "video_start"),
        clip.end if end is None else seconds(end, "video_end"),
        clip.fps if fps is None else seconds(fps, "fps"),
    )


def seconds(value: Any, what: str) -> float:
    """Return a number of a row as a float. Raises ``DataError`` for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise DataError(f"{what} is {str(value)[:40]!r}, not a number") from None
    if not math.isfinite(number):
        raise DataError(f"{what} is {value}, not a finite number")
    return number


def _check(clip: Clip) -> None:
    if clip.fps is not None and not 0 < clip.fps <= 1000:
        raise DataError(f"fps is {clip.fps:g}; frames have a rate above 0 and up to 1,000 a second")
    if (clip.start or 0.0) < 0 or (clip.end is not None and clip.end <= (clip.start or 0.0)):
        raise DataError(
            f"the video's clip begins at {clip.start} s and ends at {clip.end} s; it must end after its "
            "beginning, which is at least 0"
        )


def _content(reload: Callable[[], Any]) -> Any:
    value = reload()
    return next((value[name] for name in ("bytes", *_CONTENT) if value.get(name) is not None), None)


def _reloaded(reload: Callable[[], Any]) -> IO[bytes]:
    return encoded_stream(reload())
