"""``mm-cpgd score`` and ``mm-cpgd compare`` from the command line to the result folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_cpgd.cli.main import main
from tests.fakes.chat_server import chat_reply, stub_server
from tests.fakes.scoring import OWN_BENCHMARK, write_lines
from tests.paths import DATASETS, ROOT

SHARED = DATASETS
QUESTIONS = [
    {"id": "a", "question": "2 + 2?", "answer": "4", "digits": 1},
    {"id": "b", "question": "3 + 4?", "answer": "7", "digits": 1},
    {"id": "c", "question": "40 + 2?", "answer": "42", "digits": 2},
]
ANSWERS = [
    {"id": "a", "response": "4"},
    {"id": "b", "response": r"\boxed{7.0}"},
    {"id": "c", "response": "40"},
]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the commands: own benchmark, questions, predictions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "sums.py").write_text(OWN_BENCHMARK)
    write_lines(tmp_path / "questions.jsonl", QUESTIONS)
    write_lines(tmp_path / "answers.jsonl", ANSWERS)
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run ``mm-cpgd``; return what it printed, or its one message where it ends with status 2."""

    def command(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["mm-cpgd", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err + printed.out
        if caught.value.code == 2:
            assert printed.err.count("mm-cpgd: ") == 1, printed.err
            return printed.err
        assert not caught.value.code
        return printed.out

    return command


def scoring(**changed: Any) -> list[object]:
    """The arguments of a plain ``score``; None takes one out, True makes it a flag."""
    options = {
        "benchmark": "sums.py",
        "data": "questions.jsonl",
        "predictions": "answers.jsonl",
        "output": "out",
        **changed,
    }
    parts: list[object] = ["score"]
    for name, value in options.items():
        if value is not None:
            parts += (
                [f"--{name.replace('_', '-')}"] if value is True else [f"--{name.replace('_', '-')}", value]
            )
    return parts


def summary(folder: str = "out") -> Any:
    return json.loads(Path(folder, "summary.json").read_text())


def test_protocols_are_side_by_side_and_the_output_ends_with_the_paths(run: Callable[..., str]) -> None:
    printed = run(*scoring(protocol="official,verifier"))
    official, verifier = (
        line for line in printed.splitlines() if "│ official" in line or "│ verifier" in line
    )
    assert [cell.strip() for cell in official.split("│")[2:6]] == ["3", "33.3", "6.1 – 79.2", "0.0"]
    assert [cell.strip() for cell in verifier.split("│")[2:4]] == ["3", "66.7"]
    assert "summary: out/summary.json\nrows: out/rows.jsonl" in printed
    assert summary()["groups"]["digits"]["1"]["correct"] == 1


def test_settings_record_what_was_scored_and_with_what(run: Callable[..., str]) -> None:
    run(*scoring(limit=2))
    settings = summary()["settings"]
    assert (settings["benchmark"], settings["data"], settings["limit"]) == ("sums.py", "questions.jsonl", 2)
    assert settings["predictions"] == "answers.jsonl"
    assert settings["protocols"] == ["official"]
    assert len(settings["data_fingerprint"]) == len(settings["predictions_fingerprint"]) == 16
    assert {"python", "sympy"} <= set(settings["packages"])


def test_partial_predictions_are_flagged_with_advice(run: Callable[..., str]) -> None:
    write_lines(Path("answers.jsonl"), ANSWERS[:1])
    printed = run(*scoring())
    assert "! 2 of 3 responses are missing and count as wrong" in printed
    assert "--only-answered" in printed
    assert summary()["overall"]["total"] == 3


def test_only_the_answered_questions_are_scored_on_request_and_the_result_says_so(
    run: Callable[..., str],
) -> None:
    write_lines(Path("answers.jsonl"), ANSWERS[:1])
    printed = run(*scoring(only_answered=True))
    assert (summary()["overall"]["correct"], summary()["overall"]["total"]) == (1, 1)
    assert summary()["flags"] == ["only the 1 questions with a response were scored, of 3"]
    assert "! only the 1 questions" in printed


def test_a_limit_takes_the_first_questions_and_ignores_other_responses(run: Callable[..., str]) -> None:
    run(*scoring(limit=2))
    assert summary()["overall"]["total"] == 2
    assert summary()["flags"] == []


def test_responses_to_unknown_questions_are_counted(run: Callable[..., str]) -> None:
    write_lines(Path("answers.jsonl"), [*ANSWERS, {"id": "z", "response": "1"}])
    assert "responses to 1 ids that are not in the data were ignored, first 'z'" in run(*scoring())


def test_samples_print_pass_and_majority(run: Callable[..., str]) -> None:
    write_lines(Path("answers.jsonl"), [*ANSWERS, *[{**one, "response": "4"} for one in ANSWERS]])
    printed = run(*scoring())
    assert "2 samples per question: mean@2 33.3 (" in printed
    # One right question of three in every metric, with Wilson's interval.
    assert all(f"{name} 33.3 (6.1 – 79.2)" in printed for name in ("mean@2", "pass@1", "pass@2", "maj@2"))


def test_a_result_is_replaced_on_request_only(run: Callable[..., str]) -> None:
    run(*scoring())
    assert "out already contains a result; name another --output, or add --overwrite" in run(*scoring())
    run(*scoring(overwrite=True, protocol="verifier"))
    assert summary()["protocol"] == "verifier"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"benchmark": "mathvison"}, "no benchmark 'mathvison': did you mean 'mathvision'"),
        ({"benchmark": "gone.py"}, "there is no Python file"),
        ({"protocol": "offical"}, "no protocol 'offical': did you mean 'official'"),
        ({"protocol": ","}, "no protocol is named"),
        ({"predictions": "gone.jsonl"}, "the predictions file gone.jsonl does not exist"),
        ({"predictions": "questions.jsonl"}, "questions.jsonl:1 has no column response"),
        ({"limit": 0}, "--limit 0 must be at least 1"),
        ({"protocol": "judge"}, "give --judge-url and --judge-model"),
        ({"benchmark": "mathvision", "data": "gone.jsonl"}, "gone.jsonl"),
    ],
)
def test_a_mistake_is_one_message(run: Callable[..., str], changed: dict[str, Any], says: str) -> None:
    assert says in run(*scoring(**changed))
    assert not Path("out").exists()


def test_a_report_of_a_failure_has_no_score_and_its_reason_is_shown(run: Callable[..., str]) -> None:
    rows = [{"id": "a", "response": None, "error": "429"}, {"id": "b", "response": None}, ANSWERS[2]]
    write_lines(Path("answers.jsonl"), rows)
    printed = run(*scoring())
    assert (
        "1 of 3 responses are not there and have no score: 1 times not_answered: the file reports" in printed
    )
    assert "a failure (first: 429)\n" in printed
    assert "1 of 3 responses are missing and count as wrong" in printed
    assert "some questions have no response" not in printed
    assert summary()["missing"]["count"] == 2
    assert summary()["unanswered"]["count"] == 1
    assert summary()["overall"]["total"] == 2
    scores = [json.loads(line)["score"] for line in Path("out/rows.jsonl").read_text().splitlines()]
    assert scores == [None, 0.0, 0.0]


def test_the_rows_of_a_result_keep_its_failures_when_they_are_scored_again(run: Callable[..., str]) -> None:
    write_lines(Path("answers.jsonl"), [{"id": "a", "error": "429"}, *ANSWERS[1:]])
    run(*scoring())
    run(*scoring(predictions="out/rows.jsonl", output="again"))
    assert summary("again")["overall"] == summary()["overall"]
    assert summary("again")["missing"]["count"] == 1


def test_a_file_of_failures_alone_is_refused(run: Callable[..., str]) -> None:
    write_lines(Path("answers.jsonl"), [{"id": "a", "response": "Failed to obtain answer via API."}])
    assert "answers.jsonl has no response to score: the file reports a failure: Failed" in run(*scoring())


def test_columns_and_a_mark_of_failure_may_be_named(run: Callable[..., str]) -> None:
    rows = [{"key": one["id"], "n": 0, "reply": one["response"], "asked": "2 + 2?"} for one in ANSWERS]
    write_lines(Path("answers.jsonl"), [*rows, {**rows[0], "n": 1, "reply": "gone: 504"}])
    options = {
        "id_column": "key",
        "response_column": "reply",
        "sample_column": "n",
        "question_column": "asked",
    }
    printed = run(*scoring(**options, failure_mark="gone:"))
    assert "in 2 of 4 responses the file's own question is not the data's, first id 'b'" in printed
    assert "the file reports a failure (first: gone: 504)" in printed
    stored = summary()["settings"]
    assert stored["columns"] == {"id": "key", "response": "reply", "sample": "n", "question": "asked"}
    assert stored["failure_marks"] == ["gone:"]


def test_the_judge_is_called_and_stored_with_the_result(run: Callable[..., str]) -> None:
    with stub_server(chat_reply('{"verdict": "correct", "reason": "the same"}')) as stub:
        printed = run(
            *scoring(
                protocol="judge,official", judge_url=stub.url, judge_model="tiny", judge_cache="known.jsonl"
            )
        )
        # The response to a is literally the gold answer, which needs no judge.
        assert len(stub.asked) == 2
    assert "2 requests" in printed
    assert summary()["protocols"]["judge"]["overall"]["correct"] == 3
    assert summary()["protocols"]["official"]["overall"]["correct"] == 1
    assert summary()["settings"]["judge"]["model"] == "tiny"


def test_judges_by_name_are_columns_of_their_own_and_say_whose_rule_they_are(run: Callable[..., str]) -> None:
    with stub_server(chat_reply("Yes")) as stub:
        printed = run(
            *scoring(
                protocol="judge:whole,official", judge_url=stub.url, judge_model="tiny", judge_cache="k.jsonl"
            )
        )
        asked = len(stub.asked)
    assert f"judge: {asked} requests" in printed
    assert summary()["protocol"] == "judge:whole"
    assert summary()["protocols"]["judge:whole"]["overall"]["correct"] == asked == 3
    assert summary()["settings"]["judge"]["rules"] == {"judge:whole": "whole"}


def test_a_judge_that_the_benchmark_lacks_is_one_message(run: Callable[..., str]) -> None:
    printed = run(*scoring(protocol="judge:published"))
    assert "has no protocol 'judge:published': it has official, verifier, judge, judge:general" in printed


def test_compare_shows_the_difference_and_writes_it_as_json_and_as_a_page(run: Callable[..., str]) -> None:
    run(*scoring(output="before"))
    write_lines(Path("answers.jsonl"), [{**one, "response": "42"} for one in ANSWERS])
    run(*scoring(output="after"))
    printed = run("compare", "before", "after", "--json", "changes.json", "--output", "changes.html")
    assert "2 responses changed: 1 gained, 1 lost" in printed
    assert "lost   a: '4' → '42', gold '4'" in printed
    assert "p = 1 (Newcombe's method 10, McNemar's exact test)" in printed
    written = json.loads(Path("changes.json").read_text())
    assert (written["a"], written["b"], written["overall"]["gained"]) == ("before", "after", 1)
    assert "before" in Path("changes.html").read_text()


def test_compare_writes_its_files_though_its_output_is_cut_off(run: Callable[..., str]) -> None:
    run(*scoring(output="before"))
    command = [sys.executable, "-m", "mm_cpgd", "compare", "before", "before", "--json", "a/changes.json"]
    with subprocess.Popen(
        [*command, "--output", "changes.html"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        # As `| head -0` does: the first line that is printed finds a closed pipe.
        assert process.stdout is not None
        process.stdout.close()
        process.wait(timeout=120)
    assert json.loads(Path("a/changes.json").read_text())["overall"]["total"] == 3
    assert "before" in Path("changes.html").read_text()


def test_texts_that_the_terminal_cannot_show_do_not_end_the_command(files: Path) -> None:
    # Half of a pair of surrogates, as a tokenizer that is cut off leaves it, in a group and in the flags.
    questions = [{**QUESTIONS[0], "digits": "\ud800 \u00fc"}]
    (files / "odd.jsonl").write_text(json.dumps(questions[0]) + "\n")
    command = [sys.executable, "-m", "mm_cpgd", "score", "--benchmark", "sums.py", "--data", "odd.jsonl",
               "--predictions", "answers.jsonl", "--output", "odd"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(command, cwd=files, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), ended.stderr
    assert r"\ud800" in ended.stdout


def test_compare_of_what_is_no_result_is_one_message(run: Callable[..., str]) -> None:
    assert "gone is not a result folder: it has no summary.json" in run("compare", "gone", "gone")


def test_scoring_loads_neither_torch_nor_transformers(files: Path) -> None:
    code = (
        "import sys; from mm_cpgd.cli.main import app\n"
        f"app({[str(one) for one in scoring(protocol='official,verifier')]!r}, standalone_mode=False)\n"
        "loaded = {'torch', 'transformers', 'datasets', 'mm_cpgd.policy'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=files, capture_output=True)
    assert summary()["overall"]["total"] == 3


@pytest.mark.shared
def test_all_published_responses_to_mathvision_are_scored(run: Callable[..., str]) -> None:
    folder = SHARED / "mathvision"
    if not folder.is_dir():
        pytest.skip(f"the real data is not at {folder}")
    answers = folder / "predictions" / "qwen-vl-max-cot.jsonl"
    run(
        *scoring(benchmark="mathvision", data=folder / "test.jsonl", predictions=answers, protocol="verifier")
    )
    assert summary()["overall"]["total"] + summary()["unscored"]["count"] == 3040
    assert summary()["missing"]["count"] == 0
