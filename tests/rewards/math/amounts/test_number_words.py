"""Numbers with words: scale words, fractions, operators in words, hedges and denials."""

import pytest

from rewards import verify

# (answer, gold, score)
SCALES = [
    ("3 thousand", "3 million", 0.0),
    ("3 million", "3", 0.0),
    ("3", "3 million", 0.0),
    ("1.5 million", "1.5 billion", 0.0),
    ("3 people", "3 million people", 0.0),
    ("5", "5 hundred", 0.0),
    ("2", "2 dozen", 0.0),
    ("2 trillion", "2 billion", 0.0),
    ("3000000", "3 million", 1.0),
    ("3 million", "3,000,000", 1.0),
    ("3000", "3 thousand", 1.0),
    ("24", "2 dozen", 1.0),
    ("24 eggs", "2 dozen eggs", 1.0),
    ("40", "2 score", 1.0),
    ("30000", "3万", 1.0),
    ("3亿", "300000000", 1.0),
    ("3万元", "30000元", 1.0),
    ("3万", "3", 0.0),
    ("3亿", "3万", 0.0),
    ("3千米", "3 km", 1.0),
    ("2000000", r"\$2 million", 1.0),
    (r"\$2 million", "2 million dollars", 1.0),
    (r"\$2", r"\$2 million", 0.0),
    (r"\$15k", r"\$15,000", 1.0),
    (r"\$15k", r"\$15", 0.0),
    ("2.5 billion dollars", "2500000000", 1.0),
    ("1 million 500 thousand", "1500000", 1.0),
    ("5 hundred", "500", 1.0),
]
ARITHMETIC = [
    ("2 thirds", "2/3", 1.0),
    ("two thirds", "2/3", 1.0),
    ("5 tenths", "0.5", 1.0),
    ("3 quarters", "0.75", 1.0),
    ("two and a half", "2.5", 1.0),
    ("half a dozen", "6", 1.0),
    ("half a million", "500000", 1.0),
    ("half an hour", "30 min", 1.0),
    ("an hour", "60 min", 1.0),
    ("one point five million", "1500000", 1.0),
    ("负3", "-3", 1.0),
    ("2万5千", "25000", 1.0),
    ("2 and a half", "5/2", 1.0),
    ("one and two thirds", "5/3", 1.0),
    ("half", "0.5", 1.0),
    ("one half", "1/2", 1.0),
    ("2 squared", "4", 1.0),
    ("2 cubed", "8", 1.0),
    ("5 plus two", "7", 1.0),
    ("6 minus one", "5", 1.0),
    ("2 times 3", "6", 1.0),
    ("2 over 3", "2/3", 1.0),
    ("six divided by two", "3", 1.0),
    ("3 point five", "3.5", 1.0),
    ("three point one four", "3.14", 1.0),
    ("one hundred and five", "105", 1.0),
    ("twenty-one", "21", 1.0),
    ("minus three", "-3", 1.0),
    ("twelve apples", "12", 1.0),
    ("five square meters", "5 m²", 1.0),
    ("twenty-five percent", "25%", 1.0),
    ("三点五", "3.5", 1.0),
    ("负三", "-3", 1.0),
    ("二分之一", "0.5", 1.0),
    ("三又二分之一", "3.5", 1.0),
    ("百分之五十", "0.5", 1.0),
    ("百分之12.5", "12.5%", 1.0),
    ("三个苹果", "3", 1.0),
    ("五公斤", "5 kg", 1.0),
    ("三角形", "3", 0.0),
    ("一次函数", "1", 0.0),
]
# (answer, gold): the answer must not earn the number it starts with.
NOT_THE_NUMBER = [
    ("2 thirds", "2"),
    ("2 squared", "2"),
    ("2 times 3", "2"),
    ("2 over 3", "2"),
    ("5 six", "5"),
    ("5 six seven eight", "5"),
    ("12 through fifteen", "12"),
    ("12 to fifteen", "12"),
    ("5 plus two", "5"),
    ("5 tenths", "5"),
    ("8 perhaps nine", "8"),
    ("7 incorrect", "7"),
    ("7 wrong", "7"),
    ("7 isn't", "7"),
    ("2 factorial", "2"),
    ("3 or so", "3"),
    ("3 point five", "3"),
    ("5 maybe", "5"),
    ("5 possibly", "5"),
    ("5 supposedly", "5"),
    ("4 not", "4"),
    ("4 never", "4"),
    ("6 minus one", "6"),
    ("9 approx", "9"),
    ("9 roughly", "9"),
    ("2 more than five", "2"),
    ("2 less than x", "2"),
    ("2 or more", "2"),
    ("2 at least", "2"),
    ("2 third", "2"),
    ("2 seventh", "2"),
    ("5 is wrong", "5"),
    ("5 but rather six", "5"),
    ("five is wrong", "5"),
    ("five or six", "5"),
    ("fifty-fifty", "50"),
    ("3 apples maybe", "3"),
    ("3 apples or pears", "3"),
    (r"3 \text{ (guess)}", "3"),
    (r"3\text{ is not it}", "3"),
    ("8 twenty-one", "8"),
    ("2 root", "2"),
    ("2 double", "4"),
    ("5 six-sevenths", "5"),
    ("half of a dozen", "0.5"),
    ("half a dozen", "0.5"),
]


@pytest.mark.parametrize(("answer", "gold", "score"), SCALES)
def test_a_scale_word_multiplies(answer: str, gold: str, score: float) -> None:
    assert verify(rf"\boxed{{{answer}}}", gold).score == score


@pytest.mark.parametrize(("answer", "gold", "score"), ARITHMETIC)
def test_clear_arithmetic_in_words_is_computed(answer: str, gold: str, score: float) -> None:
    assert verify(rf"\boxed{{{answer}}}", gold).score == score


@pytest.mark.parametrize(("answer", "gold"), NOT_THE_NUMBER)
def test_words_that_change_or_deny_a_number_are_no_unit(answer: str, gold: str) -> None:
    assert verify(rf"\boxed{{{answer}}}", gold).score == 0.0
