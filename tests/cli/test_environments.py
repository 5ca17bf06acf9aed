"""``mm-cpgd environments``: lists, shows and plays conversations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from data.generated import generate
from mm_cpgd.cli.main import app
from mm_cpgd.errors import UserError

RUNNER = CliRunner()


def run(*arguments: str) -> str:
    result = RUNNER.invoke(app, ["environments", *arguments], env={"COLUMNS": "200"})
    if result.exception is not None:
        raise result.exception
    return result.output


def test_the_list_names_environments_tools_and_scores() -> None:
    listed = run("list")
    for name in ("plain", "tools", "zoom", "calculator", "crop_iou"):
        assert name in listed


def test_a_tool_is_shown_as_the_model_is_told() -> None:
    shown = run("show", "calculator")
    assert json.loads(shown)["function"]["parameters"]["required"] == ["expression"]
    assert "given by the environment: view" in run("show", "zoom")


def test_an_environment_is_shown_with_its_options() -> None:
    shown = run("show", "tools")
    assert "max_turns = 6" in shown
    assert "seed:" in shown
    assert "free = 0" in run("show", "call_cost")


def test_a_tool_of_a_file_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text('def double(n: int) -> int:\n    """Double a number."""\n    return 2 * n\n')
    assert json.loads(run("show", f"{file}:double"))["function"]["description"] == "Double a number."


def test_an_unknown_name_is_one_message() -> None:
    with pytest.raises(UserError, match="did you mean 'zoom'"):
        run("show", "zom")


def test_a_conversation_is_played_with_written_turns(tmp_path: Path) -> None:
    example = generate(("detail",), 1, seed=4, offset=2)[0]
    left, top, right, bottom = (1000 * edge / 896 for edge in example.meta["box"])
    call = json.dumps({"box": [left, top, right, bottom]})
    played = run(
        "try", "tools", "generated:detail", "--seed", "4", "--row", "3", "--save", str(tmp_path),
        "--option", "tools=[zoom]", "--option", "scores={crop_iou: {}, tool_bonus: {}}",
        "--turn", f"zoom {call}", "--turn", "<tool_call>", "--turn", f"<answer>{example.answer}</answer>",
        "--turn", "never read",
    )  # fmt: skip
    assert example.question in played
    assert "crop_iou 1;" in played
    assert "malformed_calls 1" in played
    assert "done: answered in turn 3; tool_bonus 1" in played
    assert "never read" not in played
    crop = Image.open(tmp_path / "image-2.png")
    source = example.images[0].open().crop(example.meta["box"])
    assert crop.tobytes() == source.resize(crop.size, Image.Resampling.BICUBIC).tobytes()


def test_a_conversation_about_a_video_shows_a_frame_again(tmp_path: Path) -> None:
    turns = ["--turn", 'frame_at {"seconds": 2}', "--turn", "red"]
    played = run(
        "try", "tools", "generated:motion", "--option", "tools=[frame_at]", *turns, "--save", str(tmp_path)
    )
    assert "[video: 4 s, 112 × 112, drawn: motion-0-0]" in played
    assert "frame at 2.00 s of drawn: motion-0-0" in played
    assert (tmp_path / "image-1.png").is_file()


def test_arguments_that_are_no_json_are_told() -> None:
    with pytest.raises(UserError, match="the arguments are not JSON"):
        run("try", "tools", "generated:detail", "--option", "tools=[zoom]", "--turn", "zoom {box}")


@pytest.mark.parametrize(("method", "line"), [("reset", 3), ("step", 5)])
def test_what_an_environment_raises_is_one_message_with_its_line(
    tmp_path: Path, method: str, line: int
) -> None:
    lines = ["class Broken:", "    def __init__(self, seed): pass"]
    lines += [
        "    def reset(self, example): return (Message.of('user', 'Why?'),)",
        "    def step(self, text):",
    ]
    lines += ["        return Image.new('RGB', (-1, 1))"]
    if method == "reset":
        lines[2] = "    def reset(self, example): return example.missing"
    head = "from PIL import Image; from mm_cpgd.environments import Message; "
    (tmp_path / "mine.py").write_text("\n".join([head + "pass", *lines]))
    with pytest.raises(UserError, match=rf"raised \w+Error: .* \(mine.py, line {line + 1}\); in a run"):
        run("try", f"{tmp_path}/mine.py:Broken", "generated:clock", "--turn", "12:00")
