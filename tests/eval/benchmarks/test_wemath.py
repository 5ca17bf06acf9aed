"""We-Math as a benchmark: letters, and the metrics through ``Benchmark.metrics``."""

import json
import random
from dataclasses import replace

import pytest

from data import DataError
from eval.benchmark import DataSource, Response
from eval.benchmarks.wemath import benchmark
from rewards import Status, Verdict
from tests.paths import DATASETS

SHARED = DATASETS / "wemath"
# Hits of the steps and of the whole, for two steps and for three: all right, all wrong, each class alone.
ALONE = {
    "CM": [(1, 1, 1), (1, 1, 1, 1)],
    "IG": [(1, 1, 0), (1, 1, 1, 0)],
    "IK": [(1, 0, 0), (0, 1, 1, 0)],
    "RM": [(0, 0, 1), (0, 0, 0, 1)],
    "some steps": [(1, 0, 1), (0, 1, 0, 1)],
    "all wrong": [(0, 0, 0), (0, 0, 0, 0)],
}


def rows(number, hits):
    steps = len(hits) - 1
    for key, hit in zip([*map(str, range(1, steps + 1)), "multi"], hits, strict=True):
        yield (
            {
                "ID": f"{steps}steps_{number}",
                "split": "testmini",
                "knowledge concept": f"Concept {key}",
                "question": "Which angle is it?",
                "option": "A. 30°; B. 40°;C. 50°; D. No correct answer",
                "answer": "B",
                "image_path": f"{steps}steps/image/{number}-{key}.png",
                "key": f"{steps}steps_{key}",
            },
            hit,
        )


def load(folder, pairs):
    (folder / "testmini.json").write_text(json.dumps([record for record, _ in pairs]))
    return benchmark.load(DataSource(str(folder)))


def scored(folder, tables):
    """Score responses that are right according to the table; return examples with their verdicts."""
    pairs = [pair for number, hits in enumerate(tables, 1) for pair in rows(number, hits)]
    texts = ["Thought: … Answer: B" if hit else "Thought: … Answer: C" for _, hit in pairs]
    examples = load(folder, pairs)
    return [(e, benchmark.official(e, Response(e.id, text))) for e, text in zip(examples, texts, strict=True)]


def metrics(folder, tables):
    return benchmark.metrics(scored(folder, tables))


def four(found, kind):
    return found["IK"], found["IG"], found[f"CM_{kind}"], found[f"RM_{kind}"]


@pytest.mark.parametrize(
    ("name", "strict", "loose", "scores", "rates"),
    [
        ("CM", (0, 0, 2, 0), (0, 0, 2, 0), (1, 1), (0, 0)),
        ("IG", (0, 2, 0, 0), (0, 2, 0, 0), (0.5, 0.5), (None, None)),
        ("IK", (2, 0, 0, 0), (2, 0, 0, 0), (0, 0), (None, None)),
        ("RM", (0, 0, 0, 2), (0, 0, 0, 2), (0, 0), (1, 1)),
        ("some steps", (0, 0, 0, 2), (0, 0, 2, 0), (0, 1), (1, 0)),
        ("all wrong", (2, 0, 0, 0), (2, 0, 0, 0), (0, 0), (None, None)),
    ],
)
def test_each_class_alone_has_the_numbers_worked_out_by_hand(tmp_path, name, strict, loose, scores, rates):
    found = metrics(tmp_path, ALONE[name])
    assert (four(found, "strict"), four(found, "loose")) == (strict, loose)
    assert (found["score_strict"], found["score_loose"]) == scores
    assert (found["RM_rate_strict"], found["RM_rate_loose"]) == rates
    assert (found["problems"], found["incomplete"]) == (2, 0)


def test_accuracies_are_by_the_number_of_steps(tmp_path):
    # Single steps: 2 + 1 + 1 right of 2 + 2 + 3; wholes of two steps 1 of 2, of three steps 0 of 1.
    found = metrics(tmp_path, [(1, 1, 1), (0, 1, 0), (0, 0, 1, 0)])
    assert (found["one_step"], found["two_step"], found["three_step"]) == (4 / 7, 1 / 2, 0)


def test_a_random_table_agrees_with_a_count_in_words(tmp_path):
    chance = random.Random(7)
    tables = [tuple(chance.random() < 0.6 for _ in range(chance.choice((3, 4)))) for _ in range(60)]
    found = metrics(tmp_path, tables)
    right = [table[:-1] for table in tables if table[-1]]
    wrong = [table[:-1] for table in tables if not table[-1]]
    generalised = len([steps for steps in wrong if all(steps)])
    for kind, known in (("strict", all), ("loose", any)):
        mastered = len([steps for steps in right if known(steps)])
        assert four(found, kind) == (
            len(wrong) - generalised,
            generalised,
            mastered,
            len(right) - mastered,
        )
        assert found[f"score_{kind}"] == pytest.approx((mastered + generalised / 2) / 60, abs=1e-12)
        assert found[f"RM_rate_{kind}"] == pytest.approx(1 - mastered / len(right), abs=1e-12)


def test_a_problem_with_a_row_missing_is_in_no_divisor(tmp_path):
    found = benchmark.metrics(scored(tmp_path, [(1, 1, 1), (1, 1, 1)])[:-1])
    assert (found["score_strict"], found["problems"], found["incomplete"]) == (1, 1, 1)


def test_a_question_that_could_not_be_scored_leaves_its_problem_out(tmp_path):
    pairs = scored(tmp_path, [(1, 1, 1), (1, 1, 1)])
    pairs[0] = (pairs[0][0], Verdict(None, Status.NOT_JUDGED))
    assert benchmark.metrics(pairs)["incomplete"] == 1


def test_the_metrics_of_several_samples_are_their_mean(tmp_path):
    first, second = scored(tmp_path, [(1, 1, 1)]), scored(tmp_path, [(0, 0, 0)])
    both = [pair for pairs in zip(first, second, strict=True) for pair in pairs]
    found = benchmark.metrics(both)
    assert (found["score_strict"], found["IK"], found["CM_strict"]) == (0.5, 0.5, 0.5)
    assert found["RM_rate_strict"] is None


def test_nothing_is_divided_without_rows():
    assert benchmark.metrics([])["score_strict"] is None


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("Answer: B", Status.CORRECT),
        ("Answer: <<<<B>>>>. 40°", Status.CORRECT),
        ("Answer: A", Status.WRONG),
        ("Answer: 40°", Status.NO_ANSWER),
        ("", Status.NO_ANSWER),
    ],
)
def test_the_letter_after_the_last_answer_decides(tmp_path, text, status):
    example = load(tmp_path, list(rows(1, (1, 1, 1))))[0]
    assert benchmark.official(example, Response(example.id, text)).status is status


def test_the_verifier_reads_what_the_rule_does_not(tmp_path):
    example = load(tmp_path, list(rows(1, (1, 1, 1))))[0]
    for text in ("Answer: (B)", "The answer is 40°", "\\boxed{B}"):
        assert benchmark.verifier(example, Response(example.id, text)).score == 1


@pytest.mark.parametrize(
    "text", ["<Thought process>: <<50 − 10>> <Answer>: <<B>>", "<Answer>: <B>", "<Answer>: <<B. 40°>>"]
)
def test_the_benchmarks_own_template_is_read_by_both_protocols(tmp_path, text):
    example = load(tmp_path, list(rows(1, (1, 1, 1))))[0]
    assert benchmark.official(example, Response(example.id, text)).score == 1
    assert benchmark.verifier(example, Response(example.id, text)).score == 1


def test_the_domains_are_among_the_metrics_averaged_over_samples(tmp_path):
    example = replace(load(tmp_path, list(rows(1, (1, 1, 1))))[0])
    example = replace(example, meta={**example.meta, "knowledge concept": "Rotation"})
    right, wrong = Verdict(1.0, Status.CORRECT), Verdict(0.0, Status.WRONG)
    assert benchmark.metrics([(example, right)])["domains"]["Basic Transformations of Figures"] == 1
    both = benchmark.metrics([(example, right), (example, wrong)])["domains"]
    assert (both["Basic Transformations of Figures"], both["Position"]) == (0.5, None)


def test_the_prompt_asks_for_what_the_rule_looks_for(tmp_path):
    text = benchmark.prompt(load(tmp_path, list(rows(1, (1, 1, 1))))[0])
    assert text.startswith("<image>\nWhich angle is it?\nOptions: A. 30°; B. 40°;C. 50°; D.")
    assert "Answer: X" in text


def test_a_question_is_grouped_by_its_steps_and_a_single_step_by_its_concept(tmp_path):
    examples = load(tmp_path, list(rows(1, (1, 1, 1))))
    assert benchmark.groups(examples[1]) == {"steps": ["one step"], "knowledge concept": ["Concept 2"]}
    assert benchmark.groups(examples[2]) == {"steps": ["two steps"]}


def test_the_benchmarks_own_output_is_read():
    record, _ = list(rows(7, (1, 1, 1)))[2]
    assert benchmark.read(record | {"response": "Answer: B"}) == Response("2steps_7/multi", "Answer: B")


def test_a_missing_column_is_named(tmp_path):
    record, _ = next(rows(1, (1, 1, 1)))
    with pytest.raises(DataError, match="has no key, so it is not a row of We-Math"):
        load(tmp_path, [({k: v for k, v in record.items() if k != "key"}, 1)])


@pytest.mark.shared
def test_the_whole_of_testmini_is_read_with_most_images_absent():
    if not SHARED.is_dir():
        pytest.skip("the real data is not beside the project (../shared/datasets/wemath)")
    examples = benchmark.load(DataSource(str(SHARED)))
    assert len({e.id for e in examples}) == 1740
    assert examples[0].images[0].open().size[0] > 1
    with pytest.raises(DataError, match="does not exist"):
        examples[-1].images[0].open()
    assert all(e.choices for e in examples)
    found = benchmark.metrics([(e, Verdict(1.0, Status.CORRECT)) for e in examples])
    assert (found["problems"], found["CM_strict"], found["score_strict"]) == (525, 525, 1)


@pytest.mark.shared
def test_a_limit_divides_by_the_complete_problems():
    if not SHARED.is_dir():
        pytest.skip("the real data is not beside the project (../shared/datasets/wemath)")
    examples = benchmark.load(DataSource(str(SHARED), limit=1000))
    found = benchmark.metrics([(e, Verdict(1.0, Status.CORRECT)) for e in examples])
    assert found["score_strict"] == (1 if found["problems"] else None)
    assert found["incomplete"] > 0
