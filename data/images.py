"""Image references: every form in which a row may hold an image, opened lazily, validated early.

Accepted: a path (absolute, or relative to the data file's folder), ``file://``, encoded bytes, the Hugging
Face form ``{"bytes": …, "path": …}``, a base64 ``data:`` URL, the base64 text alone, a PIL
image. Web addresses are refused: a run must neither depend on nor contact a server that a data file names.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from data.example import DataError, ImageRef

MAX_PIXELS = 50_000_000
# Pillow reads many more; the others are rare in data sets and have a worse security record.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")

_WEB = re.compile(r"(?:https?|ftp|s3|gs)://", re.IGNORECASE)
_DATA_URL = re.compile(r"data:[^,]*;base64,", re.IGNORECASE)
# The first bytes of PNG, JPEG, WEBP, GIF, TIFF and BMP files in base64.
_BASE64_IMAGE = re.compile(r"iVBORw0KGgo|/9j/|UklGR|R0lGOD|SUkqA|TU0AK|Qk")
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
_ORIENTATION = 0x0112
_ROTATED_BY_90 = (5, 6, 7, 8)


@dataclass(frozen=True)
class EncodedImage:
    """An encoded image that is read and decoded afresh on every call.

    Attributes:
        origin: name in messages.
        stream: opens the encoded bytes.
        max_pixels: largest width × height; more is refused from the header, before any pixel is decoded.
    """

    origin: str
    stream: Callable[[], IO[bytes]]
    max_pixels: int = MAX_PIXELS

    def __call__(self) -> Image.Image:
        """Return the upright RGB image. Raises ``DataError``."""
        with self._open() as image:
            image.load()
            return to_rgb(_upright(image))

    def size(self) -> tuple[int, int]:
        """Return (width, height) of the upright image, from the header alone. Raises ``DataError``."""
        with self._open() as image:
            return (image.height, image.width) if _orientation(image) in _ROTATED_BY_90 else image.size

    @contextmanager
    def _open(self) -> Iterator[Image.Image]:
        with (
            _errors_as_data_errors(self.origin),
            self.stream() as stream,
            Image.open(stream, formats=FORMATS) as image,
        ):
            _check_size(image, self.origin, self.max_pixels)
            yield image


def image_ref(
    value: Any,
    *,
    folder: Path | None = None,
    max_pixels: int = MAX_PIXELS,
    reload: Callable[[], Any] | None = None,
) -> ImageRef:
    """Return a reference to the image that ``value`` stands for; opens nothing.

    Args:
        value: any of the accepted forms, see the module docstring.
        folder: base of relative paths; None where the rows come from no folder.
        max_pixels: larger images are refused when they are opened.
        reload: returns ``value`` again. With it the reference keeps no encoded bytes in memory.

    Raises:
        DataError: a web address, a relative path without a folder, or a value that is no image.
    """
    value = _unwrap(value)
    if isinstance(value, Image.Image):
        origin = f"PIL image ({value.width} × {value.height})"
        return ImageRef(origin, partial(_from_pil, value, origin, max_pixels))
    if isinstance(value, Path) or (isinstance(value, str) and not is_embedded(value)):
        text = str(value)
        origin = text if len(text) <= 200 else text[:200] + "…"
        return ImageRef(
            origin, EncodedImage(origin, partial(open_paths, file_paths(text, folder)), max_pixels)
        )
    if not is_embedded(value):
        raise DataError(f"an image is given as {type(value).__name__}; use a path, bytes or a data: URL")
    origin = f"data URL ({len(value):,} characters)" if isinstance(value, str) else f"bytes ({len(value):,})"
    opened = partial(_open_reloaded, reload) if reload else partial(encoded_stream, value)
    return ImageRef(origin, EncodedImage(origin, opened, max_pixels))


def is_embedded(value: Any) -> bool:
    """Return whether ``value`` holds the encoded image itself rather than its location."""
    value = _unwrap(value)
    return isinstance(value, (bytes, bytearray)) or (
        isinstance(value, str) and (_DATA_URL.match(value[:200]) is not None or _is_bare_base64(value))
    )


def _is_bare_base64(text: str) -> bool:
    """Return whether the text is an image in base64 with nothing before it; no path is like that."""
    return len(text) >= 100 and _BASE64_IMAGE.match(text) is not None and _BASE64.fullmatch(text) is not None


def image_size(ref: ImageRef) -> tuple[int, int]:
    """Return (width, height), from the header where there is one, else by opening. Raises ``DataError``."""
    return ref.size()


def portable(ref: ImageRef) -> ImageRef:
    """Return a reference to the same image for another process, which cannot read the rows again.

    Raises:
        DataError: the encoded bytes cannot be read.
    """
    if not isinstance(ref.load, EncodedImage) or _reads_file(ref.load.stream):
        return ref
    with _errors_as_data_errors(ref.origin), ref.load.stream() as stream:
        return ImageRef(ref.origin, replace(ref.load, stream=partial(encoded_stream, stream.read())))


def _reads_file(stream: Callable[[], IO[bytes]]) -> bool:
    return isinstance(stream, partial) and stream.func is open_paths


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a new RGB image; transparent areas become white, deep grey is scaled as by ``to_8_bits``."""
    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(to_8_bits(np.asarray(image)))
    if not image.has_transparency_data:
        return image.convert("RGB") if image.mode != "RGB" else image.copy()
    layer = image.convert("RGBA")
    background = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(background, layer).convert("RGB")


def to_8_bits(grey: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale grey levels of integers or floats to 0 … 255.

    The range is the smallest of 0 … 1 (floats only), 255, 4095 (12 bits), 65,535 and 2³² − 1 that holds all
    levels: the pixels do not tell their depth. Levels below 0 or beyond make it the range that occurs. Values
    that are not finite become 0.
    """
    levels = np.nan_to_num(grey.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = (float(levels.min()), float(levels.max())) if levels.size else (0.0, 0.0)
    ranges = ([1.0] if grey.dtype.kind == "f" else []) + [255.0, 4095.0, 65535.0, 2.0**32 - 1]
    top = next((limit for limit in ranges if high <= limit), None)
    if low < 0 or top is None:
        levels, top = levels - low, max(high - low, 1e-12)
    return np.rint(levels * (255.0 / top)).clip(0, 255).astype(np.uint8)


def _unwrap(value: Any) -> Any:
    """Return the image value in ``{"bytes": …, "path": …}`` or ``{"url": …}``; other values as they are."""
    if not isinstance(value, Mapping):
        return value
    encoded = value.get("bytes")
    return encoded if encoded is not None else value.get("path") or value.get("url")


def _from_pil(image: Image.Image, origin: str, max_pixels: int) -> Image.Image:
    with _errors_as_data_errors(origin):
        _check_size(image, origin, max_pixels)
        return to_rgb(_upright(image))


def _check_size(image: Image.Image, origin: str, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise DataError(
            f"image {origin} has {image.width:,} × {image.height:,} pixels, a decompression bomb by the "
            f"limit of {max_pixels:,}; shrink it or raise max_image_pixels"
        )


def file_paths(text: str, folder: Path | None, what: str = "image") -> tuple[Path, ...]:
    """Return the paths at which the file may be, likeliest first. Raises ``DataError``."""
    if _WEB.match(text):
        raise DataError(f"{what} {text[:120]} is a web address; download it and give its path")
    names = [text]
    if text.lower().startswith("file://"):
        plain = text[len("file://") :].removeprefix("localhost")
        # By the standard percent signs are escapes, but many data files put a plain path after file://.
        names = [plain, unquote(plain)]
    if folder is None and not Path(names[0]).is_absolute():
        raise DataError(
            f"{what} {text[:120]} is a relative path, but these rows come from no folder; make it absolute"
        )
    return tuple((folder or Path()) / name for name in names)


def open_paths(paths: tuple[Path, ...], what: str = "image") -> IO[bytes]:
    """Open the first of these paths that is a file. Raises ``DataError`` if none is."""
    # Besides a clearer message: opening a pipe or a device could block forever.
    for path in paths:
        if path.is_file():
            return path.open("rb")
    shown = str(paths[0]) if len(str(paths[0])) <= 300 else f"{str(paths[0])[:300]}…"
    raise DataError(f"{what} file {shown} " + ("is not a file" if paths[0].exists() else "does not exist"))


def encoded_stream(value: Any) -> IO[bytes]:
    """Return the stream of encoded bytes, of a ``data:`` URL or of bare base64. Raises ``ValueError``."""
    if isinstance(value, str):
        # A data URL may escape characters; in bare base64 nothing precedes the data.
        encoded = unquote(value[value.index(",") + 1 :]) if "," in value[:200] else value
        encoded = "".join(encoded.split())
        return io.BytesIO(base64.b64decode(encoded, validate=True))
    return io.BytesIO(value)


def _open_reloaded(reload: Callable[[], Any]) -> IO[bytes]:
    return encoded_stream(_unwrap(reload()))


def _orientation(image: Image.Image) -> int:
    # Pillow searches for a PNG's EXIF block behind the pixels, decoding them all, unless it precedes them.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1


def _upright(image: Image.Image) -> Image.Image:
    # An image with a damaged EXIF block is still usable; every viewer shows it unrotated.
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


@contextmanager
def _errors_as_data_errors(origin: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"image {origin} is a decompression bomb: {error}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"image {origin} is none of {', '.join(FORMATS)}") from error
    except Exception as error:  # a broken file makes Pillow's decoders raise nearly anything
        raise DataError(f"image {origin} cannot be decoded: {str(error)[:200]}") from error
