"""Edited images: computed when opened, bounded, and the region that a crop shows."""

from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import Example
from data.images import image_size
from mm_cpgd.environments.images import LEAST_PIXELS, MIN_SIDE, Crop, EditedImage, edited, fit, region_of
from mm_cpgd.environments.tools.look import Rotation


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(LEAST_PIXELS, 10**6), st.booleans())
def test_every_size_fits(width: int, height: int, limit: int, enlarge: bool) -> None:
    w, h = fit(width, height, limit, enlarge=enlarge)
    assert min(w, h) >= MIN_SIDE
    assert w * h <= limit


@given(st.integers(100, 2_000), st.integers(100, 2_000))
def test_proportions_are_kept_within_a_pixel(width: int, height: int) -> None:
    w, h = fit(width, height, 400_000, enlarge=True)
    assert w / width == pytest.approx(h / height, abs=1 / min(width, height))
    assert w * h == pytest.approx(400_000, rel=0.05)


def test_a_small_image_is_enlarged_on_request_only() -> None:
    assert fit(100, 50, 20_000, enlarge=False) == (100, 50)
    assert fit(100, 50, 20_000, enlarge=True) == (200, 100)


def test_an_edited_image_opens_nothing_before_it_is_opened(example: Example) -> None:
    opened = []
    source = example.images[0]
    object.__setattr__(source, "load", lambda load=source.load: opened.append(1) or load())
    ref = edited(source, Crop((100, 50, 150, 75)), (56, 28), "part")
    assert image_size(ref) == (56, 28)
    assert opened == []
    assert ref.open().getcolors() == [(56 * 28, (255, 0, 0))]
    assert opened == [1]


def test_edits_are_compared_and_pickled() -> None:
    crop = Crop((1, 2, 3, 4))
    assert pickle.loads(pickle.dumps(crop)) == crop != Crop((1, 2, 3, 5))


def test_the_region_of_a_crop_of_a_crop_is_in_the_original(example: Example) -> None:
    source = example.images[0]
    outer = edited(source, Crop((100, 0, 200, 100)), (400, 400), "part")
    inner = edited(outer, Crop((100, 200, 300, 400)), (50, 50), "part")
    original, region = region_of(inner)
    assert original is source
    # x: 100 + 100 · (100 … 300)/400 = 125 … 175 of 200 pixels; y: 50 … 100 of 100.
    assert region == pytest.approx((0.625, 0.5, 0.875, 1.0))
    assert region_of(source) == (source, (0.0, 0.0, 1.0, 1.0))


def test_a_turned_image_shows_no_region(example: Example) -> None:
    turned = edited(example.images[0], Rotation(90, (200, 100)), (100, 200), "turn")
    assert isinstance(turned.load, EditedImage)
    assert region_of(turned) is None
    assert region_of(edited(turned, Crop((0, 0, 50, 50)), (50, 50), "part")) is None


def test_a_large_picture_stays_within_its_limit() -> None:
    assert math.prod(fit(10**5, 10**4, 50_000, enlarge=False)) <= 50_000
