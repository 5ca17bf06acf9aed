"""docs/evaluation.md and benchmarks.md: their benchmarks run as documented, their commands have options."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from eval.benchmark import DataSource, Response
from eval.benchmarks import benchmark_names, find_benchmark, python_names
from eval.declared.kinds import KINDS
from eval.scoring.score import score_responses
from mm_cpgd.cli.main import app
from tests.paths import DOCS

PAGE = (DOCS / "evaluation.md").read_text(encoding="utf-8")
DECLARED = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
(CODE,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
(DECLARATION,) = re.findall(r"```yaml\n(.*?)```", DECLARED, flags=re.DOTALL)
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", PAGE + DECLARED, flags=re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("mm-cpgd")
]


@pytest.fixture
def gauges(tmp_path: Path) -> tuple[str, DataSource]:
    (tmp_path / "gauges.py").write_text(CODE, encoding="utf-8")
    rows = [
        {"id": i, "question": "What does it show?", "value": 50, "scale": 100, "image": f"{i}.png"}
        for i in range(4)
    ]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "gauges.py"), DataSource(str(tmp_path))


def test_the_documented_benchmark_has_about_forty_lines() -> None:
    assert len(CODE.splitlines()) <= 42


def test_the_documented_benchmark_scores_by_its_own_rule(gauges: tuple[str, DataSource]) -> None:
    path, source = gauges
    benchmark = find_benchmark(path)
    examples = benchmark.load(source)
    texts = ["It is \\boxed{52}.", "It is \\boxed{52.1}.", "It is \\boxed{high}.", "\\boxed{-50}"]
    responses = [Response(str(i), text) for i, text in enumerate(texts)]
    rows = score_responses(benchmark, examples, responses, ["official", "verifier"], workers=1)
    assert [row.verdict.status.value for row in rows] == ["correct", "wrong", "unparsable_answer", "wrong"]
    assert rows[1].verdict.reason == "off by 2.1% of the scale, 2 % are allowed"
    assert benchmark.groups(examples[0]) == {"scale": ["100"]}


def test_the_documented_benchmark_sends_its_image(gauges: tuple[str, DataSource]) -> None:
    path, source = gauges
    benchmark = find_benchmark(path)
    example = benchmark.load(source)[0]
    assert benchmark.prompt(example) == "<image>\nWhat does it show?\n\nPut the number alone in \\boxed{}."
    assert [image.origin for image in example.images] == ["0.png"]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_option_of_a_documented_command_exists(line: str) -> None:
    _, name, *rest = shlex.split(line, comments=True)
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= known


def test_every_benchmark_of_the_project_is_documented() -> None:
    table = re.findall(r"^\| `(\w+)` \|", PAGE.partition("## Score stored responses")[0], flags=re.MULTILINE)
    assert sorted(set(table) - {"official", "verifier", "judge"}) == python_names()
    table = re.findall(r"^\| `(\w+)` \|", DECLARED.partition("## The declared")[2], flags=re.MULTILINE)
    assert table == sorted(set(benchmark_names()) - set(python_names()))


def test_every_kind_of_answer_is_documented_or_named_after_its_benchmark() -> None:
    table = re.findall(r"^\| `(\w+)` \|", DECLARED.partition("| kind |")[2], flags=re.MULTILINE)
    others = {
        "dynamath", "emma", "megabench", "mmbench", "mmmu", "mmmu_pro", "mmstar", "phyx_choice", "phyx_open",
        "tabmwp", "visulogic",
    }  # fmt: skip
    assert set(KINDS) - others <= set(table)
    assert others <= set(KINDS)


def test_the_documented_declaration_scores_groups_and_aggregates(tmp_path: Path) -> None:
    (tmp_path / "gauges.yaml").write_text(DECLARATION, encoding="utf-8")
    row = {"question": "What does it show?", "unit": "bar", "scale": 10}
    rows = [
        {**row, "device": device, "number": i, "value": 50, "photo": f"{device}{i}.png"}
        for device, i in (("m", 1), ("m", 2), ("t", 1))
    ]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    benchmark = find_benchmark(str(tmp_path / "gauges.yaml"))
    examples = benchmark.load(DataSource(str(tmp_path)))
    assert benchmark.prompt(examples[0]) == (
        "<image>\nWhat does it show? Answer in bar.\nPut the number alone in \\boxed{}."
    )
    responses = [Response(one.id, text) for one, text in zip(examples, ["51", "49", "51.1"], strict=True)]
    scored = score_responses(benchmark, examples, responses, ["official"], workers=1)
    assert [row.verdict.score for row in scored] == [1, 1, 0]
    assert benchmark.groups(examples[2]) == {"scale": ["10"], "device": ["thermometer"]}
    assert benchmark.metrics is not None
    pairs = [(row.example, row.verdict) for row in scored]
    assert benchmark.metrics(pairs) == {"all_of_a_device": 0.5, "all_of_a_device_groups": 2}
