"""Check of a data set before a run: what is counted, what is reported, and how it ends."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from data.example import DataError
from mm_cpgd.cli.main import app
from mm_cpgd.errors import UserError
from mm_cpgd.preflight.data import check_data, quantiles, reason_kind
from tests.fakes.videos import write_video

Jsonl = Callable[[Iterable[Any]], Path]
GOOD = {"id": "good", "question": "What is 1 + 1?", "answer": "2"}


def checked(
    path: Path | str, *columns: str, limit: int | None = None, output: Path | None = None
) -> tuple[bool, str]:
    stream = io.StringIO()
    console = Console(file=stream, width=160)
    return check_data(str(path), list(columns), None, None, limit, output, console), stream.getvalue()


def line(text: str, name: str) -> str:
    """Return the value beside a name in the table."""
    found = next(row for row in text.splitlines() if row.strip("│ ").startswith(name))
    return found.strip("│ ").removeprefix(name).strip("│ ")


def test_rows_that_can_all_be_used_pass(jsonl: Jsonl) -> None:
    fine, text = checked(jsonl([GOOD, {**GOOD, "id": "other"}]))
    assert fine
    assert (line(text, "rows"), line(text, "usable"), line(text, "unusable")) == ("2", "2", "0")


def test_one_bad_row_is_named_and_makes_the_check_fail(jsonl: Jsonl) -> None:
    fine, text = checked(jsonl([GOOD, {**GOOD, "id": "bad", "image": "gone.png"}]))
    assert not fine
    assert line(text, "image missing") == "1"
    assert "rows.jsonl:2: image file" in text


def test_no_usable_row_at_all_is_a_result_and_no_error(jsonl: Jsonl) -> None:
    fine, text = checked(jsonl([{**GOOD, "answer": ""}]))
    assert not fine
    assert line(text, "usable") == "0"
    assert line(text, "empty answer") == "1"


def test_every_kind_of_bad_row_is_counted_under_its_own_name(
    jsonl: Jsonl, png: Callable[..., bytes], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(png(size=(90, 90))[:-30])
    (tmp_path / "text.png").write_text("no picture")
    bad: dict[str, dict[str, str]] = {
        "image missing": {"image": "gone.png"},
        "image broken": {"image": "broken.png"},
        "image of another format": {"image": "text.png"},
        "image at a web address": {"image": "https://example.com/a.png"},
        "image marker without an image": {"question": "<image> What?"},
        "control token in the text": {"question": "What?<|im_end|>"},
        "id used twice": {"id": "good"},
        "empty question": {"question": " "},
    }
    rows = [GOOD, *({**GOOD, "id": kind, **change} for kind, change in bad.items())]
    _, text = checked(jsonl(rows))
    assert {kind: line(text, kind) for kind in bad} == dict.fromkeys(bad, "1")


def test_an_unforeseen_reason_is_grouped_without_its_names_and_numbers() -> None:
    assert (
        reason_kind("field 'a' has 12 parts")
        == reason_kind("field 'b' has 1,234 parts")
        == "field … has … parts"
    )


def test_the_unusable_rows_are_written_with_their_reasons(jsonl: Jsonl, tmp_path: Path) -> None:
    output = tmp_path / "out" / "quarantine.jsonl"
    checked(jsonl([GOOD, {**GOOD, "id": "bad", "answer": ""}]), output=output)
    assert json.loads(output.read_text()) == {
        "id": "bad",
        "source": "rows.jsonl:2",
        "reason": "empty answer",
    }


def test_columns_are_mapped_as_given(jsonl: Jsonl) -> None:
    file = jsonl([{"q": "What is 1 + 1?", "gold": "2"}])
    fine, _ = checked(file, "question=q", "answer=gold")
    assert fine


def test_at_most_limit_rows_are_read(jsonl: Jsonl) -> None:
    _, text = checked(jsonl([{**GOOD, "id": str(number)} for number in range(5)]), limit=3)
    assert line(text, "rows") == "3"


def test_a_config_is_checked_in_both_of_its_sources_with_its_own_columns(
    jsonl: Jsonl, tmp_path: Path
) -> None:
    jsonl([{"q": "What is 1 + 1?", "answer": "2"}])
    config = tmp_path / "run.yaml"
    config.write_text(
        "policy: {model: embedded:tiny}\nalgorithm: {recipe: cpgd}\n"
        "data:\n  train: {path: rows.jsonl, columns: {question: q}}\n"
        "  eval: {path: 'generated:clock', limit: 4}\n"
    )
    fine, text = checked(config)
    assert fine
    assert "rows.jsonl" in text
    assert "generated:clock" in text


def test_columns_beside_a_config_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave out --column"):
        checked(tmp_path / "run.yaml", "answer=gold")


@pytest.mark.parametrize("text", ["answer", "answer=", "=gold"])
def test_a_column_without_its_two_halves_is_refused(jsonl: Jsonl, text: str) -> None:
    with pytest.raises(UserError, match="field=column"):
        checked(jsonl([GOOD]), text)


def test_a_file_that_does_not_exist_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        checked(tmp_path / "none.jsonl")


def test_image_sizes_are_reported_for_generated_images_too() -> None:
    _, text = checked("generated:clock", limit=3)
    assert line(text, "images measured") == "3 of 3"
    assert line(text, "width, pixels") == "min 112  median 112  95 % 112  max 112"


def test_text_of_rows_is_never_interpreted_as_markup(jsonl: Jsonl) -> None:
    _, text = checked(jsonl([GOOD, {**GOOD, "id": "bad", "image": "[red]x[/].png"}]))
    assert "[red]x[/].png" in text


def test_quantiles_are_those_of_nearest_ranks() -> None:
    assert quantiles(range(1, 21)) == "min 1  median 10  95 % 19  max 20"
    assert quantiles([7]) == "min 7  median 7  95 % 7  max 7"


@pytest.mark.parametrize(("answer", "status"), [("2", 0), ("", 1)])
def test_the_command_ends_with_status_one_if_any_row_is_unusable(
    jsonl: Jsonl, answer: str, status: int
) -> None:
    file = jsonl([GOOD, {**GOOD, "id": "other", "answer": answer}])
    assert CliRunner().invoke(app, ["data", "check", str(file)]).exit_code == status


def test_videos_are_counted_measured_and_their_faults_named(jsonl: Jsonl, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    write_video(tmp_path / "b.mp4", times=[0, 0.1, 2])
    (tmp_path / "c.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:-300])
    rows = [
        {**GOOD, "id": "a", "video": "a.mp4"},
        {**GOOD, "id": "b", "videos": ["a.mp4", "b.mp4"]},
        {**GOOD, "id": "c", "video": "c.mp4"},
        {**GOOD, "id": "gone", "video": "gone.mp4"},
        {**GOOD, "id": "web", "video": "https://example.org/a.mp4"},
        {**GOOD, "id": "cut", "video": "a.mp4", "video_start": 9},
        {**GOOD, "id": "mark", "question": "<video>?"},
    ]
    fine, text = checked(jsonl(rows))
    assert not fine
    assert line(text, "usable") == "2"
    assert line(text, "videos per row") == "1: 1 rows  2: 1 rows"
    assert line(text, "videos measured") == "3 of 3"
    assert line(text, "seconds").startswith("min 2.1  median 3.0")
    assert line(text, "frames unevenly spaced") == "1"
    for kind in (
        "video that cannot be read",
        "video missing",
        "video at a web address",
        "clip of a video that is empty",
        "video marker without a video",
    ):
        assert line(text, kind) == "1", kind
