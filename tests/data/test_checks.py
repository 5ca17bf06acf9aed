from data.checks import check_example
from data.example import Example


def test_an_example_made_by_hand_can_be_checked() -> None:
    assert check_example(Example("1", "q", "a")) is None
    assert check_example(Example("1", "q", "")) == "empty answer"
