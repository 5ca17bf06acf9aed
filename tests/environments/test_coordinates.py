"""Coordinates of the model as pixels of the image, in each of the four forms."""

from __future__ import annotations

import pytest

from data import Example
from mm_cpgd.environments import ToolError, View


@pytest.mark.parametrize(
    ("view", "box"),
    [
        (View("absolute"), [100, 50, 150, 75]),
        (View("fraction"), [0.5, 0.5, 0.75, 0.75]),
        (View("thousandths"), [500, 500, 750, 750]),
        # 200 × 100 is seen as 196 × 112: 7 and 4 patches of 28.
        (View("resized"), [98, 56, 147, 84]),
    ],
)
def test_a_box_is_the_same_in_all_forms(view: View, box: list[float], example: Example) -> None:
    assert view.box(box, example.images[0]) == (100, 50, 150, 75)
    assert view.point(box[:2], example.images[0]) == (100, 50)


def test_a_box_is_cut_at_the_edges_of_the_image(example: Example) -> None:
    assert View("absolute").box([-50, -1e9, 250, 40], example.images[0]) == (0, 0, 200, 40)


def test_a_box_has_at_least_one_pixel(example: Example) -> None:
    assert View("absolute").box([10.2, 10.2, 10.3, 10.3], example.images[0]) == (10, 10, 11, 11)
    assert View("absolute").box([199.9, 99.9, 200, 100], example.images[0]) == (199, 99, 200, 100)


@pytest.mark.parametrize("box", [[5, 5, 5, 9], [9, 5, 1, 9], [5, 9, 6, 9]])
def test_reversed_and_empty_boxes_are_refused(box: list[float], example: Example) -> None:
    with pytest.raises(ToolError, match=r"is not \[left, top, right, bottom\]"):
        View("absolute").box(box, example.images[0])


@pytest.mark.parametrize("box", [[200, 0, 300, 50], [-9, 0, 0, 50], [0, 100, 9, 200], [0, -9, 9, 0]])
def test_boxes_outside_are_refused(box: list[float], example: Example) -> None:
    with pytest.raises(ToolError, match=r"outside of the image\. Coordinates are pixels"):
        View("absolute").box(box, example.images[0])


def test_points_outside_are_refused(example: Example) -> None:
    assert View("fraction").point([1, 1], example.images[0]) == (200, 100)
    with pytest.raises(ToolError, match="from 0 to 1"):
        View("fraction").point([1.01, 0], example.images[0])
