"""``mm-cpgd eval`` from the command line to the result folder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mm_cpgd.cli.main import main
from tests.fakes.chat_server import HttpReply, chat_reply, stub_server

Run = Callable[..., str]

BENCHMARK = """
from data import Example, read_rows
from data.images import image_ref
from eval.benchmark import Benchmark
from rewards import Status, Verdict
from pathlib import Path

def load(source):
    folder = Path(source.path)
    rows = [row.values for row in read_rows(folder / "rows.jsonl")]
    return [
        Example(row["id"], row["question"], row["answer"], make_images(row, folder))
        for row in rows[: source.limit]
    ]

def make_images(row, folder):
    return tuple(image_ref(one, folder=folder) for one in row["images"])

def official(example, response):
    right = float(len(response.text) % 2)
    return Verdict(right, Status.CORRECT if right else Status.WRONG, response.text[:5])

def prompt(example):
    return example.question + " Say it."

benchmark = Benchmark("own", "nowhere", load, prompt, official, max_new_tokens=4)
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's own benchmark: five rows, four of them with an image."""
    (tmp_path / "own.py").write_text(BENCHMARK)
    folder = tmp_path / "rows"
    folder.mkdir()
    rows = []
    for number in range(5):
        images = [f"{number}.png"] if number else []
        rows.append({"id": f"q{number}", "question": f"How many {number}?", "answer": "3", "images": images})
        if number:
            Image.new("RGB", (56 + number, 56), (number, 0, 0)).save(folder / f"{number}.png")
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


@pytest.fixture
def run(
    own: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run:
    """Run ``mm-cpgd eval`` on it; return what was printed."""
    monkeypatch.chdir(own)
    monkeypatch.setenv("XDG_CACHE_HOME", str(own / "cache"))

    def call(*arguments: object, model: bool = True, status: int = 0) -> str:
        given = ["--model", tiny_folder, "--benchmark", "own.py", "--data", "rows"] if model else []
        monkeypatch.setattr(sys, "argv", ["mm-cpgd", "eval", *map(str, [*given, *arguments])])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capfd.readouterr()
        assert (caught.value.code or 0) == status, printed.err
        assert "Traceback" not in printed.err
        return printed.err if status else printed.out

    return call


def summary(folder: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(Path(folder, "summary.json").read_text())
    return read


def rows(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "rows.jsonl").read_text().splitlines()]


def test_a_run_is_stored_with_everything_that_determines_it(run: Run, tiny_folder: Path) -> None:
    printed = run("--output", "out", "--max-pixels", "6000", "--system-prompt", "Look.", "--limit", "4")
    assert "out/report.html" in printed
    assert Path("out/report.html").stat().st_size > 10_000
    found = summary("out/own")
    assert found["overall"]["total"] == 4
    settings = found["settings"]
    assert settings["model"] == str(tiny_folder)
    assert len(settings["model_id"]) == 16
    expected = {
        "benchmark": "own.py", "data": "rows", "limit": 4, "samples": 1, "temperature": 0, "seed": 0,
        "protocols": ["official", "verifier"], "max_new_tokens": 4, "max_pixels": 6000, "min_pixels": None,
        "system_prompt": "Look.", "dtype": "float32", "control": None, "first_prompt": "How many 0? Say it.",
    }  # fmt: skip
    assert {name: settings[name] for name in expected} == expected
    assert settings["packages"]["transformers"]
    assert "--system-prompt Look." in settings["command"]
    assert settings["generation"]["from_cache"] == 0
    assert [row["tokens"] for row in rows("out/own")] == [4, 4, 4, 4]
    assert [row["finished"] for row in rows("out/own")] == [False] * 4


def test_a_second_run_generates_only_what_changed(run: Run, own: Path) -> None:
    run("--output", "out")
    before = rows("out/own")
    Image.new("RGB", (80, 80), "blue").save(own / "rows" / "2.png")
    assert "5 responses (4 from the cache)" in run("--output", "out")
    changed = [new["id"] for old, new in zip(before, rows("out/own"), strict=True) if old != new]
    assert changed in ([], ["q2"])
    assert "5 responses (0 from the cache)" in run("--output", "out", "--no-cache")


def test_damaged_cache_lines_are_generated_again(run: Run, own: Path) -> None:
    run("--output", "out")
    before = rows("out/own")
    (file,) = (own / "cache" / "mm-cpgd" / "answers").iterdir()
    lines = [line for line in file.read_text().splitlines() if line]
    lies = lines[0].replace('"tokens": 4', '"tokens": 3')
    file.write_text("\n".join([lies, lines[1][: len(lines[1]) // 2], *lines[2:]]))
    assert "5 responses (3 from the cache)" in run("--output", "out")
    assert rows("out/own") == before


def test_controls_are_beside_their_result_with_the_accuracy_drop(run: Run) -> None:
    printed = run("--output", "out", "--control", "blank,shuffled")
    assert "Controls: accuracy" in printed
    for name in ("blank", "shuffled"):
        found = summary(f"out/own-{name}")
        assert found["settings"]["control"] == name
        # The row without an image is not part of a control.
        assert [row["id"] for row in rows(f"out/own-{name}")] == ["q1", "q2", "q3", "q4"]
        cost = found["control"]["protocols"]["official"]
        own_scores = [row["score"] for row in rows("out/own")[1:]]
        scores = [row["score"] for row in rows(f"out/own-{name}")]
        assert cost["n"] == 4
        assert cost["accuracy"] == sum(own_scores) / 4
        assert cost["drop"] == (sum(own_scores) - sum(scores)) / 4
        assert cost["interval"][0] <= cost["drop"] <= cost["interval"][1]
    assert "control" not in summary("out/own")


def test_a_stored_result_can_be_repeated_from_itself_alone(run: Run) -> None:
    options = ["--temperature", "1", "--seed", "5", "--samples", "2", "--system-prompt", "Look."]
    run("--output", "out", "--top-p", "0.9", *options)
    printed = run("--like", "out/own", "--no-cache", model=False)
    assert "0 responses changed" in printed
    assert "! changed" not in printed
    assert rows("out/own-again/own") == rows("out/own")
    again, before = summary("out/own-again/own")["settings"], summary("out/own")["settings"]
    different = {name for name in before if before[name] != again[name]}
    assert different <= {"command", "generation"}


def test_a_repetition_reports_what_differs(run: Run, own: Path) -> None:
    run("--output", "out")
    Image.new("RGB", (80, 80), "blue").save(own / "rows" / "2.png")
    printed = run("--like", "out/own/summary.json", "--output", "again", model=False)
    assert "changed: images fingerprint" in printed
    assert "data fingerprint" not in printed


def test_a_missing_image_is_flagged_and_does_not_stop_the_run(run: Run, own: Path) -> None:
    (own / "rows" / "3.png").unlink()
    message = run("--output", "out", "--control", "shuffled", status=3)
    assert "own lacks 1 responses, own-shuffled lacks 1 responses; run the same command again" in message
    found = summary("out/own")
    assert any("1 of 5 responses are not there" in flag and "3.png" in flag for flag in found["flags"])
    assert found["unanswered"] == {"count": 1, "share": 0.2, "statuses": {"not_answered": 1}}
    assert (found["missing"]["count"], found["overall"]["total"]) == (0, 4)
    (lost,) = (row for row in rows("out/own") if row["status"] == "not_answered")
    assert (lost["id"], lost["score"]) == ("q3", None)
    assert "3.png" in lost["reason"]
    Image.new("RGB", (59, 56)).save(own / "rows" / "3.png")
    assert "5 responses (4 from the cache)" in run("--output", "out")


def test_a_control_that_is_not_answered_at_all_is_exit_status_3(run: Run) -> None:
    answered = [chat_reply("3")] * 5
    with stub_server(*answered, HttpReply({"error": "too large"}, 400)) as stub:
        options = ["--endpoint", stub.url, "--control", "blank", "--concurrency", "1"]
        message = run("--output", "out", *options, status=3)
    assert "own-blank is skipped: none of 4 questions could be answered" in message
    assert "own-blank has no result; run the same command again" in message
    assert summary("out/own")["overall"]["total"] == 5


def test_one_folder_serves_several_benchmarks(run: Run, own: Path) -> None:
    (own / "rows").rename(own / "own")
    run("--output", "out", "--data", ".", "--limit", "2")
    assert summary("out/own")["settings"]["data"] == "own"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--samples", "3"], ["--temperature"]),
        (["--temperature", "-1"], ["--temperature"]),
        (["--top-p", "2"], ["--top-p 2"]),
        (["--limit", "0"], ["--limit"]),
        (["--protocol", "oficial"], ["oficial", "official"]),
        (["--protocol", "judge"], ["--judge-url", "--judge-model"]),
        (["--control", "blanc"], ["blanc", "blank"]),
        (["--model", "./no/such"], ["./no/such"]),
        (["--min-pixels", "9000", "--max-pixels", "4000"], ["9,000", "4,000"]),
        (["--benchmark", "mathvison"], ["mathvison", "mathvision"]),
        (["--endpoint", "here"], ["here", "http://"]),
        (["--endpoint", "http://here/v1,there"], ["'there'", "http://"]),
        (["--setting", "a=1"], ["--setting", "--endpoint"]),
        (["--setting", "effort"], ["--setting 'effort'", "key=value"]),
        (["--setting", "a=1", "--setting", "a=2"], ["--setting a is given twice"]),
        (["--endpoint", "http://here/v1", "--setting", "temperature=1"], ["use --temperature 1"]),
        (["--top-k", "-1"], ["--top-k -1"]),
        (["--min-p", "1.5"], ["--min-p 1.5"]),
        (["--declined", "right"], ["--declined", "'right'", "wrong"]),
        (["--engine", "vlm"], ["--engine", "'vlm'", "vllm"]),
        (["--dtype", "float8"], ["--dtype", "float8", "bfloat16"]),
        (["--cache", "own.py/x"], ["--no-cache"]),
    ],
)
def test_a_mistake_is_one_message(run: Run, options: list[str], says: list[str]) -> None:
    message = run("--output", "out", *options, status=2)
    assert message.count("mm-cpgd: ") == 1
    assert all(part in message for part in says), message
    assert not Path("out").exists()


def test_a_repetition_with_other_settings_is_refused(run: Run) -> None:
    run("--output", "out", "--limit", "2")
    for option in (["--seed", "3"], ["--max-new-tokens", "9"], ["--protocol", "verifier"], ["--limit", "2"]):
        assert f"{option[0]} would change" in run("--like", "out/own", *option, model=False, status=2)
    assert "no summary.json" in run("--like", "out", model=False, status=2)


def test_a_model_and_a_benchmark_must_be_named(run: Run) -> None:
    assert "--benchmark" in run("--model", "x", model=False, status=2)
    assert "--model" in run("--benchmark", "own.py", model=False, status=2)


def test_ctrl_c_keeps_finished_responses(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from eval.generate.local import LocalGenerator

    real = LocalGenerator._sample

    def interrupted(self: Any, *asked: Any) -> Any:
        monkeypatch.setattr(LocalGenerator, "_sample", stop)
        return real(self, *asked)

    def stop(self: Any, *asked: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalGenerator, "_sample", interrupted)
    assert "the same command resumes" in run("--output", "out", "--batch", "3", status=130)
    monkeypatch.setattr(LocalGenerator, "_sample", real)
    assert "5 responses (3 from the cache)" in run("--output", "out", "--batch", "3")


def test_a_server_is_evaluated_without_torch(own: Path) -> None:
    code = (
        "import sys, mm_cpgd.cli.evaluate, eval.run, eval.settings, eval.generate.server; "
        "sys.exit(' '.join(name for name in ('torch', 'transformers') if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_result_of_a_former_version_is_repeated_with_the_prompt_that_was_its_default(run: Run) -> None:
    source = Path("own.py").read_text().replace("max_new_tokens=4)", "max_new_tokens=4, published=theirs)")
    Path("own.py").write_text(
        source.replace("benchmark =", "def theirs(one):\n    return 'Hm?'\n\nbenchmark =")
    )
    run("--output", "out", "--limit", "1")
    found = summary("out/own")
    assert (found["settings"]["first_prompt"], found["settings"]["wording"]) == ("Hm?", "published")
    assert found["settings"].pop("prompt") == "published"
    Path("out/own/summary.json").write_text(json.dumps(found))
    run("--like", "out/own", "--output", "again", model=False)
    settings = summary("again/own")["settings"]
    assert (settings["first_prompt"], settings["prompt"]) == ("How many 0? Say it.", "ours")


def test_without_images_the_result_has_another_name_and_a_flag(run: Run) -> None:
    run("--output", "out", "--text-only")
    found = summary("out/own-text-only")
    assert found["settings"]["text_only"] is True
    assert "text only: the questions were asked without their images" in found["flags"]
    assert all(row["images"] == [] for row in rows("out/own-text-only"))
