"""Declared benchmarks of general perception, each on invented rows in its published layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.benchmark import DataSource, Response
from eval.benchmarks import find_benchmark
from rewards import Status
from tests.fakes.declared import loaded, pairs, png, scores, written

MMSTAR = [
    {
        "index": 0,
        "question": "Which shape is drawn?\nOptions: A: circle, B: square, C: triangle, D: star",
        "image": "0.png",
        "answer": "C",
        "category": "coarse perception",
        "l2_category": "image scene and topic",
        "bench": "made up",
    },
    {
        "index": 1,
        "question": "How many dots?\nOptions: A: 1, B: 2, C: 3, D: 4",
        "image": "1.png",
        "answer": "A",
        "category": "math",
        "l2_category": "geometry",
        "bench": "made up",
    },
]


def test_mmstar_scores_by_the_first_letter_and_groups_by_category(tmp_path: Path) -> None:
    benchmark, examples = loaded("mmstar", tmp_path, "mmstar.json", MMSTAR)
    assert [one.id for one in examples] == ["0", "1"]
    assert examples[0].choices == ("circle", "square", "triangle", "star")
    assert benchmark.prompt(examples[0]) == (
        f"<image>\n{MMSTAR[0]['question']}\nAnswer with the option's letter from the given choices directly"
    )
    texts = ["C", "(C) triangle", "Option C", "The answer is C", "A", "I think it is C", ""]
    assert scores(benchmark, examples[0], texts) == [1, 1, 1, 1, 0, 0, 0]
    assert benchmark.verifier(examples[0], Response("0", r"Three sides, so \boxed{C}.")).score == 1
    assert benchmark.groups(examples[1]) == {"category": ["math"], "detailed category": ["geometry"]}


def test_mmstar_reads_a_table_with_the_options_in_columns(tmp_path: Path) -> None:
    table = "index\tquestion\tA\tB\tanswer\timage\tcategory\tl2_category\n"
    file = tmp_path / "MMStar.tsv"
    file.write_text(table + "3\tWhich shape?\tcircle\tsquare\tB\t3.png\tmath\tgeometry\n")
    (example,) = find_benchmark("mmstar").load(DataSource(str(file)))
    assert example.choices == ("circle", "square")
    assert example.question == "Which shape?\nOptions: A: circle, B: square"


def mmmu_row(number: int, question: str, options: list[str], answer: str, kind: str) -> dict[str, object]:
    images = {f"image_{i}": None for i in range(1, 8)}
    return {
        "id": f"validation_Art_Theory_{number}",
        "question": question,
        "options": str(options),
        "explanation": "",
        **images,
        "image_2": "two.png",
        "image_3": "three.png",
        "img_type": "['Paintings']",
        "answer": answer,
        "topic_difficulty": "Easy",
        "question_type": kind,
        "subfield": "made up",
    }


MMMU = [
    mmmu_row(1, "Compare <image 3> with <image 2>.", ["older", "<image 2>", "newer"], "C", "multiple-choice"),
    mmmu_row(2, "How wide is <image 2>?", [], "['24/7', '3.43']", "open"),
    mmmu_row(3, "Give the interval.", [], "[0, 1)", "open"),
]


def test_mmmu_places_images_by_their_numbers(tmp_path: Path) -> None:
    benchmark, examples = loaded("mmmu", tmp_path, "rows.json", MMMU)
    assert [image.origin for image in examples[0].images] == ["two.png", "three.png"]
    prompt = benchmark.prompt(examples[0])
    assert prompt.startswith(
        "Compare <image2> with <image1>.\n\n(A) older\n(B) <image1>\n(C) newer\n\nAnswer"
    )
    assert benchmark.prompt(examples[1]).endswith("Answer the question using a single word or phrase.")
    groups = benchmark.groups(examples[0])
    assert groups["domain"] == ["Art and Design"]
    assert groups["subject"] == ["Art_Theory"]


def test_mmmu_scores_options_and_open_answers(tmp_path: Path) -> None:
    benchmark, examples = loaded("mmmu", tmp_path, "rows.json", MMMU)
    assert scores(benchmark, examples[0], ["C", "The answer is (C)", "(A), no, (C)", "B", "hm"]) == [
        1,
        1,
        1,
        0,
        0,
    ]
    assert scores(benchmark, examples[1], ["It is 3.43.", "So it is 24/7", "it is 5"]) == [1, 1, 0]
    assert examples[2].answer == "[0, 1)"


def test_mmmu_never_draws_an_option_at_random(tmp_path: Path) -> None:
    benchmark, examples = loaded("mmmu", tmp_path, "rows.json", MMMU)
    verdicts = {benchmark.official(examples[0], Response("1", "I do not know")) for _ in range(20)}
    assert {verdict.status for verdict in verdicts} == {Status.NO_ANSWER}


PRO = {
    "id": "test_History_1",
    "options": str([f"reason {i}" for i in range(10)]),
    "answer": "J",
    "subject": "History",
}


def test_mmmu_pro_asks_for_a_last_line_and_reads_it(tmp_path: Path) -> None:
    row = {**PRO, "question": "Why, given <image 1>?", "image_1": "1.png", "topic_difficulty": "Hard"}
    benchmark, (example,) = loaded("mmmu_pro", tmp_path, "rows.json", [row])
    prompt = benchmark.prompt(example)
    assert prompt.startswith("Why, given <image1>?\nA. reason 0\nB. reason 1\n")
    assert "J. reason 9\n\nAnswer the preceding multiple choice question." in prompt
    texts = ["B is not it.\nAnswer: J", "A. no. (J)", "Answer: A", "no idea"]
    assert scores(benchmark, example, texts) == [1, 1, 0, 0]
    assert benchmark.groups(example) == {
        "domain": ["Humanities and Social Science"],
        "subject": ["History"],
    }


def test_mmmu_pro_vision_sends_the_image_alone(tmp_path: Path) -> None:
    benchmark, (example,) = loaded("mmmu_pro_vision", tmp_path, "rows.json", [{**PRO, "image": "q.png"}])
    assert benchmark.prompt(example).startswith(
        "<image>\nWrite out the multiple-choice question in the image"
    )
    assert "reason 3" not in benchmark.prompt(example)
    assert scores(benchmark, example, ["Answer: J", "Answer: C"]) == [1, 0]


def mmbench_row(index: int, options: list[str], answer: str, hint: str = "nan") -> dict[str, object]:
    cells = dict(zip("ABCD", [*options, "nan", "nan"], strict=False))
    return {
        "index": index,
        "question": "Which one is it?",
        "hint": hint,
        "answer": answer,
        **cells,
        "category": "identity_reasoning",
        "image": "1.png",
        "source": "made up",
        "L2-category": "attribute_reasoning",
        "split": "dev",
    }


MMBENCH = [
    mmbench_row(7, ["cat", "dog"], "B", hint="Look closely."),
    mmbench_row(1_000_007, ["dog", "cat"], "A"),
    mmbench_row(8, ["None", "red"], "A"),
    mmbench_row(1_000_008, ["red", "None"], "B"),
]


def test_mmbench_counts_a_question_that_is_right_in_all_rotations(tmp_path: Path) -> None:
    benchmark, examples = loaded("mmbench_en", tmp_path, "rows.json", MMBENCH)
    assert examples[2].choices == ("None", "red")
    assert benchmark.metrics is not None
    found = benchmark.metrics(pairs(benchmark, examples, ["B", "A. dog", "A", "A"]))
    assert found == {"circular": 0.5, "circular_groups": 2}


def test_mmbench_prompts_with_the_hint_if_there_is_one(tmp_path: Path) -> None:
    benchmark, examples = loaded("mmbench_en", tmp_path, "rows.json", MMBENCH)
    assert benchmark.prompt(examples[0]).startswith(
        "<image>\nHint: Look closely.\nQuestion: Which one is it?\nOptions:\nA. cat\nB. dog\nPlease select"
    )
    assert benchmark.prompt(examples[1]).startswith("<image>\nQuestion: Which one is it?")
    assert benchmark.groups(examples[0]) == {
        "category": ["identity_reasoning"],
        "L2 category": ["attribute_reasoning"],
    }


def test_mmbench_lets_a_judge_name_the_option(tmp_path: Path) -> None:
    benchmark, examples = loaded("mmbench_en", tmp_path, "rows.json", MMBENCH)
    response = Response("7", "I see an animal that barks and wags its tail at the viewer, surely no feline.")
    assert benchmark.official(examples[0], response).status is Status.NO_ANSWER
    assert benchmark.judge is not None
    assert benchmark.judge(examples[0], response, lambda prompt: "B").score == 1
    assert benchmark.judge(examples[0], response, lambda prompt: "A").score == 0
    assert benchmark.judge(examples[0], response, lambda prompt: "hard to say").score is None


def hallusion(category: str, figure: str, question: str, answer: str) -> dict[str, object]:
    return {
        "category": category,
        "subcategory": "chart",
        "visual_input": "0" if figure == "0" and category == "VS" else "1",
        "set_id": "0",
        "figure_id": figure,
        "sample_note": "made up",
        "question_id": question,
        "question": "Is A larger than B?",
        "gt_answer_details": "A is larger than B.",
        "gt_answer": answer,
        "filename": None if figure == "0" and category == "VS" else f"./VS/chart/0_{figure}.png",
    }


HALLUSION = [
    hallusion("VS", "0", "0", "1"),
    hallusion("VS", "0", "1", "0"),
    hallusion("VS", "1", "0", "1"),
    hallusion("VS", "1", "1", "0"),
    hallusion("VS", "2", "0", "0"),
]


def test_hallusionbench_counts_questions_pairs_and_figures(tmp_path: Path) -> None:
    benchmark, examples = loaded("hallusionbench", tmp_path, "HallusionBench.json", HALLUSION)
    assert [len(one.images) for one in examples] == [0, 0, 1, 1, 1]
    assert [one.answer for one in examples] == ["Yes", "No", "Yes", "No", "No"]
    assert benchmark.metrics is not None
    verdicts = pairs(benchmark, examples, ["Yes.", "no", "Yes, it is.", "No", "Yes"])
    assert [verdict.score for _, verdict in verdicts] == [1, 1, 1, 1, 0]
    # Pairs: question 0 (three contexts, one wrong) and 1; figures: 1 and 2, as 0 has no image.
    assert benchmark.metrics(verdicts) == {
        "question_pairs": 0.5,
        "question_pairs_groups": 2,
        "figures": 0.5,
        "figures_groups": 2,
    }


def test_hallusionbench_reads_a_file_with_both_splits_once(tmp_path: Path) -> None:
    written(tmp_path, "HallusionBench.json", HALLUSION)
    assert len(find_benchmark("hallusionbench").load(DataSource(str(tmp_path)))) == 5


def test_hallusionbench_judges_with_its_published_words(tmp_path: Path) -> None:
    benchmark, examples = loaded("hallusionbench", tmp_path, "HallusionBench.json", HALLUSION)
    seen: list[str] = []

    def ask(prompt: str) -> str:
        seen.append(prompt)
        return "Incorrect."

    assert benchmark.judge is not None
    verdict = benchmark.judge(examples[0], Response("x", "B is the larger one, by far."), ask)
    assert verdict.score == 0
    assert "Reference answer: A is larger than B.\nPrediction answer: B is the larger one, by far." in seen[0]


def test_hallusionbench_takes_an_unclear_answer_as_right_where_the_figure_is_withheld(tmp_path: Path) -> None:
    benchmark, examples = loaded("hallusionbench", tmp_path, "HallusionBench.json", HALLUSION)
    assert benchmark.judge is not None
    found = [
        benchmark.judge(one, Response("x", "Nobody can tell."), lambda prompt: "unclear").score
        for one in (examples[0], examples[2])
    ]
    assert found == [1, 0]


def test_ai2d_has_gold_indices_and_letters(tmp_path: Path) -> None:
    rows = [{"question": "What is X?", "options": ["leaf", "root"], "answer": "1", "image": "1.png"}]
    benchmark, (example,) = loaded("ai2d", tmp_path, "test.json", rows)
    assert (example.id, example.answer, example.choices) == ("0", "B", ("leaf", "root"))
    assert benchmark.prompt(example).startswith("<image>\nWhat is X?\nA. leaf\nB. root\nAnswer with")
    assert scores(benchmark, example, ["B", "(B) root", "root", "A", "a stem"]) == [1, 1, 1, 0, 0]


MMVET = {
    "v1_0": {
        "imagename": "v1_0.png",
        "question": "What is x?",
        "answer": "-1<AND>-5",
        "imagesource": "made up",
        "capability": ["ocr", "math"],
    }
}


def test_mmvet_is_scored_by_a_judge_only(tmp_path: Path) -> None:
    benchmark, (example,) = loaded("mmvet", tmp_path, "mm-vet.json", MMVET)
    response = Response("v1_0", "x = -1")
    for protocol in (benchmark.official, benchmark.verifier):
        assert protocol(example, response).status is Status.NOT_JUDGED
    seen: list[str] = []
    replies = iter(["Half right", "0.5"])

    def ask(prompt: str) -> str:
        seen.append(prompt)
        return next(replies)

    assert benchmark.judge is not None
    verdict = benchmark.judge(example, response, ask)
    assert (verdict.score, verdict.status) == (0.5, Status.PARTIAL)
    assert seen[0].endswith("What is x? | -1 <AND> -5 | x = -1 |")
    assert seen[1].endswith("Predict the correctness of the answer (digit):")
    assert benchmark.groups(example) == {"capability": ["ocr", "math"], "integration": ["math,ocr"]}


@pytest.mark.parametrize("reply", ["1.5", "between 0.3 and 0.4", "", "correctness 11"])
def test_mmvet_takes_no_reply_that_is_no_score(tmp_path: Path, reply: str) -> None:
    benchmark, (example,) = loaded("mmvet", tmp_path, "mm-vet.json", MMVET)
    assert benchmark.judge is not None
    verdict = benchmark.judge(example, Response("v1_0", "x = -1"), lambda prompt: reply)
    assert (verdict.score, verdict.status) == (None, Status.NOT_JUDGED)


def test_images_in_parquet_files_are_opened(tmp_path: Path) -> None:
    rows = [{**MMSTAR[0], "image": {"bytes": png("blue"), "path": None}}]
    _, (example,) = loaded("mmstar", tmp_path, "mmstar.parquet", rows)
    assert example.images[0].open().getpixel((0, 0)) == (0, 0, 255)
    assert "image" not in example.meta
