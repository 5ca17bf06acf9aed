"""Forms of a video in a row, from a column, a chat or Python; videos for other processes."""

from __future__ import annotations

import base64
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data import DataError, Example, load_examples, video_ref
from data.example import Place, split_at_media
from data.videos.pictures import PictureSequence
from data.videos.reference import portable_video
from data.videos.sampling import VideoLimits, choose, read_frames
from tests.fakes.videos import STEP, level, write_video


def pictures(folder: Path, count: int = 12, size: tuple[int, int] = (56, 56)) -> list[str]:
    """Write frames 0, 1, … of ``write_video`` as images."""
    names = [f"frame{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        Image.new("RGB", size, (STEP * number,) * 3).save(folder / name)
    return names


def frames(example: Example, index: int = 0) -> list[int]:
    ref = example.videos[index]
    chosen = choose(ref.timeline(), VideoLimits(fps=2, min_frames=2))
    return [level(image) for image in read_frames(ref, chosen).images]


def loaded(folder: Path, row: dict[str, Any]) -> Example:
    (folder / "rows.jsonl").write_text(json.dumps({"question": "q", "answer": "1", **row}) + "\n")
    return load_examples(folder / "rows.jsonl").examples[0]


def asked(item: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose chat has this item before its question."""
    return {"messages": [{"role": "user", "content": [item, {"type": "text", "text": "q"}]}]}


def test_every_form_of_a_row_gives_the_same_frames(tmp_path: Path) -> None:
    file = write_video(tmp_path / "a.mp4", 12, rate=4)
    encoded = base64.b64encode(file.read_bytes()).decode()
    names = pictures(tmp_path)
    rows: list[dict[str, Any]] = [
        {"video": "a.mp4"},
        {"videos": ["a.mp4"]},
        {"videos": [{"path": "a.mp4"}]},
        {"video": f"file://{tmp_path}/a.mp4"},
        {"video": f"data:video/mp4;base64,{encoded}"},
        {"video": {"url": f"data:video/mp4;base64,{encoded}"}},
        {"video": names, "video_fps": 4},
        {"videos": [names], "video_fps": 4},
        {"video": {"frames": names, "fps": 4}},
        asked({"type": "video", "video": "a.mp4", "fps": 1}),
        asked({"type": "video", "video": names, "sample_fps": 4}),
        asked({"type": "video_url", "video_url": {"url": "a.mp4"}}),
        {**asked({"type": "video"}), "videos": ["a.mp4"]},
    ]
    for row in rows:
        assert frames(loaded(tmp_path, row)) == [0, 2, 4, 7, 9, 11], row


def test_a_folder_of_images_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    pictures(tmp_path)
    ref = video_ref(tmp_path, fps_clip(4))
    assert [level(image) for image in ref.read(range(12))] == list(range(12))


def fps_clip(fps: float) -> Any:
    from data.videos.reference import Clip

    return Clip(fps=fps)


def test_parquet_holds_videos_as_bytes_that_do_not_stay_in_memory(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    file = write_video(tmp_path / "a.mp4", 12, rate=4)
    rows = {"question": ["q"], "answer": ["1"], "video": [{"bytes": file.read_bytes(), "path": None}]}
    datasets.Dataset.from_dict(rows).to_parquet(str(tmp_path / "rows.parquet"))
    example = load_examples(tmp_path / "rows.parquet").examples[0]
    assert frames(example) == [0, 2, 4, 7, 9, 11]
    sent = portable_video(example.videos[0])
    assert len(pickle.dumps(sent)) > file.stat().st_size
    again = Example("x", "q", "1", videos=(pickle.loads(pickle.dumps(sent)),))
    assert frames(again) == [0, 2, 4, 7, 9, 11]


def test_a_row_has_clips_of_several_videos(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 12, rate=4)
    row = {"videos": ["a.mp4", "a.mp4"], "video_start": [0, 2.0], "video_end": [1, None]}
    example = loaded(tmp_path, {**row, "question": "Is <video2> later than <video1>?"})
    assert [frames(example, index) for index in (0, 1)] == [[0, 3], [8, 11]]
    assert "[2 s to its end]" in example.videos[1].origin
    assert split_at_media(example.question, 0, 2) == [
        "Is ",
        Place("video", 1),
        " later than ",
        Place("video", 0),
        "?",
    ]


def test_a_column_of_times_has_any_name(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 12, rate=4)
    row = {"question": "q", "answer": "1", "clip": "a", "from": 1.0}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    columns = {"video": "{clip}.mp4", "video_start": "from"}
    assert frames(load_examples(tmp_path / "rows.jsonl", columns=columns).examples[0]) == [4, 6, 9, 11]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"video": "https://example.org/a.mp4"}, "is a web address"),
    ({"video": ["a.png", "b.png"]}, "without their rate"),
    ({"video": ["a.png"], "video_fps": 0}, "above 0"),
    ({"video": ["a.png"], "video_fps": "fast"}, "not a number"),
    ({"video": "a.mp4", "video_start": 5, "video_end": 2}, "must end after its beginning"),
    ({"videos": ["a.mp4", "b.mp4"], "video_start": [1]}, "has 1 numbers, but the row has 2 videos"),
    ({"video": 7}, "given as int"),
    ({"video": "none.mp4"}, "does not exist"),
    ({"video": "a.mp4", "question": "<video> and <video>"}, "but the row has 1 video"),
]


@pytest.mark.parametrize(("row", "reason"), BAD)
def test_an_unusable_video_is_quarantined_with_its_reason(
    tmp_path: Path, row: dict[str, Any], reason: str
) -> None:
    rows = [{"question": "q", "answer": "1", **row}, {"question": "q", "answer": "1"}]
    found = load_examples(rows, max_bad_share=1.0)
    assert len(found.quarantined) == 1
    assert reason in found.quarantined[0].reason


def test_markers_of_images_and_videos_are_counted_apart() -> None:
    image, video = Place("image", 0), Place("video", 0)
    assert split_at_media("a <video> b <image> c", 1, 1) == ["a ", video, " b ", image, " c"]
    assert split_at_media("a", 1, 1) == [image, video, "a"]
    assert split_at_media("In <video1>, is <video1> long?", 0, 1) == ["In ", video, ", is video 1 long?"]
    with pytest.raises(DataError, match="the row has no video"):
        split_at_media("<video>", 1, 0)


def test_frames_of_a_list_are_clipped_as_those_of_a_file(tmp_path: Path) -> None:
    names = pictures(tmp_path)
    ref = video_ref({"frames": names, "fps": 4, "video_start": 1, "video_end": 2}, folder=tmp_path)
    assert isinstance(ref.source, PictureSequence)
    assert [level(image) for image in ref.read(range(4))] == [4, 5, 6, 7]
    assert len(ref.timeline()) == 4
    assert ref.timeline().duration == 1.0
