import base64
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data.example import DataError
from data.images import image_ref, image_size, portable, to_rgb

RED = (255, 0, 0)
Png = Callable[..., bytes]


@pytest.fixture
def red(tmp_path: Path, png: Png) -> Path:
    file = tmp_path / "red dot.png"
    file.write_bytes(png("red"))
    return file


def corner(value: object, **options: object) -> object:
    return image_ref(value, **options).open().getpixel((0, 0))  # type: ignore[arg-type]


def test_a_relative_path_starts_at_the_folder_of_the_data(red: Path) -> None:
    assert corner("red dot.png", folder=red.parent) == RED


def test_an_absolute_path_ignores_the_folder(red: Path) -> None:
    assert corner(str(red), folder=Path("/nowhere")) == RED


@pytest.mark.parametrize("escaped", [True, False])
def test_a_file_url_is_opened_with_and_without_percent_escapes(red: Path, escaped: bool) -> None:
    assert corner(red.as_uri() if escaped else f"file://{red}") == RED


def test_bytes_are_opened(png: Png) -> None:
    assert corner(png("red")) == RED


@pytest.mark.parametrize("prefix", ["data:image/png;base64,", "data:image;base64,\n"])
def test_a_data_url_is_opened(png: Png, prefix: str) -> None:
    assert corner(prefix + base64.b64encode(png("red")).decode()) == RED


def test_the_hugging_face_form_with_bytes_is_opened(png: Png) -> None:
    assert corner({"bytes": png("red"), "path": "not/there.png"}) == RED


def test_the_hugging_face_form_with_a_path_is_opened(red: Path) -> None:
    assert corner({"bytes": None, "path": red.name}, folder=red.parent) == RED


def test_a_pil_image_is_opened_again_and_again() -> None:
    ref = image_ref(Image.new("L", (2, 2), 7))
    assert [ref.open().getpixel((0, 0)) for _ in range(2)] == [(7, 7, 7)] * 2


def test_nothing_is_opened_before_it_is_requested(tmp_path: Path, png: Png) -> None:
    ref = image_ref("later.png", folder=tmp_path)
    (tmp_path / "later.png").write_bytes(png("red"))
    assert ref.open().getpixel((0, 0)) == RED


def test_a_reference_can_be_sent_to_another_process(red: Path) -> None:
    assert pickle.loads(pickle.dumps(image_ref(str(red)))).open().size == (8, 4)


@pytest.mark.parametrize("url", ["http://a.example/b.png", "HTTPS://a.example/b.png"])
def test_a_web_address_is_refused(url: str) -> None:
    with pytest.raises(DataError, match="is a web address; download it"):
        image_ref(url, folder=Path("/"))


def test_a_relative_path_without_a_folder_is_refused() -> None:
    with pytest.raises(DataError, match="make it absolute"):
        image_ref("a.png")


def test_a_number_is_no_image() -> None:
    with pytest.raises(DataError, match="given as int"):
        image_ref(3)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        image_ref("gone.png", folder=tmp_path).open()


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a file"):
        image_ref(str(tmp_path)).open()


def test_a_text_that_is_no_image_is_refused() -> None:
    with pytest.raises(DataError, match="is none of PNG"):
        image_ref(b"<svg></svg>").open()


def test_a_format_outside_the_list_is_refused(png: Png) -> None:
    with pytest.raises(DataError, match="is none of PNG"):
        image_ref(png("red", kind="ICO", size=(16, 16))).open()


def test_a_truncated_file_is_refused(png: Png) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "PNG")
    with pytest.raises(DataError, match="cannot be decoded"):
        image_ref(stream.getvalue()[:3000]).open()


def test_wrong_base64_is_refused() -> None:
    with pytest.raises(DataError, match="cannot be decoded"):
        image_ref("data:image/png;base64,!!!").open()


def test_a_bomb_is_refused_before_its_pixels_are_decoded(png: Png, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = image_ref(png(size=(11, 10)), max_pixels=109)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"11 × 10 pixels, a decompression bomb by the limit of 109"):
        ref.open()


def test_an_image_of_exactly_the_limit_is_accepted(png: Png) -> None:
    assert image_ref(png(size=(11, 10)), max_pixels=110).open().size == (11, 10)


def test_a_pil_image_above_the_limit_is_refused() -> None:
    with pytest.raises(DataError, match="decompression bomb"):
        image_ref(Image.new("1", (11, 10)), max_pixels=109).open()


def test_an_image_that_pillow_considers_a_bomb_is_a_data_error(
    png: Png, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match="decompression bomb"):
        image_ref(png(size=(11, 10))).open()


def test_exif_orientation_is_applied(png: Png) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows are columns
    ref = image_ref(png(size=(8, 4), kind="JPEG", exif=exif))
    assert ref.open().size == image_size(ref) == (4, 8)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_leaves_the_image_usable(png: Png) -> None:
    assert image_ref(png(kind="JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")).open().size == (8, 4)


def test_the_size_is_read_without_decoding(png: Png, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
    assert image_size(image_ref(png(size=(30, 20)))) == (30, 20)


def test_transparent_parts_become_white() -> None:
    assert to_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)


def test_half_transparent_black_becomes_grey() -> None:
    # 0 · 51/255 + 255 · 204/255 = 204
    assert to_rgb(Image.new("LA", (1, 1), (0, 51))).getpixel((0, 0)) == (204, 204, 204)


def test_a_transparent_palette_entry_becomes_white() -> None:
    image = Image.new("P", (1, 1), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.info["transparency"] = 0
    assert to_rgb(image).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    image = Image.fromarray(np.full((1, 1), 128 * 257, dtype=np.uint16))
    assert to_rgb(image).getpixel((0, 0)) == (128, 128, 128)


RAMP = np.linspace(0, 1, 256).reshape(16, 16)


@pytest.mark.parametrize(
    ("levels", "wanted"),
    [
        ((RAMP * 65535).round().astype(np.uint16), RAMP * 255),
        ((RAMP * 4095).round().astype(np.uint16), RAMP * 255),
        ((RAMP * 255).round().astype(np.int32), RAMP * 255),
        ((RAMP * 65535).round().astype(np.int32), RAMP * 255),
        ((RAMP * 2_000_000_000).round().astype(np.int32), RAMP * 2_000_000_000 / (2**32 - 1) * 255),
        (RAMP.astype(np.float32), RAMP * 255),
        ((RAMP * 255).astype(np.float32), RAMP * 255),
        ((RAMP * 65535).astype(np.float32), RAMP * 255),
        ((RAMP * 300 - 100).astype(np.float32), RAMP * 255),
        ((RAMP * 300 - 100).round().astype(np.int32), RAMP * 255),
    ],
)
def test_deep_grey_pictures_keep_their_levels(
    tmp_path: Path, levels: NDArray[Any], wanted: NDArray[np.float64]
) -> None:
    picture = Image.fromarray(levels)
    picture.save(tmp_path / "a.tiff")
    for image in (image_ref(tmp_path / "a.tiff"), image_ref(picture)):
        found = np.asarray(image.open()).astype(float)
        assert found.shape == (16, 16, 3)
        assert np.abs(found[..., 0] - wanted).max() <= 1.01
        assert image_size(image) == (16, 16)


def test_sixteen_bit_png_and_big_endian_files_keep_their_levels(tmp_path: Path) -> None:
    levels = (RAMP * 65535).round().astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    Image.frombytes("I;16B", (16, 16), levels.astype(">u2").tobytes()).save(tmp_path / "b.tiff")
    for name in ("a.png", "b.tiff"):
        found = np.asarray(image_ref(tmp_path / name).open())[..., 0].astype(float)
        assert np.abs(found - RAMP * 255).max() <= 1.01


def test_levels_that_are_not_finite_are_black() -> None:
    picture = Image.fromarray(np.array([[np.nan, 1.0, np.inf, 0.5]], dtype=np.float32))
    assert np.asarray(image_ref(picture).open())[0, :, 0].tolist() == [0, 255, 0, 128]


def test_a_portable_reference_needs_neither_its_rows_nor_their_reader(
    png: Callable[..., bytes], tmp_path: Path
) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(png("blue", (6, 3)))
    reads: list[int] = []

    def reload() -> bytes:
        reads.append(1)
        return png("red", (8, 4))

    sent = [portable(image_ref(b"", reload=reload)), portable(image_ref(file))]
    received = pickle.loads(pickle.dumps(sent))
    assert [one.open().size for one in received] == [(8, 4), (6, 3)]
    assert received[0].open().getpixel((0, 0)) == (255, 0, 0)
    assert len(reads) == 1
    assert len(pickle.dumps(sent[1])) < 600  # the path, not the file


def test_a_portable_reference_to_what_cannot_be_read_is_an_error_with_its_name() -> None:
    def gone() -> bytes:
        raise OSError("the disk is away")

    with pytest.raises(DataError, match=r"image bytes \(0\) cannot be decoded: the disk is away"):
        portable(image_ref(b"", reload=gone))
