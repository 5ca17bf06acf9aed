import hashlib
import random
import re

import pytest

from data import DataError, load_examples
from data.generated import ALL, GUESS_STEPS, KINDS, cold_start, generate
from data.generated.chart import Scene as ChartScene
from data.generated.chart import draw as draw_chart
from data.generated.clock import make as make_clock
from data.generated.scene import SIDE, shade


def fingerprint(example):
    return hashlib.sha256(example.images[0].open().tobytes()).hexdigest()


@pytest.fixture(scope="module")
def examples():
    return generate(("all",), 1000, seed=5)


def test_kinds_alternate(examples):
    assert [example.meta["kind"] for example in examples[:6]] == [*ALL, ALL[0]]


def test_the_same_seed_makes_the_same_rows_and_images(examples):
    again = generate(("all",), 20, seed=5)
    assert [e.solution for e in again] == [e.solution for e in examples[:20]]
    assert [fingerprint(e) for e in again] == [fingerprint(e) for e in examples[:20]]


def test_rows_do_not_depend_on_where_reading_begins(examples):
    assert [e.id for e in generate(("all",), 5, seed=5, offset=10)] == [e.id for e in examples[10:15]]


def test_images_of_two_seeds_are_disjoint(examples):
    others = {fingerprint(e) for e in generate(("all",), 1000, seed=6)}
    assert not others & {fingerprint(e) for e in examples}


def test_every_solution_ends_in_its_answer(examples):
    for example in examples:
        assert example.solution.endswith(f"</think><answer>{example.answer}</answer>")


def test_the_sums_in_solutions_are_right(examples):
    checked = 0
    for example in examples:
        for left, right in re.findall(r"([\d +-]+) = (\d+)\.", example.solution):
            total = sum(int(part) for part in left.replace("- ", "+ -").replace(" ", "").split("+"))
            assert total == int(right) == int(example.answer)
            checked += 1
    assert checked > 400


def test_counts_agree_with_the_description(examples):
    """The answer and the description are computed independently of each other."""
    for index in range(0, 400, 5):
        rng = random.Random(f"shapes/5/{index}")
        scene = KINDS["shapes"].make(rng)
        question = KINDS["shapes"].ask(scene, rng)
        words = question.text.removeprefix("How many ").removesuffix(" are there?").split()
        wanted = {word.removesuffix("s") for word in words} - {"shape"}
        cells = re.split(r"[;,] ", KINDS["shapes"].describe(scene).removesuffix("."))
        assert question.answer == str(sum(wanted <= set(cell.split()) for cell in cells))
        assert question.text == examples[index].question


def test_bars_are_as_high_as_their_values():
    scene = ChartScene((("red", 8), ("blue", 1)), ((0, 15), (28, 43)), ((200, 0, 0), (0, 0, 200)))
    image = draw_chart(scene)
    column = [image.getpixel((5, y)) for y in range(SIDE)]
    assert sum(pixel == (200, 0, 0) for pixel in column) == 8 * 12 + 1  # both edges are drawn


def test_the_clock_shows_all_144_times():
    rng = random.Random(0)
    assert len({make_clock(rng).time for _ in range(3000)}) == 144


def test_shades_stay_colours():
    rng = random.Random(1)
    assert all(0 <= channel <= 255 for _ in range(200) for channel in shade("yellow", rng))


def test_images_are_drawn_lazily_and_afresh(examples):
    assert examples[0].images[0].open() is not examples[0].images[0].open()
    assert examples[0].images[0].open().size == (SIDE, SIDE)


def test_cold_start_keeps_its_shares():
    rows = cold_start(("all",), 2000, seed=1, describe=0.5, careful=0.2)
    described = sum(row.question == "Describe the picture." for row in rows)
    hasty = sum(GUESS_STEPS in row.solution for row in rows)
    assert described / 2000 == pytest.approx(0.5, abs=0.04)
    assert hasty / 2000 == pytest.approx(0.3, abs=0.04)


def test_guesses_are_mostly_wrong():
    rows = cold_start(("all",), 2000, seed=1, describe=0, careful=0)
    right = sum(row.solution.endswith(f"<answer>{row.answer}</answer>") for row in rows)
    assert 0.05 < right / 2000 < 0.25


def test_an_unknown_kind_is_named():
    with pytest.raises(DataError, match=r"unknown generated task 'chess'; available: all, shapes"):
        generate(("chess",), 1)


def test_a_path_chooses_shares():
    rows = load_examples("cold-start:clock?describe=1&careful=0", limit=5).examples
    assert {row.question for row in rows} == {"Describe the picture."}


@pytest.mark.parametrize("query", ["describe=much", "hasty=0.5", "careful=-1"])
def test_a_wrong_share_is_an_error(query):
    with pytest.raises(DataError, match="describe"):
        load_examples(f"cold-start:clock?{query}", limit=5)
