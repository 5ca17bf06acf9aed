"""frame_at on a video whose frames differ in colour, alone and in a conversation."""

from __future__ import annotations

from functools import partial

import pytest
from PIL import Image

from data import Example, ImageRef, VideoRef
from data.images import image_size
from data.videos.pictures import PictureSequence
from mm_cpgd.environments import Context, ToolEnvironment, View
from mm_cpgd.environments.call_formats import write_call
from mm_cpgd.environments.coordinates import ToolError
from mm_cpgd.environments.tools import TOOLS

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
VIEW = View(image_pixels=10_000)


def example(fps: float = 2.0) -> Example:
    """A video of three frames, red, green and blue, of 300 × 200 pixels."""
    frames = tuple(
        ImageRef(f"frame {number}", partial(Image.new, "RGB", (300, 200), colour))
        for number, colour in enumerate(COLOURS)
    )
    return Example("1", "When?", "1", videos=(VideoRef("video", PictureSequence("video", frames, fps)),))


def call(**arguments: object) -> ImageRef:
    tool, row = TOOLS["frame_at"], example()
    (found,) = tool(tool.checked(arguments), Context(row, row.images, VIEW))
    assert isinstance(found, ImageRef)
    return found


@pytest.mark.parametrize(("seconds", "frame"), [(0, 0), (0.49, 0), (0.5, 1), (0.99, 1), (1.2, 2), (1.5, 2)])
def test_the_frame_that_a_player_shows_then_is_shown(seconds: float, frame: int) -> None:
    assert call(seconds=seconds).open().getpixel((5, 5)) == COLOURS[frame]


def test_a_frame_has_at_most_the_pixels_of_images() -> None:
    found = call(seconds=1)
    assert image_size(found) == found.open().size == (122, 81)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"seconds": -0.1}, "-0.1 is outside the video, which lasts 1.5 seconds"),
        ({"seconds": 1.6}, "1.6 is outside the video"),
        ({"seconds": 1, "video": 2}, "there is no video 2; the question has 1 video"),
        ({"seconds": 1, "video": 0}, "argument 'video' is 0"),
        ({"seconds": "soon"}, "argument 'seconds' is 'soon'"),
    ],
)
def test_the_model_is_told_what_there_is(arguments: dict[str, object], told: str) -> None:
    with pytest.raises(ToolError, match=told):
        call(**arguments)


def test_a_row_without_a_video_is_told() -> None:
    tool = TOOLS["frame_at"]
    with pytest.raises(ToolError, match="there is no video 1; the question has no video"):
        tool(tool.checked({"seconds": 1}), Context(Example("1", "When?", "1"), (), VIEW))


def test_a_shown_frame_is_an_image_that_other_tools_take() -> None:
    environment = ToolEnvironment(0, ["frame_at", "zoom"], image_pixels=10_000)
    system, question = environment.reset(example())
    assert '"frame_at"' in system.text
    assert [video.origin for video in question.videos] == ["video"]
    shown = environment.step(write_call("frame_at", {"seconds": 0.5}))
    assert shown.messages[0].text == "Image 1: "
    assert shown.messages[0].images[0].origin == "frame at 0.50 s of video"
    nearer = environment.step(write_call("zoom", {"image": 1, "box": [0, 0, 500, 500]}))
    assert nearer.messages[0].images[0].open().getpixel((5, 5)) == COLOURS[1]
