"""MathVerse as a benchmark, on invented rows in its layout."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from data import DataError
from eval.benchmark import DataSource, Response
from eval.benchmarks import mathverse
from eval.benchmarks.mathverse import benchmark
from rewards import Status, Verdict

VERSIONS = ["Text Dominant", "Text Lite", "Vision Intensive", "Vision Dominant", "Vision Only"]


def row(
    index, version, *, question="Find the angle.\nChoices:\nA:40°\nB:50°", answer="B", kind="multi-choice"
):
    return {
        "sample_index": str(index),
        "problem_index": "1",
        "problem_version": version,
        "question": "" if version == "Vision Only" else question,
        "question_for_eval": question,
        "image": "" if version == "Text Only" else f"images_version_1-4/image_{index}.png",
        "answer": answer,
        "question_type": kind,
        "metadata": {"subject": "Plane Geometry", "subfield": "Angle", "source": "made up"},
        "query_wo": "…",
        "query_cot": "…",
    }


@pytest.fixture
def folder(tmp_path):
    rows = [row(i, version) for i, version in enumerate(VERSIONS, 1)]
    free = row(6, "Text Dominant", question="How long is L?", answer="14 cm", kind="free-form")
    (tmp_path / "testmini.json").write_text(json.dumps([*rows, free]))
    (tmp_path / "testmini_text_only.json").write_text(json.dumps([row(1, "Text Only")]))
    return tmp_path


def load(folder, split=None, limit=None):
    return benchmark.load(DataSource(str(folder), split, limit))


def free(folder):
    return load(folder)[5]


def official(example, text="", extraction=None):
    return benchmark.official(example, Response(example.id, text, extraction=extraction))


def test_the_published_prompt_is_the_rows_own(folder):
    example = load(folder)[0]
    assert benchmark.published(example) == "<image>\n…"
    assert benchmark.published(replace(example, meta={})) is None


def test_the_usual_split_is_the_five_versions_with_images(folder):
    assert [e.id for e in load(folder)] == ["1", "2", "3", "4", "5", "6"]


def test_the_text_only_version_has_ids_of_its_own(folder):
    assert [e.id for e in load(folder, "testmini_text_only")] == ["text-only-1"]
    assert [e.id for e in load(folder, "all")] == ["1", "2", "3", "4", "5", "6", "text-only-1"]


@pytest.mark.parametrize(
    ("split", "ids"),
    [
        ("vision-only", ["5"]),
        ("Vision Only", ["5"]),
        ("vision_only", ["5"]),
        ("text-dominant", ["1", "6"]),
        ("text-lite", ["2"]),
        ("vision-intensive", ["3"]),
        ("vision-dominant", ["4"]),
        ("text-only", ["text-only-1"]),
    ],
)
def test_each_version_is_a_split(folder, split, ids):
    assert [example.id for example in load(folder, split)] == ids


def test_the_limit_is_over_the_rows_of_the_version(folder):
    assert [example.id for example in load(folder, "text-dominant", limit=1)] == ["1"]
    assert [example.id for example in load(folder, "vision-only", limit=1)] == ["5"]


def test_a_version_is_taken_from_a_single_file_too(folder):
    assert [example.id for example in load(folder / "testmini.json", "vision-only")] == ["5"]


def test_a_version_without_rows_is_named(folder):
    with pytest.raises(DataError, match="no row of the version 'Text Only'"):
        load(folder / "testmini.json", "text-only")


def test_an_extraction_by_rule_is_told_from_a_stored_one(folder):
    example = free(folder)
    assert benchmark.by_rule(example, Response("6", "It is 14 cm."))
    assert not benchmark.by_rule(example, Response("6", "It is 14 cm.", extraction="14 cm"))
    assert not benchmark.by_rule(example, Response("6", ""))


def test_the_limit_is_over_both_files(folder):
    assert len(load(folder, "all", limit=3)) == 3


def test_a_file_alone_is_enough(folder):
    assert len(load(folder / "testmini.json")) == 6


def test_a_copy_without_the_split_says_so(folder):
    with pytest.raises(DataError, match=r"has no test.json nor other rows of the split 'test'"):
        load(folder, "test")


def test_images_are_found_in_the_unpacked_archive(folder):
    (folder / "images/images_version_1-4").mkdir(parents=True)
    Image.new("RGB", (3, 2), "red").save(folder / "images/images_version_1-4/image_1.png")
    assert load(folder)[0].images[0].open().size == (3, 2)


def test_the_choices_are_read_out_of_the_question(folder):
    examples = load(folder, "all")
    assert [e.choices for e in examples] == [("40°", "50°")] * 5 + [()] + [("40°", "50°")]


def test_the_prompt_of_vision_only_has_no_question_text(folder):
    text = benchmark.prompt(load(folder)[4])
    assert "Find the angle" not in text
    assert text.startswith("<image>\nThe question is written in the image.\n")


def test_the_prompt_has_question_choices_and_what_to_answer(folder):
    text = benchmark.prompt(load(folder)[0])
    assert text.startswith("<image>\nFind the angle.\nChoices:\nA:40°\nB:50°\n\n")
    assert "letter" in text
    assert "letter" not in benchmark.prompt(free(folder))


def test_the_prompt_of_text_only_has_no_image(folder):
    assert "<image>" not in benchmark.prompt(load(folder, "testmini_text_only")[0])


@pytest.mark.parametrize(
    ("extraction", "score"),
    [("B", 1), (" b ", 1), ("(B)", 1), ("B. 50°", 1), ("A", 0), ("50°", 0), ("A and B", 0)],
)
def test_officially_letters_count_in_multiple_choice(folder, extraction, score):
    assert official(load(folder)[0], extraction=extraction).score == score


@pytest.mark.parametrize(("extraction", "score"), [("14 cm", 1), ("14 CM\n", 1), ("14", 0), ("14.0 cm", 0)])
def test_officially_other_answers_are_compared_as_texts(folder, extraction, score):
    assert official(free(folder), extraction=extraction).score == score


@pytest.mark.parametrize("extraction", ["", "null", "None"])
def test_an_extraction_of_nothing_is_no_answer(folder, extraction):
    assert official(free(folder), extraction=extraction).status is Status.NO_ANSWER


def test_without_a_stored_extraction_the_completion_is_read(folder):
    assert official(load(folder)[0], "So it is \\boxed{B}.").score == 1


class Judge:
    """Fake judge that replies in turn and records its prompts."""

    def __init__(self, *replies):
        self.replies = list(replies)
        self.asked = []

    def __call__(self, prompt):
        self.asked.append(prompt)
        return self.replies.pop(0)


def judged(example, judge, text="It is 14 centimetres.", extraction=None):
    return benchmark.judge(example, Response(example.id, text, extraction=extraction), judge)


@pytest.mark.parametrize(
    ("reply", "score"),
    [("1", 1), ("0", 0), ("Verdict: 1", 1), ("**0**", 0), ("They agree.\n\n1.", 1)],
)
def test_the_judge_extracts_and_compares(folder, reply, score):
    judge = Judge("14 centimetres", reply)
    verdict = judged(free(folder), judge)
    assert (verdict.score, verdict.extracted) == (score, "14 centimetres")
    assert "It is 14 centimetres." in judge.asked[0]
    assert all(part in judge.asked[1] for part in ("How long is L?", "14 cm", "14 centimetres"))


def test_equal_texts_need_no_judgement(folder):
    judge = Judge("14 cm")
    assert judged(free(folder), judge).score == 1
    assert len(judge.asked) == 1


def test_a_stored_extraction_is_not_requested_again(folder):
    judge = Judge("0")
    assert judged(free(folder), judge, extraction="13 cm").score == 0
    assert len(judge.asked) == 1


def test_an_empty_response_is_wrong_without_a_request(folder):
    judge = Judge()
    assert judged(free(folder), judge, text=" \n").status is Status.NO_ANSWER
    assert judge.asked == []


@pytest.mark.parametrize("reply", ["", "I cannot tell", "0 or 1", "10", "0.5"])
def test_a_reply_that_is_no_judgement_is_asked_for_again_and_then_not_wrong(folder, reply):
    judge = Judge("13 cm", reply, reply)
    verdict = judged(free(folder), judge)
    assert (verdict.score, verdict.status) == (None, Status.NOT_JUDGED)
    assert "asked twice" in verdict.reason
    assert len(judge.asked) == 3


def test_a_second_reply_may_settle_it(folder):
    judge = Judge("13 cm", "0 or 1", "0")
    assert judged(free(folder), judge).score == 0
    assert judge.asked[2] == judge.asked[1] + "\n\nReply with a single digit, 1 or 0, and nothing else."


def test_an_extraction_is_read_without_thinking_and_fences(folder):
    assert judged(free(folder), Judge("<think>13?</think>```\n14 cm\n```")).score == 1


def test_the_judge_receives_the_question_that_is_in_the_image(folder):
    judge = Judge("0")
    judged(load(folder)[4], judge, extraction="neither")
    assert "Find the angle." in judge.asked[0]


def test_the_verifier_takes_an_options_letter_or_text(folder):
    example = load(folder)[0]
    for text, score in (("\\boxed{B}", 1), ("\\boxed{50°}", 1), ("\\boxed{A}", 0)):
        assert benchmark.verifier(example, Response("1", text)).score == score


def test_a_row_is_in_the_groups_of_its_version_subject_and_subfield(folder):
    assert benchmark.groups(load(folder)[4]) == {
        "problem version": ["Vision Only"],
        "subject": ["Plane Geometry"],
        "subfield": ["Plane Geometry: Angle"],
    }


def test_averages_are_over_the_five_versions_alone(folder):
    # Text Dominant 1 of 2, Text Lite 1 of 1, the three others 0 of 1 each; Text Only is right.
    scores = [1, 1, 0, 0, 0, 0, 1]
    rows = zip(load(folder, "all"), scores, strict=True)
    found = benchmark.metrics([(e, Verdict(s, Status.CORRECT)) for e, s in rows])
    assert found == {
        "average_of_versions": pytest.approx((0.5 + 1) / 5),
        "accuracy_of_versions": pytest.approx(2 / 6),
        "versions": 5,
        "text_only": 1,
    }


def test_versions_without_rows_divide_nothing(folder):
    assert set(benchmark.metrics([]).values()) == {None, 0}
    unscored = [(load(folder)[0], Verdict(None, Status.NOT_JUDGED))]
    assert benchmark.metrics(unscored)["average_of_versions"] is None


def test_the_benchmarks_own_output_is_read():
    record = row(1, "Text Only") | {"model_answer": "It is B.", "extraction": "B"}
    assert benchmark.read(record) == Response("text-only-1", "It is B.", extraction="B")
    assert benchmark.read(row(7, "Text Lite") | {"model_answer": "B"}) == Response("7", "B")
    with pytest.raises(KeyError):
        benchmark.read(row(7, "Text Lite"))


def test_each_split_is_a_configuration_of_the_hub(monkeypatch):
    import datasets

    asked = []

    def fake(*args, **kinds):
        asked.append((args, kinds))
        rows = [row(1, "Text Lite" if args[1] == "testmini" else "Text Only")]
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", fake)
    assert [e.id for e in benchmark.load(DataSource(None, "all"))] == ["1", "text-only-1"]
    assert asked == [
        (("AI4Math/MathVerse", name), {"split": name}) for name in ("testmini", "testmini_text_only")
    ]


def test_foreign_rows_are_refused(tmp_path):
    (tmp_path / "testmini.json").write_text('[{"id": 1, "question": "?"}]')
    with pytest.raises(DataError, match="has no sample_index and no problem_version"):
        load(tmp_path)


def test_prompts_of_the_judge_keep_braces_of_an_answer():
    assert "\\frac{1}{2}" in mathverse.EXTRACTION.format(response="\\frac{1}{2}")
