"""Charades-STA in its published layout, scored by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from data import DataError
from eval.benchmark import DataSource, Response
from eval.benchmarks.charades_sta import benchmark
from rewards import Status
from tests.fakes.videos import write_video

LINES = "3MSZA 24.3 30.4##person turn a light on.\n3MSZA 0.0 5.0##person flipped the light switch.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "charades_sta_test.txt").write_text(LINES)
    (tmp_path / "Charades_v1_480").mkdir()
    write_video(tmp_path / "Charades_v1_480" / "3MSZA.mp4", 20)
    return tmp_path


def test_the_published_file_is_read_with_its_videos(folder: Path) -> None:
    first, second = benchmark.load(DataSource(str(folder)))
    assert (first.id, first.answer) == ("3MSZA-1", "[24.3, 30.4]")
    assert second.question == "person flipped the light switch."
    assert len(first.videos[0].timeline()) == 20
    assert benchmark.prompt(first).startswith(
        "In the video, when does this happen: person turn a light on\n\n"
    )
    assert len(benchmark.load(DataSource(str(folder / "charades_sta_test.txt"), limit=1))) == 1


def test_mean_iou_and_recall_are_those_of_the_spans(folder: Path) -> None:
    rows = benchmark.load(DataSource(str(folder)))
    texts = ("<think>27 to 30 s</think><answer>[24.3, 30.4]</answer>", "<answer>from 2.5 to 5 s</answer>")
    pairs = [
        (row, benchmark.official(row, Response(row.id, text))) for row, text in zip(rows, texts, strict=True)
    ]
    assert [verdict.score for _, verdict in pairs] == [1.0, 0.5]
    assert benchmark.metrics is not None
    found = benchmark.metrics(pairs)
    assert found == {"mean_iou": 0.75, "r1_at_0.3": 1.0, "r1_at_0.5": 1.0, "r1_at_0.7": 0.5}


def test_a_response_without_a_span_scores_nothing(folder: Path) -> None:
    row = benchmark.load(DataSource(str(folder)))[0]
    verdict = benchmark.official(row, Response(row.id, "<answer>at the end</answer>"))
    assert (verdict.score, verdict.status) == (0.0, Status.UNPARSABLE_ANSWER)


def test_other_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not on the hub"):
        benchmark.load(DataSource())
    with pytest.raises(DataError, match="has no charades_sta_test"):
        benchmark.load(DataSource(str(tmp_path)))
    (tmp_path / "charades_sta_test.txt").write_text("3MSZA,24,30,light\n")
    with pytest.raises(DataError, match="not 'VIDEO start end##query'"):
        benchmark.load(DataSource(str(tmp_path)))
