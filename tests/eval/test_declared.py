"""Declarations in YAML: the included ones, a user's file by path, and messages for wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from data import Example
from eval.benchmark import DataSource, Response
from eval.benchmarks import benchmark_names, find_benchmark
from eval.declared import FOLDER, declared, declared_names, find_declared, is_declared, read
from eval.results import write_result
from eval.scoring.score import score_responses
from eval.settings import repetition_differences, settings_differences
from mm_cpgd.errors import UserError
from tests.fakes.declared import written

PARTS = """
{name}:
  title: Parts
  source: made up
  data: {{hub: me/parts, splits: test}}
  columns: {{id: id, question: question, answer: answer}}
  prompt: {{text: "{{{{ question }}}} Answer with a number."}}
  answer: {answer}
  read_from: here
{more}
"""


def declaration(
    folder: Path,
    *,
    name: str = "parts",
    answer: str = "{kind: number}",
    more: str = "",
    text: str | None = None,
) -> str:
    file = folder / "parts.yaml"
    file.write_text(text or PARTS.format(name=name, answer=answer, more=more), encoding="utf-8")
    return str(file)


@pytest.mark.parametrize("name", declared_names())
def test_every_included_declaration_is_valid_and_says_where_it_was_read(name: str) -> None:
    one = declared()[name]
    benchmark = find_benchmark(name)
    assert (benchmark.name, bool(benchmark.source)) == (name, True)
    assert one.read_from or hasattr(one, "subset_of")
    assert one.checked


def test_included_declarations_have_names_of_their_own() -> None:
    names = [name for file in FOLDER.glob("*.yaml") for name in read(file)]
    assert len(names) == len(set(names)) >= 30
    assert set(names) < set(benchmark_names())


def test_a_users_file_is_a_benchmark(tmp_path: Path) -> None:
    benchmark = find_benchmark(declaration(tmp_path))
    rows = [{"id": 1, "question": "How many?", "answer": "12"}]
    (example,) = benchmark.load(DataSource(str(written(tmp_path, "test.jsonl", rows))))
    assert benchmark.prompt(example) == "How many? Answer with a number."
    assert benchmark.official(example, Response("1", "It is 12.")).score == 1
    assert benchmark.official(example, Response("1", "It is 13.")).score == 0


def test_one_of_several_declarations_in_a_file_is_named(tmp_path: Path) -> None:
    text = PARTS.format(name="parts", answer="{kind: number}", more="") + PARTS.format(
        name="more_parts", answer="{kind: text}", more=""
    )
    path = declaration(tmp_path, text=text)
    assert find_benchmark(f"{path}:more_parts").name == "more_parts"
    with pytest.raises(UserError, match=r"declares parts, more_parts; name one of them: .*parts.yaml:NAME"):
        find_benchmark(path)
    with pytest.raises(UserError, match="declares no 'more_part': did you mean 'more_parts'"):
        find_declared(f"{path}:more_part")


def test_a_user_can_declare_rows_of_another_benchmark(tmp_path: Path) -> None:
    text = "easy:\n  title: Easy\n  subset_of: mathvision\n  where: {level: '1'}\n"
    benchmark = find_benchmark(declaration(tmp_path, text=text))
    row = {"question": "?", "options": [], "answer": "1", "subject": "algebra", "image": "1.png"}
    rows = [{**row, "id": str(level), "level": level} for level in (1, 2)]
    examples = benchmark.load(DataSource(str(written(tmp_path, "test.jsonl", rows))))
    assert [one.id for one in examples] == ["1"]


@pytest.mark.parametrize(
    ("answer", "more", "says"),
    [
        ("{kind: nubmer}", "", "parts.answer.kind: there is no kind 'nubmer': did you mean 'number'"),
        (
            "{kind: letter, options: {absolute: 1}}",
            "",
            "the kind letter has no option 'absolute'; it has none",
        ),
        (
            "{kind: number, options: {abslute: 1}}",
            "",
            "the kind number has no option 'abslute'; its options are absolute, relative",
        ),
        ("{kind: number, options: {absolute: much}}", "", "absolute: 'much' must be a float"),
        (
            "{kind: number, form: letters}",
            "",
            "parts.answer.form: 'letters' is not allowed here; should be 'text'",
        ),
        ("{kind: number}", "  promt: x", "parts.promt: unknown key; did you mean prompt"),
        ("{kind: number}", "  options: {}", "parts.options: give one of column, columns and within"),
        ("{kind: number}", "  reported: acuracy", "there is no metric 'acuracy': did you mean 'accuracy'"),
        (
            "{kind: number}",
            "  aggregates: {worst: {kind: least, by: id}}",
            "parts.aggregates.worst.kind: 'least' is not allowed here",
        ),
        (
            "{kind: number}",
            "  groups: {level: {value: '{{ level'}}",
            "the template '{{ level' is broken: unexpected end of template",
        ),
        (
            "{kind: number}",
            "  judge: {prompt: '{{ question }}', reply: words}",
            "parts.judge: words go with reply: words",
        ),
        (
            "{kind: number}",
            "  judge: {prompt: '{{ question }}', reply: words, words: {yes: 2}}",
            "parts.judge: the score of 'yes', '2', is no number from 0 to 1",
        ),
    ],
)
def test_a_wrong_declaration_is_refused_with_the_key_and_what_is_allowed(
    tmp_path: Path, answer: str, more: str, says: str
) -> None:
    with pytest.raises(UserError) as error:
        find_benchmark(declaration(tmp_path, answer=answer, more=more))
    assert says in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"parts.columns: missing \(a section with id, question, answer\)"):
        find_benchmark(declaration(tmp_path, text="parts:\n  title: Parts\n  source: made up\n"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("parts: 3", "parts must hold a declaration"),
        ("- parts", "must hold declarations by name, such as"),
        ("parts: {title: a, title: b}", "the key 'title' is written twice"),
        ("", "declares nothing"),
    ],
)
def test_a_file_that_declares_nothing_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "parts.yaml").write_text(text)
    with pytest.raises(UserError, match=says):
        find_benchmark(str(tmp_path / "parts.yaml"))


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.yaml does not exist"):
        find_benchmark(str(tmp_path / "gone.yaml"))


def test_references_to_yaml_files_are_told_from_names() -> None:
    found = [is_declared(name) for name in ("a.yaml", "b/a.yml:x", "mmmu", "a.py", "yaml")]
    assert found == [True, True, False, False, False]


def test_the_fingerprint_changes_with_what_changes_a_number_and_with_nothing_else(tmp_path: Path) -> None:
    def fingerprint(**changes: str) -> str | None:
        return find_benchmark(declaration(tmp_path, **changes)).fingerprint

    first = fingerprint()
    assert first == fingerprint(more="  notes: a caveat")
    assert first == fingerprint(text=Path(declaration(tmp_path)).read_text().replace("made up", "a paper"))
    assert first != fingerprint(answer="{kind: text}")
    assert first != fingerprint(more="  groups: {level: level}")
    subset = "few: {title: Few, subset_of: mathverse, where: {problem_version: [Text Lite]}}"
    assert fingerprint(text=subset) != fingerprint(text=subset.replace("Lite", "Only"))


def test_the_fingerprint_does_not_change_when_templates_were_rendered(tmp_path: Path) -> None:
    from eval.declared.build import fingerprint

    _, one = find_declared(declaration(tmp_path))
    before = fingerprint(one)
    one.prompt.text.render({"question": "?"}, "1")  # type: ignore[union-attr]
    assert fingerprint(one) == before


def test_a_result_stores_the_fingerprint_of_its_declaration(tmp_path: Path) -> None:
    benchmark = find_benchmark(declaration(tmp_path))
    (row,) = score_responses(benchmark, [Example("a", "?", "4")], [Response("a", "4")], ["official"])
    summary = write_result(tmp_path / "result", benchmark, [row], {"benchmark": "parts.yaml"})
    assert summary["settings"]["benchmark_fingerprint"] == benchmark.fingerprint
    changed = {**summary["settings"], "benchmark_fingerprint": "other"}
    assert "benchmark_fingerprint" in settings_differences(summary["settings"], changed)
    assert repetition_differences(summary["settings"], changed)


@pytest.mark.parametrize("name", ["../../evil", '"a b"', "5", "/tmp/x", ".hidden", "''"])
def test_a_name_that_is_no_name_of_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="is no name of a benchmark: letters, digits"):
        find_declared(declaration(tmp_path, name=name))
