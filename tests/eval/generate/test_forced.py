"""Forced answers: the text that ends a thought, its limit, and the joined response."""

from __future__ import annotations

import pytest

from eval.generate.cache import Generation
from eval.generate.decoding import Decoding
from eval.generate.forced import TEXT, Forcing, find_forcing
from mm_cpgd.errors import UserError


def test_only_an_open_thought_is_closed() -> None:
    forcing = Forcing("ANSWER:")
    assert forcing.beginning("<think>a") == "<think>a\n</think>ANSWER:"
    assert forcing.beginning("<think>a</think>b") == "<think>a</think>bANSWER:"
    assert forcing.beginning("a") == "aANSWER:"


def test_the_continuation_has_the_sampling_of_the_response_and_its_own_limit() -> None:
    decoding = Decoding(900, 0.7, 0.9, 3, stop=("###",))
    assert Forcing(tokens=16).decoding(decoding) == Decoding(16, 0.7, 0.9, 3, stop=("###",))
    asked = Decoding(900, request={"max_completion_tokens": 900, "effort": "low"})
    assert Forcing(tokens=16).decoding(asked).of_request(1) == {
        "temperature": 0, "max_completion_tokens": 16, "effort": "low",
    }  # fmt: skip


def test_unknown_lengths_stay_unknown() -> None:
    joined = Forcing("=").joined(Generation("a", False, None), Generation("7", True, 1))
    assert joined == Generation("a=7", False, None)


def test_ours_is_a_name_for_this_projects_text() -> None:
    assert find_forcing(None, 64) is None
    assert find_forcing("ours", 8) == Forcing(TEXT, 8)
    assert find_forcing("So: ", 8) == Forcing("So: ", 8)


@pytest.mark.parametrize(
    ("text", "tokens", "says"), [(" ", 8, "--force-answer"), ("a", 0, "--force-tokens 0")]
)
def test_an_impossible_continuation_is_refused(text: str, tokens: int, says: str) -> None:
    with pytest.raises(UserError, match=says):
        find_forcing(text, tokens)
