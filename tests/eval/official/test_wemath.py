"""Official scoring of We-Math against values computed by hand and against a slow formula."""

import json
import random
from itertools import product

import pytest

from data.example import DataError
from eval.official.wemath import Row, extract_letter, knowledge_accuracy, metrics, scored_row
from tests.paths import DATASETS

TESTMINI = DATASETS / "wemath/testmini.json"


def two(name, first, second, whole):
    hits = {"2steps_1": first, "2steps_2": second, "2steps_multi": whole}
    return [Row(f"2steps_{name}", key, bool(hit)) for key, hit in hits.items()]


def three(name, first, second, third, whole):
    hits = {"3steps_1": first, "3steps_2": second, "3steps_3": third, "3steps_multi": whole}
    return [Row(f"3steps_{name}", key, bool(hit)) for key, hit in hits.items()]


def counts(classes):
    return classes.insufficient, classes.inadequate, classes.mastered, classes.rote


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("Thought: 3 + 4. Answer: B", "B"),
        ("Answer: A … no. Answer:<<<<C>>>>.", "C"),
        ("Answer: D. 30 cm", "D"),
        ("E", "E"),
        ("Answer: (B)", None),
        ("answer: B", None),
        ("Answer: b", None),
        ("It is B", None),
        ("Answer:", None),
        ("", None),
        ("Answer: Z", None),
    ],
)
def test_the_letter_is_the_first_character_after_the_last_answer(response, letter):
    assert extract_letter(response) == letter


def test_all_right_is_complete_mastery():
    found = metrics([*two(1, 1, 1, 1), *three(1, 1, 1, 1, 1)])
    assert counts(found.strict) == counts(found.loose) == (0, 0, 2, 0)
    assert (found.strict.score, found.strict.rote_rate) == (1.0, 0.0)
    assert (found.one_step, found.two_step, found.three_step) == (1.0, 1.0, 1.0)


def test_all_wrong_is_insufficient_knowledge_and_has_no_rote_rate():
    found = metrics([*two(1, 0, 0, 0), *three(1, 0, 0, 0, 0)])
    assert counts(found.strict) == counts(found.loose) == (2, 0, 0, 0)
    assert (found.strict.score, found.loose.score) == (0.0, 0.0)
    assert found.strict.rote_rate is None
    assert found.loose.rote_rate is None
    assert (found.one_step, found.two_step, found.three_step) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("rows", "strict", "loose", "scores"),
    [
        (two(1, 1, 0, 0), (1, 0, 0, 0), (1, 0, 0, 0), (0, 0)),
        (three(1, 1, 1, 0, 0), (1, 0, 0, 0), (1, 0, 0, 0), (0, 0)),
        (two(1, 1, 1, 0), (0, 1, 0, 0), (0, 1, 0, 0), (0.5, 0.5)),
        (three(1, 1, 1, 1, 0), (0, 1, 0, 0), (0, 1, 0, 0), (0.5, 0.5)),
        (two(1, 1, 1, 1), (0, 0, 1, 0), (0, 0, 1, 0), (1, 1)),
        (two(1, 0, 1, 1), (0, 0, 0, 1), (0, 0, 1, 0), (0, 1)),
        (three(1, 0, 0, 1, 1), (0, 0, 0, 1), (0, 0, 1, 0), (0, 1)),
        (two(1, 0, 0, 1), (0, 0, 0, 1), (0, 0, 0, 1), (0, 0)),
        (three(1, 0, 0, 0, 1), (0, 0, 0, 1), (0, 0, 0, 1), (0, 0)),
    ],
)
def test_each_class_alone_has_its_score(rows, strict, loose, scores):
    found = metrics(rows)
    assert (counts(found.strict), counts(found.loose)) == (strict, loose)
    assert (found.strict.score, found.loose.score) == scores


def test_a_mixed_table_has_the_numbers_worked_out_by_hand():
    rows = [
        *two(1, 1, 1, 1),  # CM
        *two(2, 1, 0, 1),  # RM strict, CM loose
        *two(3, 1, 1, 0),  # IG
        *two(4, 0, 1, 0),  # IK
        *three(1, 0, 0, 0, 1),  # RM
    ]
    assert metrics(rows).as_dict() == {
        "IK": 1,
        "IG": 1,
        "score_strict": pytest.approx((5 - 0.5 - 2 - 1) / 5),
        "CM_strict": 1,
        "RM_strict": 2,
        "RM_rate_strict": pytest.approx(2 / 3),
        "score_loose": pytest.approx((5 - 0.5 - 1 - 1) / 5),
        "CM_loose": 2,
        "RM_loose": 1,
        "RM_rate_loose": pytest.approx(1 / 3),
        "problems": 5,
        "incomplete": 0,
        "one_step": pytest.approx(6 / 11),
        "two_step": 0.5,
        "three_step": 1.0,
    }


def slow(rows, loose):
    """Count class by class over the problems, by their definitions in words."""
    ids = sorted({row.problem for row in rows})
    steps = {i: [r.hit for r in rows if r.problem == i and "multi" not in r.key] for i in ids}
    whole = {i: next(r.hit for r in rows if r.problem == i and "multi" in r.key) for i in ids}
    ik = len([i for i in ids if not whole[i] and False in steps[i]])
    ig = len([i for i in ids if not whole[i] and False not in steps[i]])
    if loose:
        cm = len([i for i in ids if whole[i] and True in steps[i]])
        rm = len([i for i in ids if whole[i] and True not in steps[i]])
    else:
        cm = len([i for i in ids if whole[i] and False not in steps[i]])
        rm = len([i for i in ids if whole[i] and False in steps[i]])
    return (ik, ig, cm, rm), (cm + 0.5 * ig) / len(ids), rm / (rm + cm)


def test_random_tables_agree_with_a_slow_count():
    for seed in range(20):
        chance = random.Random(seed)
        rows = [r for i in range(40) for r in two(i, *(chance.random() < 0.6 for _ in range(3)))]
        rows += [r for i in range(20) for r in three(i, *(chance.random() < 0.6 for _ in range(4)))]
        chance.shuffle(rows)
        found = metrics(rows)
        for classes, loose in ((found.strict, False), (found.loose, True)):
            expected, score, rate = slow(rows, loose)
            assert counts(classes) == expected
            assert classes.score == pytest.approx(score, abs=1e-12)
            assert classes.rote_rate == pytest.approx(rate, abs=1e-12)


def test_a_problem_with_a_missing_row_is_left_out_and_counted():
    found = metrics([*two(1, 1, 1, 1), *two(2, 0, 0, 0)[:2], *three(1, 1, 1, 1, 1)[1:]])
    assert (counts(found.strict), found.incomplete) == ((0, 0, 1, 0), 2)
    assert (found.strict.score, found.one_step) == (1.0, 4 / 6)


def test_nothing_divides_by_zero_without_rows():
    found = metrics([])
    assert (found.strict.score, found.loose.rote_rate, found.one_step) == (None, None, None)
    assert (found.two_step, found.three_step, found.incomplete) == (None, None, 0)


@pytest.mark.parametrize("key", ["2steps_3", "4steps_1", "multi", "2steps_1 ", "2steps_multix"])
def test_an_unknown_key_is_named(key):
    with pytest.raises(DataError, match="is not a We-Math key"):
        metrics([Row("a", key, True)])


def test_a_duplicate_question_is_named():
    with pytest.raises(DataError, match="a: 2steps_1 occurs twice"):
        metrics([Row("a", "2steps_1", True), Row("a", "2steps_1", False)])


def test_one_id_for_problems_of_two_and_three_steps_is_named():
    with pytest.raises(DataError, match="both 2steps_1 and 3steps_2"):
        metrics([Row("a", "2steps_1", True), Row("a", "3steps_2", False)])


def test_a_record_without_its_answer_is_named():
    with pytest.raises(DataError, match="has no answer"):
        scored_row({"ID": "1", "key": "2steps_1"}, "Answer: A")


def test_knowledge_is_counted_over_single_steps():
    rows = [
        Row("a", "2steps_1", True, "cones"),
        Row("a", "2steps_2", False, "squares"),
        Row("a", "2steps_multi", True, "['cones', 'squares']"),
        Row("b", "2steps_1", False, "cones"),
    ]
    assert knowledge_accuracy(rows) == {"cones": (1, 2), "squares": (0, 1)}


@pytest.fixture(scope="module")
def testmini():
    if not TESTMINI.exists():
        pytest.skip(f"needs {TESTMINI}")
    return json.loads(TESTMINI.read_text())


@pytest.mark.shared
def test_the_real_table_answered_right_is_mastered(testmini):
    found = metrics(scored_row(record, f"Answer: {record['answer']}") for record in testmini)
    assert counts(found.strict) == counts(found.loose) == (0, 0, 525, 0)
    assert (found.incomplete, found.one_step, found.two_step, found.three_step) == (0, 1.0, 1.0, 1.0)


@pytest.mark.shared
def test_the_real_table_with_only_wholes_right_is_rote(testmini):
    found = metrics(scored_row(r, f"Answer: {r['answer'] if 'multi' in r['key'] else 'H'}") for r in testmini)
    assert counts(found.strict) == counts(found.loose) == (0, 0, 0, 525)
    assert (found.strict.score, found.strict.rote_rate, found.one_step) == (0.0, 1.0, 0.0)


@pytest.mark.shared
def test_the_real_table_with_only_first_steps_and_wholes_right_splits_by_rule(testmini):
    right = {f"{n}steps_{part}" for n, part in product((2, 3), ("1", "multi"))}
    found = metrics(scored_row(r, f"Answer: {r['answer'] if r['key'] in right else ''}") for r in testmini)
    assert (counts(found.strict), counts(found.loose)) == ((0, 0, 0, 525), (0, 0, 525, 0))
    assert (found.strict.score, found.loose.score) == (0.0, 1.0)
    assert found.one_step == pytest.approx(525 / 1215)


@pytest.mark.shared
def test_the_real_table_with_wholes_of_three_steps_wrong_has_the_score_by_hand(testmini):
    found = metrics(scored_row(r, "" if r["key"] == "3steps_multi" else r["answer"]) for r in testmini)
    assert counts(found.strict) == (0, 165, 360, 0)
    assert found.strict.score == pytest.approx((525 - 82.5) / 525)
