"""Quantities: sums of units, counted nouns, bracketed units, times of day and ratios, Chinese counters."""

import time

import pytest

from rewards import verify
from rewards.math.amounts.quantities import split_unit

# (answer, gold, score)
SUMS = [
    ("3 m + 20 cm", "3.2 m", 1.0),
    ("3 m + 20 cm", "320 cm", 1.0),
    (r"3\text{ km} + 20\text{ cm}", "3000.2 m", 1.0),
    ("5 m - 20 cm", "4.8 m", 1.0),
    ("3 km + 20 cm", "23 cm", 0.0),
    ("3 km + 20 cm", "23", 0.0),
    ("2 km + 3 cm", "5", 0.0),
    ("2 km + 3 kg", "5", 0.0),
    ("3 kg + 2", "5", 0.0),
    ("2 h 30 min", "2.5 h", 1.0),
    ("2h 30m", "150 min", 1.0),
    ("1 hour and 15 minutes", "75 minutes", 1.0),
    ("1 hour, 15 minutes and 30 seconds", "4530 s", 1.0),
    ("1 hour 15 minutes", "1.15 hours", 0.0),
    ("5 ft 10 in", "70 inches", 1.0),
    ("5 feet 10 inches", "5.10 feet", 0.0),
    ("3 lb 4 oz", "52 oz", 1.0),
    ("3元5角", "3.5元", 1.0),
    ("2小时30分", "2.5小时", 1.0),
    (r"63.75^\circ", r"$63^{\circ} 45^{\prime}$", 1.0),
    (r"63^\circ 45'", "63.75°", 1.0),
    (r"63^\circ 45' 36''", "63.76°", 1.0),
    (r"63^\circ 45'", "63.45°", 0.0),
    ("8 cm < AB < 10 cm", r"$$8~cm< AB < 10~cm$$", 1.0),
    ("3m + 2m", "5m", 1.0),
]
COUNTED = [
    ("9", "9 (apples)", 1.0),
    ("9 apples", "9 (apples)", 1.0),
    ("8 apples", "9 (apples)", 0.0),
    ("3.5", "3.5 (dollars)", 1.0),
    ("3.5 euros", "3.5 (dollars)", 0.0),
    ("0.5", "1/2 (hours)", 1.0),
    ("30 minutes", "1/2 (hours)", 1.0),
    ("19 candies", "19 peppermint candies", 1.0),
    ("5 students", "5 people", 1.0),
    ("5", "5 T-shirts", 1.0),
    (r"\frac12\text{ of the cake}", "1/2", 1.0),
    (r"x=2 \text{ (double root)}", "x=2", 1.0),
    ("3 times", "3", 1.0),
    ("7 points", "7", 1.0),
    ("3个", "3", 1.0),
    ("20", "20只", 1.0),
    ("858颗", "858", 1.0),
    ("8722美元", "8722", 1.0),
    ("5公斤", "5千克", 1.0),
    ("2020", "2020年", 1.0),
    ("3 个苹果", "3", 1.0),
    ("3不是", "3", 0.0),
    ("3或4个", "3", 0.0),
    ("5月6日", "5月5日", 0.0),
    ("3以上", "3", 0.0),
    ("5元", "5个", 0.0),
]
TIMES = [
    ("1:20", "2:40", 0.0),
    ("2:40", "1:20", 0.0),
    ("3:15", "9:45", 0.0),
    ("1:10", "3:30", 0.0),
    ("6:60", "3:30", 0.0),
    ("1:05", "10:50", 0.0),
    ("3/30", "3:30", 0.0),
    ("1/10", "3:30", 0.0),
    ("2:40", "2:40", 1.0),
    ("02:40", "2:40", 1.0),
    ("2:40 pm", "2:40", 1.0),
    ("14:40", "2:40 p.m.", 1.0),
    ("2:40 am", "2:40 pm", 0.0),
    ("20:34", "20:34:00", 1.0),
    ("20:34:05", "20:34", 0.0),
    ("7 o'clock", "7:00", 1.0),
    ("7 pm", "7:00 pm", 1.0),
    ("7 pm", "7:00 am", 0.0),
    ("下午3点20分", "3:20 pm", 1.0),
    ("3:5", "3:05", 0.0),
    ("2:4", "1:2", 1.0),
    ("10:15", "2:3", 1.0),
    ("2:2", "1:1", 1.0),
    ("6:8:10", "3:4:5", 1.0),
    ("2:1000", "1:500", 1.0),
    ("7:32", r"$S_{MBCN}:S=7:32$", 1.0),
    ("3:2", "2:3", 0.0),
    (r"\frac{7}{32}", "7:32", 1.0),
    ("3 cm : 6 cm", "1:2", 1.0),
]


@pytest.mark.parametrize(("answer", "gold", "score"), SUMS)
def test_a_sum_of_quantities_is_converted_term_by_term(answer: str, gold: str, score: float) -> None:
    assert verify(rf"\boxed{{{answer}}}", gold).score == score


@pytest.mark.parametrize(("answer", "gold", "score"), COUNTED)
def test_what_is_counted_does_not_change_the_number(answer: str, gold: str, score: float) -> None:
    assert verify(rf"\boxed{{{answer}}}", gold).score == score


@pytest.mark.parametrize(("answer", "gold", "score"), TIMES)
def test_a_time_is_compared_by_its_fields_and_a_ratio_by_proportion(
    answer: str, gold: str, score: float
) -> None:
    assert verify(rf"\boxed{{{answer}}}", gold).score == score


def test_a_time_in_the_last_sentence_is_the_answer() -> None:
    assert verify("The clock shows 2:40.", "2:40").score == 1.0
    assert verify("The clock reads 3:05 p.m.", "3:05").score == 1.0
    assert verify("The clock shows 2:40.", "1:20").score == 0.0


@pytest.mark.parametrize(
    "text",
    ["5 " + "m " * 900, "1" + " kg" * 600, "5 (" + "a" * 1900 + ")", "3 m + " * 300, r"\text{a} " * 240],
)
def test_a_long_text_is_read_in_bounded_time(text: str) -> None:
    start = time.perf_counter()
    split_unit(text)
    assert time.perf_counter() - start < 0.1
