"""Messages, the plain environment and the messages of an example."""

from __future__ import annotations

import subprocess
import sys

import pytest
from PIL import Image

from data import DataError, Example, ImageRef, VideoRef
from data.videos.pictures import PictureSequence
from mm_cpgd.environments import (
    Message,
    Observation,
    PlainEnvironment,
    prompt_messages,
    template_tools,
)
from tests.paths import ROOT

RED, BLUE = (ImageRef(name, lambda name=name: Image.new("RGB", (4, 4), name)) for name in ("red", "blue"))


def test_images_stand_where_the_question_marks_them() -> None:
    example = Example("1", "Is <image2> left of <image1>?", "no", images=(RED, BLUE))
    (message,) = prompt_messages(example)
    assert message == Message("user", ("Is ", BLUE, " left of ", RED, "?"))
    assert message.text == "Is  left of ?"
    assert message.images == (BLUE, RED)


def test_videos_stand_where_the_question_marks_them_or_after_images() -> None:
    video = VideoRef("clip", PictureSequence("clip", (RED,), 1.0))
    (message,) = prompt_messages(Example("1", "Is <video> like it?", "no", images=(RED,), videos=(video,)))
    assert message == Message("user", (RED, "Is ", video, " like it?"))
    assert message.videos == (video,)
    with pytest.raises(DataError, match="no video"):
        prompt_messages(Example("1", "<video> what?", "A"))


def test_the_examples_own_system_turn_comes_before_the_configured_one() -> None:
    own = Example("1", "Q", "A", system="Own.")
    assert [m.text for m in prompt_messages(own, system_prompt="Given.")] == ["Own.", "Q"]
    assert [m.text for m in prompt_messages(Example("1", "Q", "A"), system_prompt="Given.")] == [
        "Given.",
        "Q",
    ]
    assert [m.role for m in prompt_messages(Example("1", "Q", "A"))] == ["user"]


def test_choices_follow_the_question() -> None:
    (message,) = prompt_messages(Example("1", "Which?", "B", choices=("one", "two")), "{question} Think.")
    assert message.text == "Which?\n(A) one\n(B) two Think."


def test_a_marker_without_an_image_is_refused() -> None:
    with pytest.raises(DataError, match="no image"):
        prompt_messages(Example("1", "<image> what?", "A"))


def test_the_plain_environment_ends_after_one_turn() -> None:
    environment = PlainEnvironment(seed=3)
    example = Example("1", "What?", "red", images=(RED,))
    assert environment.reset(example) == (Message("user", (RED, "What?")),)
    assert environment.step("red") == Observation(done=True, reason="one turn")
    assert template_tools(environment) == []


def test_a_message_takes_pil_images() -> None:
    message = Message.of("tool", "here: ", Image.new("RGB", (3, 2), "blue"))
    assert message.images[0].open().getpixel((0, 0)) == (0, 0, 255)


def test_environments_load_no_torch() -> None:
    code = "import sys, mm_cpgd.environments as e; assert not {'torch', 'eval'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)
