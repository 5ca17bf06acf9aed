"""Results as a matrix: rows, columns, differences to a baseline, and what limits them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from eval.comparison import BY_QUESTION, ONE_EACH, compare
from eval.export.matrix import Column, build_matrix, holm
from mm_cpgd.errors import UserError
from tests.fakes.results import RIGHT, UNJUDGED, WRONG, result, row

SAME = {"data_fingerprint": "1"}


def make(
    folder: Path, scores: str, name: str = "mathvista", model: str | None = "base", **settings: Any
) -> Path:
    """Write a result of one letter per question: right, wrong."""
    verdicts = {"r": RIGHT, "w": WRONG, "-": UNJUDGED}
    rows = [row(f"q{place}", verdicts[letter], RIGHT) for place, letter in enumerate(scores)]
    return result(folder, rows, name, {**SAME, **({"model": model} if model else {}), **settings})


def column(name: str = "mathvista", protocol: str = "official", split: str | None = None) -> Column:
    return Column(name, split, protocol, None)


def test_models_are_rows_and_benchmarks_by_protocol_columns(tmp_path: Path) -> None:
    folders = [
        make(tmp_path / "a", "rrww"),
        make(tmp_path / "b", "rw", "mathvision"),
        make(tmp_path / "c", "rrrw", model="trained"),
    ]
    matrix = build_matrix(folders)
    assert matrix.rows == ["base", "trained"]
    assert [one.title for one in matrix.columns] == ["mathvista (official)", "mathvision (official)"]
    cells = {(name, one.benchmark): cell.accuracy for (name, one), cell in matrix.cells.items()}
    assert cells == {("base", "mathvista"): 0.5, ("base", "mathvision"): 0.5, ("trained", "mathvista"): 0.75}
    assert all(cell.difference is None for cell in matrix.cells.values())


def test_differences_to_the_baseline_are_those_of_compare(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a", "rrwwwwww"), make(tmp_path / "b", "rrrrrrrw", model="trained")
    matrix = build_matrix([a, b], baseline="base")
    cell = matrix.cells["trained", column()]
    assert cell.difference == compare(a, b).overall
    assert cell.adjusted == cell.difference.p
    assert (matrix.methods, matrix.notes) == ([ONE_EACH], [])
    assert matrix.cells["base", column()].difference is None


@pytest.mark.parametrize("wanted", ["base", "a/mathvista", "a"])
def test_a_baseline_is_named_by_model_result_or_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make(Path("a/mathvista"), "rrww")
    make(Path("b/mathvista"), "rrrw", model="trained")
    assert build_matrix(["a/mathvista", "b/mathvista"], baseline=wanted).baseline == "base"


def test_another_baseline_is_refused_with_the_models_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'other' is none of the exported results; the models are base"):
        build_matrix([make(tmp_path / "a", "rw")], baseline="other")


@pytest.mark.parametrize(
    ("values", "adjusted"),
    [
        ([], []),
        ([0.04], [0.04]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.9, 0.8], [1.0, 1.0]),
    ],
)
def test_holm_adjusts_each_p_for_those_not_yet_rejected(
    values: Sequence[float], adjusted: Sequence[float]
) -> None:
    """Third case: the example of R's ``p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")``."""
    assert holm(values) == pytest.approx(adjusted)


def test_p_is_adjusted_for_all_differences_of_the_matrix(tmp_path: Path) -> None:
    folders = [make(tmp_path / "a", "wwwwwwww")]
    folders += [make(tmp_path / name, "rrrrrrrw", model=name) for name in ("b", "c")]
    matrix = build_matrix(folders, baseline="base")
    for name in ("b", "c"):
        cell = matrix.cells[name, column()]
        assert cell.difference is not None
        assert cell.adjusted == pytest.approx(2 * cell.difference.p)


def test_other_questions_than_the_baselines_are_a_note_and_no_difference(tmp_path: Path) -> None:
    a = result(tmp_path / "a", [row("x", RIGHT)], "mathvista", {"model": "base", "data_fingerprint": "2"})
    matrix = build_matrix([a, make(tmp_path / "b", "rw", model="trained")], baseline="base")
    assert matrix.cells["trained", column()].difference is None
    assert any("not compared with the baseline: no question" in note for note in matrix.notes)
    assert "mathvista (official): the results are not of the same questions" in matrix.notes


def test_several_samples_are_compared_by_question(tmp_path: Path) -> None:
    folders = []
    for name, second in (("base", WRONG), ("trained", RIGHT)):
        rows = [row(f"q{i}", RIGHT if k == 0 else second, sample=k) for i in range(4) for k in range(2)]
        folders.append(result(tmp_path / name, rows, "mathvista", {"model": name, **SAME}))
    assert build_matrix(folders, baseline="base").methods == [BY_QUESTION]


def test_two_results_of_a_model_on_a_benchmark_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    folders = [make(tmp_path / name, "rw") for name in "ab"]
    assert build_matrix(folders).rows == [f"base [{folder}]" for folder in folders]


def test_labels_name_the_models_and_must_be_as_many(tmp_path: Path) -> None:
    folders = [make(tmp_path / name, "rw") for name in "ab"]
    assert build_matrix(folders, labels=["before", "after"]).rows == ["before", "after"]
    with pytest.raises(UserError, match="1 labels for 2 results"):
        build_matrix(folders, labels=["before"])
    with pytest.raises(UserError, match="both results of one on mathvista"):
        build_matrix(folders, labels=["one", "one"])


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"predictions": "out/answers-7b.jsonl"}, "answers-7b"),
        ({}, "folder"),
        ({"model": "base", "control": "blank"}, "base (images blank)"),
    ],
)
def test_a_row_is_named_after_model_predictions_or_folder(
    tmp_path: Path, settings: dict[str, str], name: str
) -> None:
    folder = make(tmp_path / "folder", "rw", **{"model": None, **settings})
    assert build_matrix([folder]).rows == [name]


def test_protocols_are_columns_of_their_own_and_never_mixed(tmp_path: Path) -> None:
    a = make(tmp_path / "a", "rw")
    matrix = build_matrix([a], protocol="verifier")
    assert matrix.columns == [column(protocol="verifier")]
    assert matrix.cells["base", column(protocol="verifier")].accuracy == 1.0
    with pytest.raises(UserError, match=r"a has no protocol 'judge' but official, verifier"):
        build_matrix([a], protocol="judge")


def test_judges_are_columns_of_their_own(tmp_path: Path) -> None:
    folders = []
    for judge in ("gpt-4o", "gpt-4o-mini"):
        folder = make(tmp_path / judge, "rw", judge={"model": judge})
        text = (folder / "summary.json").read_text().replace("official", "judge")
        (folder / "summary.json").write_text(text)
        folders.append(folder)
    titles = [one.title for one in build_matrix(folders).columns]
    assert titles == ["mathvista (judge gpt-4o)", "mathvista (judge gpt-4o-mini)"]


def test_splits_are_columns_unless_the_data_are_the_same(tmp_path: Path) -> None:
    folders = [
        make(tmp_path / "a", "rw"),
        make(tmp_path / "b", "rw", model="trained", split="testmini"),
        make(tmp_path / "c", "rw", split="test", data_fingerprint="3"),
    ]
    titles = [one.title for one in build_matrix(folders).columns]
    assert titles == ["mathvista testmini (official)", "mathvista test (official)"]


def test_flags_of_the_results_are_notes(tmp_path: Path) -> None:
    matrix = build_matrix([make(tmp_path / "a", "r-")])
    (note,) = [one for one in matrix.notes if one.startswith("base, mathvista (official): official gave no")]
    assert "1 of 2" in note
