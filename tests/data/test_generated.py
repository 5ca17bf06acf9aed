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


@pytest.fixture(scope="module")
def clips():
    return generate(("motion",), 200, seed=3)


def test_videos_are_not_among_all(examples):
    assert not any(example.videos for example in examples)


def test_motion_is_as_the_answer_says(clips):
    """The frames alone say which colour moves, and when."""
    tasks = set()
    for example in clips:
        (video,) = example.videos
        frames = list(video.read(range(8)))
        assert all(frames[index].tobytes() == frames[index + 1].tobytes() for index in (0, 2, 4, 6))
        moved = [frames[2 * s].tobytes() != frames[2 * s + 2].tobytes() for s in range(3)]
        seconds = [second for second, changed in enumerate(moved) if changed]
        assert example.meta["span"] == f"{seconds[0]} to {seconds[-1] + 1}"
        assert seconds == list(range(seconds[0], seconds[-1] + 1))
        tasks.add(example.meta["task"])
        if example.meta["task"] == "grounding":
            assert example.answer == example.meta["span"]
            assert re.fullmatch(r"When does the \w+ \w+ move\?", example.question)
        else:
            pixels = {tuple(colour) for _, colour in changed_colours(frames)}
            assert len(pixels) == 1
            assert nearest_colour(pixels.pop()) == example.answer
    assert tasks == {"grounding", "qa"}


def changed_colours(frames):
    """Return the colours, besides white, of the pixels that differ between the first frame and the last."""
    from PIL import Image, ImageChops

    changed = ImageChops.difference(frames[0], frames[-1]).convert("L").point(lambda level: 255 * (level > 0))
    seen = Image.composite(frames[0], Image.new("RGB", frames[0].size, "white"), changed)
    return [(count, colour) for count, colour in seen.getcolors() if colour != (255, 255, 255)]


def nearest_colour(pixel):
    from data.generated.scene import COLOURS

    return min(COLOURS, key=lambda name: sum(abs(a - b) for a, b in zip(COLOURS[name], pixel, strict=True)))


def test_columns_in_careful_solutions_are_those_of_the_frames(clips):
    for example in cold_start(("motion",), 100, seed=3, describe=0.0, careful=1.0):
        columns = re.findall(r"\d \d \d \d", example.solution)
        moving = [one.split() for one in columns if len(set(one.split())) > 1]
        assert len(moving) == 1
        steps = [second for second in range(3) if moving[0][second] != moving[0][second + 1]]
        assert example.meta["span"] == f"{steps[0]} to {steps[-1] + 1}"
