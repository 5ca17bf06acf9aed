"""The example with a tool of its own."""

from __future__ import annotations

import pytest
from PIL import Image

from data.generated import generate
from mm_cpgd.environments import get_environment
from mm_cpgd.environments.call_formats import write_call
from tests.paths import ROOT

NAME = f"{ROOT}/examples/environments/quarters.py:environment"


@pytest.mark.parametrize(
    ("which", "corner"),
    [
        ("upper left", (0, 0)),
        ("upper right", (448, 0)),
        ("lower left", (0, 448)),
        ("lower right", (448, 448)),
    ],
)
def test_a_quarter_is_shown_at_the_size_that_the_model_gets(which: str, corner: tuple[int, int]) -> None:
    example = generate(("detail",), 1, seed=2)[0]
    made = get_environment(NAME, {"price": 0.25})(0)
    made.reset(example)
    observation = made.step(write_call("quarter", {"which": which}))
    (image,) = observation.messages[0].images
    source = example.images[0].open()
    part = source.crop((*corner, corner[0] + 448, corner[1] + 448)).resize((896, 896))
    assert image.open().tobytes() == part.resize((112, 112), Image.Resampling.BICUBIC).tobytes()
    assert observation.scores == {"looks": -0.25}
