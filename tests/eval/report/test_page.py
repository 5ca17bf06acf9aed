"""The page of results: numbers, security, settings."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest

from eval.report import write_page
from eval.report.page import between, points
from mm_cpgd.errors import UserError
from tests.fakes.results import NOTHING, RIGHT, WRONG, Page, mixed, page, result, row

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)><!-- ]]> \"' \x00\u202eabc\udc80"


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_scoreboard_shows_accuracy_interval_n_and_what_weakens_them_by_protocol(tmp_path: Path) -> None:
    text = words(page(tmp_path, mixed(tmp_path / "run")).text)
    # Official: one of four with a score; Wilson's interval of 1/4 worked out by its formula: 4.6–69.9 %.
    assert "25.0 % 95 % interval 4.6–69.9 % n = 4, right 1 unparsed 20.0 % (1)" in text
    # Verifier: three of five; Wilson's interval of 3/5 is 23.1–88.2 %.
    assert "60.0 % 95 % interval 23.1–88.2 % n = 5, right 3 unparsed 20.0 % (1)" in text
    assert "without a score 20.0 % (1)" in text


def test_a_mostly_truncated_benchmark_is_flagged_prominently(tmp_path: Path) -> None:
    cut = result(tmp_path / "cut", [row("q1", NOTHING, finished=False), row("q2", RIGHT)])
    shown = page(tmp_path, cut)
    assert "mostly truncated: 50.0%" in shown.text
    assert ("li", "class", "loud") in shown.attributes


def test_a_result_without_problems_has_no_flag(tmp_path: Path) -> None:
    shown = page(tmp_path, result(tmp_path / "run", [row("q1", RIGHT)]))
    assert ("ul", "class", "flags") not in shown.attributes


def test_every_group_value_has_its_interval_as_text_and_as_a_plot(tmp_path: Path) -> None:
    shown = page(tmp_path, mixed(tmp_path / "run"))
    # Of the verifier's level 1: two of two; Wilson's lower end n/(n + z²) = 2/5.841.
    assert "100.0 % 34.2–100.0 %" in words(shown.text)
    assert shown.tags.count("svg") == 6
    assert ("line", "x1", "34.24%") in shown.attributes
    assert shown.sets[0]["groups"] == {"level": ["1", "2", "10"]}


def test_several_samples_show_mean_accuracy_pass_and_majority(tmp_path: Path) -> None:
    rows = [row("q1", verdict, sample=k) for k, verdict in enumerate((RIGHT, RIGHT, WRONG))]
    shown = page(tmp_path, result(tmp_path / "run", rows))
    assert "3 samples per question (official): mean accuracy 66.7 %" in words(shown.text)
    assert "pass@1 66.7 %, pass@2 100.0 %, pass@3 100.0 %, maj@3 100.0 %" in words(shown.text)
    assert list(shown.sets[0]["questions"][0]["answers"][0]) == ["0", "1", "2"]


def test_results_of_one_benchmark_are_side_by_side(tmp_path: Path) -> None:
    before = result(tmp_path / "before", [row("q1", RIGHT, text="four"), row("q2", WRONG)])
    after = result(tmp_path / "after", [row("q1", WRONG, text="five"), row("q3", RIGHT)])
    (only,) = page(tmp_path, before, after).sets
    assert only["results"] == ["before", "after"]
    q1, q2, _ = only["questions"]
    assert [own["0"]["text"] for own in q1["answers"]] == ["four", "five"]
    assert q2["answers"][1] == {}


def test_two_results_show_their_paired_difference(tmp_path: Path) -> None:
    before = result(tmp_path / "before", [row(f"q{i}", RIGHT if i < 1 else WRONG) for i in range(4)])
    after = result(tmp_path / "after", [row(f"q{i}", RIGHT if i < 3 else WRONG) for i in range(4)])
    text = words(page(tmp_path, before, after).text)
    assert "after against before: official" in text
    assert "25.0 % 75.0 % +50.0" in text


def test_benchmarks_are_never_mixed(tmp_path: Path) -> None:
    one = result(tmp_path / "one", [row("q1", RIGHT)], name="first")
    two = result(tmp_path / "two", [row("q1", WRONG)], name="second")
    shown = page(tmp_path, one, two)
    assert [entry["name"] for entry in shown.sets] == ["first", "second"]
    assert ("section", "id", "section-2") in shown.attributes


def test_a_control_shows_its_drop(tmp_path: Path) -> None:
    whole = result(tmp_path / "whole", [row("q1", RIGHT)])
    blank = result(tmp_path / "blank", [row("q1", WRONG)])
    summary = json.loads((blank / "summary.json").read_text())
    drop = {"n": 80, "accuracy": 0.5, "control": 0.375, "drop": 0.125, "interval": [-0.01, 0.26]}
    summary["control"] = {"name": "blank", "protocols": {"official": drop}}
    (blank / "summary.json").write_text(json.dumps(summary))
    text = words(page(tmp_path, whole, blank).text)
    assert "blank official 80 50.0 % 37.5 % +12.5 −1.0 … +26.0" in text
    assert "question by question" not in text


def test_a_control_of_a_result_with_nothing_right_shows_no_drop_of_zero(tmp_path: Path) -> None:
    blank = result(tmp_path / "blank", [row("q1", WRONG)])
    summary = json.loads((blank / "summary.json").read_text())
    drop = {"n": 80, "accuracy": 0.0, "control": 0.0, "drop": 0.0, "interval": [-0.05, 0.05]}
    summary["control"] = {"name": "blank", "protocols": {"official": drop}}
    (blank / "summary.json").write_text(json.dumps(summary))
    text = words(page(tmp_path, blank).text)
    assert "blank official 80 0.0 % 0.0 % nothing to lose –" in text


def test_settings_are_on_the_page(tmp_path: Path) -> None:
    folder = result(
        tmp_path / "run", [row("q1", RIGHT)], settings={"temperature": 0.7, "prompt": HOSTILE[:-1]}
    )
    shown = page(tmp_path, folder)
    assert "temperature: 0.7" in shown.text
    assert "img" not in shown.tags


def test_two_results_with_one_label_are_distinguished_by_their_folders(tmp_path: Path) -> None:
    one, two = (result(tmp_path / name, [row("q1", RIGHT)]) for name in "ab")
    path = write_page(tmp_path / "page.html", [("model", one), ("model", two)])
    labels = Page(path.read_text()).sets[0]["results"]
    assert labels == [f"model ({one})", f"model ({two})"]


def test_no_text_of_a_model_or_of_data_becomes_markup(tmp_path: Path) -> None:
    plain, hostile = (
        Page(write_page(tmp_path / "page.html", [(text, spoiled(tmp_path / name, text))]).read_text())
        for name, text in (("plain", "harmless"), ("hostile", HOSTILE))
    )
    assert hostile.tags == plain.tags
    assert hostile.sets[0]["questions"][0]["answers"][0]["0"]["text"].startswith("</script><script>")


def spoiled(folder: Path, text: str) -> Path:
    """Write a result with ``text`` in every field that a model, a data set or another program controls."""
    result(folder, [row("q1", RIGHT)])
    verdict = {"extracted": text, "score": 1.0, "reason": text, "status": text}
    record = json.loads((folder / "rows.jsonl").read_text()) | {
        "id": text, "response": text, "question": text, "answer": text, "choices": [text],
        "groups": {text: [text]}, "images": [text], "protocols": {text: verdict},
    }  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    own = summary["protocols"].pop("official")
    own |= {"groups": {text: {text: own["overall"]}}, "metrics": {text: {text: text}}}
    summary |= {"benchmark": text, "protocol": text, "protocols": {text: own}, "flags": [text]}
    summary |= {"settings": {text: text, "model": text}}
    # As escapes, because a lone surrogate is not valid UTF-8.
    (folder / "rows.jsonl").write_text(json.dumps(record) + "\n")
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_only_the_pages_own_script_may_run(tmp_path: Path) -> None:
    shown = page(tmp_path, mixed(tmp_path / "run"))
    policy = next(
        value
        for tag, name, value in shown.attributes
        if tag == "meta" and name == "content"
        if "src" in (value or "")
    )
    digest = base64.b64encode(hashlib.sha256(shown.scripts["code"].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in (policy or "")
    assert "default-src 'none'" in (policy or "")


def test_the_script_writes_texts_as_text_nodes_alone(tmp_path: Path) -> None:
    code = page(tmp_path, mixed(tmp_path / "run")).scripts["code"]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", code)


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    shown = page(tmp_path, mixed(tmp_path / "run"))
    assert not {"link", "iframe", "object", "embed"} & set(shown.tags)
    loaded = [value for _, name, value in shown.attributes if name in ("src", "href")]
    assert all((value or "").startswith("#") for value in loaded)


def test_numbers_are_formatted_for_reading() -> None:
    assert between({"interval": [0.0456, 0.6994]}) == "4.6–69.9 %"
    assert (points(0.125), points(-0.003), points(None)) == ("+12.5", "−0.3", "–")


def test_no_result_and_another_runs_folder_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one result folder"):
        write_page(tmp_path / "page.html", [])
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(UserError, match="has no benchmark, so it is not a result"):
        write_page(tmp_path / "page.html", [("x", tmp_path)])


def test_the_page_needs_no_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "import sys, eval.report; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_report_command_writes_a_results_page(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from mm_cpgd.cli.main import app

    mixed(tmp_path / "run")
    assert CliRunner().invoke(app, ["report", str(tmp_path / "run")]).exit_code == 0
    assert Page((tmp_path / "run" / "report.html").read_text()).sets[0]["results"] == ["run"]
