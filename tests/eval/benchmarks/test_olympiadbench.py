"""OlympiadBench as a benchmark: subsets, prompts in two languages, averages."""

import json
import re

import pytest
from PIL import Image

from data import DataError
from eval.benchmark import DataSource, Response
from eval.benchmarks.olympiadbench import SUBSETS, benchmark
from rewards import Status, Verdict

ENGLISH, CHINESE = "OE_MM_maths_en_COMP", "OE_MM_physics_zh_CEE"


def row(number, **columns):
    return {
        "id": number,
        "question": "Find $x$ in <image_1>.",
        "solution": ["…"],
        "final_answer": ["$\\frac{1}{2}$"],
        "context": None,
        "image_1": None,
        "modality": "Multimodal",
        "difficulty": "Competition",
        "is_multiple_answer": False,
        "unit": None,
        "answer_type": "Numerical",
        "error": None,
        "question_type": "Open-ended",
        "subfield": "Algebra",
        "subject": "Math",
        "language": "English",
    } | columns


def write(folder, name, *rows):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(list(rows)))


def load(folder, split=None, limit=None):
    return benchmark.load(DataSource(str(folder), split, limit))


def one(folder, **columns):
    subset = columns.pop("subset", ENGLISH)
    write(folder, subset, row(1, **columns))
    return load(folder, subset)[0]


def test_the_five_subsets_with_images_are_read_unless_others_are_named(tmp_path):
    for number, subset in enumerate(SUBSETS):
        write(tmp_path, subset, row(number))
    assert [e.id for e in load(tmp_path)] == ["0", "1", "2", "3", "4"]
    assert len(load(tmp_path, "OE")) == 10
    assert [e.id for e in load(tmp_path, "OE_TO")] == ["5", "6", "7", "8", "9"]
    assert [e.id for e in load(tmp_path, CHINESE)] == ["4"]
    assert len(load(tmp_path, limit=2)) == 2


def test_subsets_that_are_missing_are_left_out(tmp_path):
    write(tmp_path / "data", CHINESE, row(1))
    assert [e.meta["subset"] for e in load(tmp_path)] == [CHINESE]


def test_a_folder_without_any_subset_lists_the_expected_ones(tmp_path):
    with pytest.raises(DataError, match=r"has none of OE_MM_maths_en_COMP, .* as files or folders"):
        load(tmp_path)
    with pytest.raises(DataError, match="no subset TP_MM…; a split is a prefix of one or several of these"):
        load(tmp_path, "TP_MM")


def test_a_parquet_folder_for_each_subset_is_read_with_its_images(tmp_path):
    import datasets

    Image.new("RGB", (3, 2), "red").save(tmp_path / "p.png")
    place = tmp_path / "copy/OlympiadBench" / ENGLISH
    place.mkdir(parents=True)
    rows = datasets.Dataset.from_list([row(1, image_1=str(tmp_path / "p.png"))])
    rows.cast_column("image_1", datasets.Image()).to_parquet(place / f"{ENGLISH}.parquet")
    (example,) = load(tmp_path / "copy")
    assert example.images[0].open().getpixel((0, 0)) == (255, 0, 0)
    assert example.question == "Find $x$ in <image1>."


def test_the_copy_with_folders_names_its_images_in_the_question(tmp_path):
    (tmp_path / "images").mkdir()
    for number, width in ((7, 3), (9, 4)):
        Image.new("RGB", (width, 2)).save(tmp_path / f"images/img_{number}.jpg")
    old = row(1, question="See <img_9> and <img_7>, again <img_9>.")
    del old["image_1"]
    write(tmp_path / "data", ENGLISH, old)
    (example,) = load(tmp_path)
    assert example.question == "See <image1> and <image2>, again <image1>."
    assert [image.open().width for image in example.images] == [4, 3]


def test_an_id_of_two_subsets_is_distinguished(tmp_path):
    write(tmp_path, ENGLISH, row(1))
    write(tmp_path, CHINESE, row(1))
    assert [e.id for e in load(tmp_path)] == ["1", f"{CHINESE}/1"]


def test_the_rows_of_one_file_have_their_subset_from_their_columns(tmp_path):
    write(tmp_path, "mixed", row(1), row(2, subject="Physics", language="Chinese", modality="Text-only"))
    examples = load(tmp_path / "mixed.json")
    assert [e.meta["subset"] for e in examples] == [ENGLISH, "OE_TO_physics_zh_COMP"]


def test_theorem_proofs_are_refused(tmp_path):
    with pytest.raises(DataError, match="no final answer; theorem proofs"):
        one(tmp_path, final_answer=None)


def test_the_english_prompt_asks_for_the_words_that_the_rule_looks_for(tmp_path):
    text = benchmark.prompt(one(tmp_path, question="Find $x$.", context="Let $y=2$."))
    assert text.endswith("\n\nLet $y=2$.\nFind $x$.")
    assert "mathematics" in text
    assert "The answer is a number." in text
    assert "So the final answer is \\boxed{answer}." in text


def test_the_chinese_prompt_asks_for_the_words_that_the_rule_looks_for(tmp_path):
    text = benchmark.prompt(one(tmp_path, subset=CHINESE, subject="Physics", language="Chinese", unit="m"))
    assert "物理" in text
    assert "所以最终答案是\\boxed{答案}。" in text
    assert "m" in re.findall("方框里不写单位（(.*)）", text)


def test_the_prompt_asks_for_several_answers_and_units(tmp_path):
    text = benchmark.prompt(one(tmp_path, is_multiple_answer=True, unit="cm", answer_type="Expression"))
    assert "Each answer is an expression." in text
    assert "\\boxed{all answers, separated by commas}" in text
    assert "Leave the unit, cm, out of the box." in text


@pytest.mark.parametrize("answer_type", ["Tuple", "Numerical,Expression", "Need_human_evaluate"])
def test_other_answer_types_are_not_mentioned(tmp_path, answer_type):
    text = benchmark.prompt(one(tmp_path, answer_type=answer_type))
    assert "answer is a" not in text.replace("final answer is", "")


@pytest.mark.parametrize(
    ("columns", "ending"),
    [
        ({"subset": ENGLISH}, "So the final answer is \\boxed{0.5}."),
        ({"subset": CHINESE, "language": "Chinese"}, "所以最终答案是\\boxed{0.5}。"),
    ],
)
def test_the_answer_after_the_words_of_the_prompt_is_scored(tmp_path, columns, ending):
    # Without these words, both boxes would be the answer.
    example = one(tmp_path, **columns)
    assert benchmark.official(example, Response("1", f"First \\boxed{{7}}.\n{ending}")).score == 1


@pytest.mark.parametrize(
    ("error", "kind", "score"), [("0.1", "Numerical", 1), (None, "Numerical", 0), ("0.1", "Tuple", 0)]
)
def test_the_rows_error_and_answer_type_reach_the_rule(tmp_path, error, kind, score):
    example = one(tmp_path, final_answer=["2.0"], error=error, answer_type=kind)
    assert benchmark.official(example, Response("1", "\\boxed{2.05}")).score == score


def test_the_verifier_takes_several_answers_in_any_order(tmp_path):
    example = one(tmp_path, final_answer=["$2, 3$"], is_multiple_answer=True)
    assert benchmark.verifier(example, Response("1", "\\boxed{3, 2}")).score == 1


def test_a_row_is_grouped_by_subset_subject_and_language(tmp_path):
    assert benchmark.groups(one(tmp_path, subset=CHINESE)) == {
        "subset": [CHINESE],
        "subject": ["physics"],
        "language": ["zh"],
    }


def test_the_average_is_over_rows_and_missing_subsets_divide_nothing(tmp_path):
    write(tmp_path, ENGLISH, *(row(i) for i in range(3)))
    write(tmp_path, CHINESE, row(9))
    scores = [1, 0, 0, 1]
    found = benchmark.metrics(
        [(e, Verdict(s, Status.CORRECT)) for e, s in zip(load(tmp_path), scores, strict=True)]
    )
    assert found == {"micro_average": 0.5, "mean_of_subsets": pytest.approx((1 / 3 + 1) / 2), "subsets": 2}
    assert benchmark.metrics([]) == {"micro_average": None, "mean_of_subsets": None, "subsets": 0}


def test_a_question_without_a_score_leaves_the_average(tmp_path):
    write(tmp_path, ENGLISH, row(1), row(2))
    verdicts = [Verdict(1.0, Status.CORRECT), Verdict(None, Status.NOT_JUDGED)]
    assert benchmark.metrics(list(zip(load(tmp_path), verdicts, strict=True)))["micro_average"] == 1


def test_the_benchmarks_own_output_is_read():
    record = row(5, model_output={"some-model": {"raw_output": "\\boxed{1}"}})
    assert benchmark.read(record) == Response("5", "\\boxed{1}")
    with pytest.raises(DataError, match="outputs of 2 models"):
        benchmark.read(row(5, model_output={"a": {"raw_output": ""}, "b": {"raw_output": ""}}))


def test_each_subset_is_a_configuration_of_the_hub(monkeypatch):
    import datasets

    asked = []

    def fake(*args, **kinds):
        asked.append((args, kinds))
        return datasets.Dataset.from_list([row(len(asked))])

    monkeypatch.setattr(datasets, "load_dataset", fake)
    assert len(benchmark.load(DataSource(None, "OE_TO_physics"))) == 2
    assert asked == [
        (("Hothan/OlympiadBench", name), {"split": "train"})
        for name in ("OE_TO_physics_en_COMP", "OE_TO_physics_zh_CEE")
    ]
