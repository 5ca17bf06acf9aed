"""Published tables: the shipped files keep their schema, and files of users are checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from eval.benchmarks import benchmark_names
from eval.reference.tables import FOLDER, load_ours, load_published, read_table, same_benchmark, shown_number
from mm_cpgd.errors import UserError

PUBLISHED = load_published()
TABLE = {
    "source": "A table",
    "url": "https://example.org/a",
    "read": "from it",
    "rule": "official",
    "origin": "own run",
    "settings": {"temperature": 0.0, "max_pixels": 1000},
    "columns": [{"benchmark": "mathvista", "n": 1000}, {"benchmark": "mathverse", "value": None}],
    "rows": [
        {"model": "M-7B", "numbers": [68.2, None], "note": "of May"},
        {"model": "N-7B", "numbers": [50.0, 40.25], "origin": "taken over", "rule": "a judge's"},
    ],
}


def write(folder: Path, **changes: object) -> Path:
    path = folder / "table.yaml"
    path.write_text(yaml.safe_dump({**TABLE, **changes}))
    return path


def test_a_table_gives_one_number_per_cell_that_has_one(tmp_path: Path) -> None:
    numbers = read_table(write(tmp_path))
    assert [(one.model, one.benchmark, one.number) for one in numbers] == [
        ("M-7B", "mathvista", 68.2),
        ("N-7B", "mathvista", 50.0),
        ("N-7B", "mathverse", 40.25),
    ]
    first, second, third = numbers
    assert (first.rule, first.origin, first.note, first.n) == ("official", "own run", "of May", 1000)
    assert (second.rule, second.origin) == ("a judge's", "taken over")
    assert (first.value, third.value) == ("accuracy", None)


def test_settings_are_behind_the_numbers_of_the_sources_own_runs_only(tmp_path: Path) -> None:
    own, other, _ = read_table(write(tmp_path))
    assert own.settings.stated() == {"temperature": 0.0, "max_pixels": 1000}
    assert other.settings.stated() == {}


def test_settings_of_a_row_or_column_go_before_those_of_the_table(tmp_path: Path) -> None:
    columns = [{"benchmark": "mathvista", "settings": {"max_pixels": 2000}}]
    rows = [{"model": "M", "numbers": [1.0], "settings": {"temperature": None}}]
    (number,) = read_table(write(tmp_path, columns=columns, rows=rows))
    assert number.settings.stated() == {"max_pixels": 2000}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rows": [{"model": "M-7B", "numbers": [1.0]}]}, "M-7B has 1 numbers in 2 columns"),
        ({"rows": [{"model": "M-7B", "numbers": [0.682, 682.0]}]}, "not between 0 and 100"),
        ({"url": "example"}, "url"),
        ({"origin": "guessed"}, "origin"),
        ({"sourse": "x"}, "sourse"),
        ({"settings": {"pixels": 3}}, "pixels"),
        ({"rows": []}, "rows"),
    ],
)
def test_a_file_that_is_no_table_is_one_message(
    tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        read_table(write(tmp_path, **changes))


@pytest.mark.parametrize(("text", "says"), [(None, "cannot be read"), ("a: [", "is not YAML")])
def test_a_file_that_cannot_be_read_is_one_message(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "table.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=says):
        read_table(path)


def test_files_of_users_follow_the_shipped_numbers(tmp_path: Path) -> None:
    numbers = load_published([write(tmp_path)])
    assert numbers[: len(PUBLISHED)] == PUBLISHED
    assert [one.model for one in numbers[len(PUBLISHED) :]] == ["M-7B", "N-7B", "N-7B"]


def test_every_shipped_file_is_a_table_of_its_own_source() -> None:
    files = sorted(FOLDER.glob("*.yaml"))
    sources = [{(one.source, one.url) for one in read_table(path)} for path in files]
    assert len(files) > 10
    assert all(len(one) == 1 for one in sources)
    assert len(set().union(*sources)) == len(files)


def test_every_shipped_number_says_how_it_was_read_and_where_it_stands() -> None:
    for one in PUBLISHED:
        assert one.read.startswith("from"), one
        assert re.search(r"arXiv \d{4}\.\d{5}.*[Tt]able|README|model card", one.source), one.source


def test_no_source_gives_two_numbers_of_the_same_meaning() -> None:
    keys = [(one.source, one.model, one.benchmark, one.split, one.value) for one in PUBLISHED]
    assert len(keys) == len(set(keys))


def test_the_paper_of_cpgd_is_in_the_tables_as_it_was_published() -> None:
    """Three rows of its Table 1."""
    rows = {
        model: [one.number for one in PUBLISHED if one.model == model and "2505.12504" in one.source]
        for model in ("Qwen2.5-VL-7B", "MM-Eureka-7B", "MM-Eureka-CPGD-7B")
    }
    assert rows == {
        "Qwen2.5-VL-7B": [68.2, 47.9, 25.4, 20.2, 62.1, 53.6],
        "MM-Eureka-7B": [73.0, 50.3, 26.9, 20.1, 66.1, 64.5],
        "MM-Eureka-CPGD-7B": [74.0, 50.6, 28.3, 21.4, 68.3, 65.3],
    }


def test_the_seven_benchmarks_of_the_first_papers_have_published_numbers() -> None:
    known = {one.benchmark for one in PUBLISHED}
    for name in ("mathvista", "mathverse", "mathvision", "olympiadbench", "wemath", "mmk12", "k12"):
        assert name in known
        assert name in benchmark_names()


def test_numbers_of_our_own_runs_keep_their_schema() -> None:
    assert all(one.command.startswith("mm-cpgd eval") for one in load_ours())


def test_names_of_a_benchmark_differ_in_case_and_marks_only() -> None:
    assert same_benchmark("MMMU-Pro", "mmmu_pro")
    assert not same_benchmark("mmmu", "mmmu_pro")


@pytest.mark.parametrize(("number", "shown"), [(68.2, "68.2"), (74, "74.0"), (23.98, "23.98")])
def test_a_number_is_shown_with_the_digits_of_its_source(number: float, shown: str) -> None:
    assert shown_number(number) == shown


def test_the_names_of_benchmarks_are_those_of_the_commands() -> None:
    names = {(one.benchmark, one.split) for one in PUBLISHED}
    other = {
        (name, split)
        for name, split in names
        if not any(
            same_benchmark(one, known) for one in (name, f"{name} {split}") for known in benchmark_names()
        )
    }
    # Qwen2.5-VL's report does not say which part of MEGA-Bench.
    assert other == {("megabench", None)}
