"""Tables of results as CSV, Markdown and LaTeX: numbers, and names with the formats' own characters."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from eval.export.matrix import Matrix, build_matrix
from eval.export.tables import csv_table, latex_escaped, latex_table, markdown_escaped, markdown_table
from tests.fakes.results import RIGHT, UNJUDGED, WRONG, result, row

NAME = r"my_a|b & 100%"


def make(folder: Path, model: str, right: int, total: int = 40, name: str = "mathvista") -> Path:
    rows = [row(f"q{place}", RIGHT if place < right else WRONG) for place in range(total)]
    return result(folder, rows, name, {"model": model, "data_fingerprint": name})


@pytest.fixture
def matrix(tmp_path: Path) -> Matrix:
    folders = [
        make(tmp_path / "a", "base", 20),
        make(tmp_path / "b", NAME, 30),
        make(tmp_path / "c", NAME, 1, 2, "we_math"),
    ]
    return build_matrix(folders, baseline="base")


def read(text: str) -> dict[str, dict[str, str]]:
    return {line["model"]: line for line in csv.DictReader(io.StringIO(text))}


def test_csv_has_each_number_in_a_column_of_its_own(matrix: Matrix) -> None:
    found = read(csv_table(matrix))
    own = found[NAME]
    # Wilson's interval of 30 of 40, McNemar's exact p of 10 gained and none lost.
    assert [own[f"mathvista (official){part}"] for part in ("", " low", " high", " n")] == [
        "75.00", "59.81", "85.81", "40",
    ]  # fmt: skip
    assert own["mathvista (official) difference"] == "25.00"
    assert float(own["mathvista (official) p"]) == pytest.approx(2 / 2**10, rel=1e-2)
    assert own["mathvista (official) p (Holm)"] == own["mathvista (official) p"]
    assert found["base"]["mathvista (official) difference"] == ""
    assert found["base"]["we_math (official)"] == ""


def test_csv_without_a_baseline_has_no_differences(tmp_path: Path) -> None:
    (line,) = read(csv_table(build_matrix([make(tmp_path / "a", 'the "best", ever', 3)]))).values()
    assert line["model"] == 'the "best", ever'
    assert not any("difference" in name for name in line)


def test_markdown_is_a_table_whose_rows_have_as_many_cells_as_its_head(matrix: Matrix) -> None:
    lines = markdown_table(matrix).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {4}
    assert rows[0] == "| model | mathvista (official) | we\\_math (official) |"
    assert rows[2] == "| base | 50.0 (35.2 – 64.8) | – |"
    assert rows[3].startswith(r"| my\_a\|b & 100% | 75.0 (59.8 – 85.8), +25.0\* | 50.0 (")


def test_a_table_says_what_its_numbers_mean(matrix: Matrix) -> None:
    for text in (markdown_table(matrix), latex_table(matrix)):
        plain = text.replace("\\", "")
        assert "mathvista (official): n = 40" in plain
        assert "difference to base in points" in plain
        assert "Newcombe's method 10, McNemar's exact test" in plain
        assert "adjusted for 1 comparisons by Holm's method" in plain


def test_latex_has_no_character_of_its_own_left_in_a_name(matrix: Matrix) -> None:
    text = latex_table(matrix)
    assert r"my\_a\textbar{}b \& 100\% & 75.0 (59.8 -- 85.8), +25.0* & 50.0 (" in text
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body.splitlines() if line} == {2}
    assert all(line.endswith(r"\\") for line in body.splitlines() if line)


def test_a_loss_has_a_minus_sign(tmp_path: Path) -> None:
    folders = [make(tmp_path / "a", "base", 30), make(tmp_path / "b", "other", 29)]
    matrix = build_matrix(folders, baseline="base")
    assert ", −2.5 |" in markdown_table(matrix)
    assert r", $-$2.5 \\" in latex_table(matrix)


def test_a_result_without_a_score_is_a_dash(tmp_path: Path) -> None:
    folder = result(tmp_path / "a", [row("q", UNJUDGED)], "mathvista", {"model": "base"})
    matrix = build_matrix([folder])
    assert "| base | – |" in markdown_table(matrix)
    assert read(csv_table(matrix))["base"]["mathvista (official)"] == ""


def test_notes_are_a_list_in_markdown_and_comments_in_latex(tmp_path: Path) -> None:
    matrix = build_matrix([result(tmp_path / "a", [row("q", UNJUDGED)], "mathvista", {"model": "a\nb"})])
    assert any(line.startswith("- a b, mathvista") for line in markdown_table(matrix).splitlines())
    after = latex_table(matrix).split(r"\end{table}" + "\n")[1]
    assert after.startswith("% a b, mathvista")
    assert all(line.startswith("%") for line in after.splitlines())


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        (r"a\b_c", r"a\textbackslash{}b\_c"),
        ("{x}^2~#$", r"\{x\}\textasciicircum{}2\textasciitilde{}\#\$"),
        ("<a|b>", r"\textless{}a\textbar{}b\textgreater{}"),
        ("two\n lines", "two lines"),
    ],
)
def test_latex_characters_are_escaped(text: str, escaped: str) -> None:
    assert latex_escaped(text) == escaped


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b_c*d", r"a\|b\_c\*d"),
        ("<b>`x`</b>", r"\<b\>\`x\`\</b\>"),
        ("R&D &amp; co", r"R&D \&amp; co"),
        ("$x$", r"\$x\$"),
        ("two\n lines", "two lines"),
    ],
)
def test_markdown_characters_are_escaped(text: str, escaped: str) -> None:
    assert markdown_escaped(text) == escaped
