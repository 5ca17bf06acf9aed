"""Sampling settings, and settings of the requests to a server."""

from __future__ import annotations

from typing import Any

import pytest

from eval.generate.decoding import Decoding, check_request, length_limit
from mm_cpgd.errors import UserError


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -1}, {"temperature": float("nan")}, {"top_p": 0}, {"max_new_tokens": 0},
        {"top_k": -1}, {"min_p": 1.0}, {"repetition_penalty": 0}, {"repetition_penalty": float("nan")},
        {"stop": ("a", "")}, {"stop": ("a",), "request": {"stop": ["b"]}},
        {"repetition_penalty": 1.1, "request": {"repetition_penalty": 1.2}},
    ],
)  # fmt: skip
def test_impossible_sampling_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="--"):
        Decoding(**{"max_new_tokens": 10, **values})


def test_settings_at_their_default_do_not_change_the_keys_of_former_caches() -> None:
    assert Decoding(10).settings() == {"max_new_tokens": 10, "temperature": 0}
    assert Decoding(10, 0.5, 0.9, 3).settings() == {
        "max_new_tokens": 10,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
    }


def test_penalty_and_stop_texts_change_greedy_responses_too() -> None:
    settings = Decoding(10, repetition_penalty=1.1, stop=("a", "b")).settings()
    assert settings == {**Decoding(10).settings(), "repetition_penalty": 1.1, "stop": ["a", "b"]}


def test_cuts_have_no_effect_on_greedy_decoding() -> None:
    assert Decoding(10, top_k=5, min_p=0.1).settings() == Decoding(10).settings()


@pytest.mark.parametrize(
    ("decoding", "sent"),
    [
        (Decoding(9), {"max_tokens": 9, "temperature": 0}),
        (
            Decoding(9, 0.5, 0.9, top_k=5),
            {"max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "seed": 4},
        ),
        (
            Decoding(9, repetition_penalty=1.1, stop=("###",)),
            {"max_tokens": 9, "temperature": 0, "repetition_penalty": 1.1, "stop": ["###"]},
        ),
        (Decoding(9, request={"max_completion_tokens": 20}), {"max_completion_tokens": 20, "temperature": 0}),
        (Decoding(9, request={"temperature": None, "max_tokens": None}), {}),
        (Decoding(9, request={"max_completion_tokens": None}), {"max_tokens": 9, "temperature": 0}),
        (Decoding(9, 0.5, request={"seed": None}), {"max_tokens": 9, "temperature": 0.5, "top_p": 1.0}),
        (
            Decoding(9, request={"chat_template_kwargs": {"enable_thinking": False}}),
            {"max_tokens": 9, "temperature": 0, "chat_template_kwargs": {"enable_thinking": False}},
        ),
    ],
)
def test_settings_are_added_to_a_request_and_null_leaves_one_out(
    decoding: Decoding, sent: dict[str, Any]
) -> None:
    assert decoding.of_request(4) == sent


def test_a_seed_fits_into_the_32_bits_of_servers() -> None:
    assert Decoding(9, 0.5).of_request(2**40 + 7)["seed"] == 7


def test_without_a_temperature_samples_may_differ() -> None:
    assert Decoding(9).greedy
    assert not Decoding(9, 0.5).greedy
    assert not Decoding(9, request={"temperature": None}).greedy


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"temperature": 0.5}, "use --temperature 0.5"),
        ({"max_tokens": 500}, "use --max-new-tokens 500"),
        ({"stream": True}, "stream cannot be set"),
        ({"n": 2}, "n cannot be set"),
        ({"model": "other"}, "model cannot be set"),
    ],
)
def test_a_setting_with_an_option_of_its_own_is_refused(request_: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_request(request_)


def test_other_settings_and_those_that_leave_one_out_are_taken() -> None:
    check_request({"temperature": None, "seed": None, "reasoning_effort": "low", "max_completion_tokens": 9})


def test_the_limit_of_a_request_is_the_length_limit() -> None:
    assert length_limit({"max_completion_tokens": 9}, None) == 9
    assert length_limit({"max_completion_tokens": 9}, 9) == 9
    assert length_limit({"max_completion_tokens": None}, 5) == 5
    assert length_limit({}, None) is None
    with pytest.raises(UserError, match="differ"):
        length_limit({"max_completion_tokens": 9}, 5)
    with pytest.raises(UserError, match="number of tokens"):
        length_limit({"max_completion_tokens": "many"}, None)
