import pytest

from data.example import DataError, split_at_images


@pytest.mark.parametrize(
    ("text", "images", "pieces"),
    [
        ("why", 0, ["why"]),
        ("why", 2, [0, 1, "why"]),
        ("a<image>b<image>c", 2, ["a", 0, "b", 1, "c"]),
        ("see <image2> and <image1>", 2, ["see ", 1, " and ", 0]),
        ("<image2> then <image>", 2, [1, " then ", 0]),
        ("<image> then <image1>", 2, [1, " then ", 0]),
        ("only <image2>", 3, [0, 2, "only ", 1]),
        ("the ant <image1> and again <image1>.", 1, ["the ant ", 0, " and again image 1."]),
    ],
)
def test_each_image_occurs_once_and_at_its_marker(text: str, images: int, pieces: list[str | int]) -> None:
    assert split_at_images(text, images) == pieces


@pytest.mark.parametrize(
    ("text", "images", "message"),
    [
        ("<image>", 0, "has <image>, but the row has no image"),
        ("<image> <image>", 1, "has <image>, but the row has 1 image"),
        ("<image3>", 2, "has <image3>, but the row has 2 images"),
        ("<image0>", 2, "has <image0>, but the row has 2 images"),
    ],
)
def test_a_marker_without_an_image_is_an_error(text: str, images: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_at_images(text, images)
