"""Estimate of a judge's requests, tokens and cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from data import Example
from eval.benchmark import Ask, Response
from eval.benchmarks.mathverse import judge as mathverse_judge
from eval.generate.cache import GenerationCache
from eval.generate.client import Endpoint
from eval.scoring.estimate import estimate, estimate_tokens, price
from eval.scoring.judge import Judge, judge_prompt, judge_response
from rewards import Status, Verdict
from tests.fakes.chat_server import chat_reply, stub_server

EXAMPLE = Example("1", "How long is AB?", "7 cm")
RESPONSE = Response("1", "It is seven centimetres.", extraction="seven centimetres")
CORRECT = '{"verdict": "correct", "reason": "seven centimetres are 7 cm"}'


def test_an_estimate_counts_the_requests_and_their_cost() -> None:
    shortcut = Response("1", "…", extraction="7 cm")
    found = estimate(
        [judge_response],
        [(EXAMPLE, RESPONSE), (EXAMPLE, shortcut)],
        lambda prompt: None,
        price_in=2.0,
        price_out=10.0,
    )
    tokens = estimate_tokens(judge_prompt(EXAMPLE, RESPONSE, RESPONSE.extraction))
    assert (found.requests, found.cached, found.prompt_tokens, found.completion_tokens) == (
        1,
        0,
        tokens,
        50,
    )
    assert found.cost == pytest.approx((tokens * 2 + 50 * 10) / 1e6)


def test_an_estimate_without_prices_has_no_cost() -> None:
    found = estimate([judge_response], [(EXAMPLE, RESPONSE)], lambda prompt: None)
    assert found.cost is None
    assert "price not given" in str(found)


def test_an_estimate_of_cached_replies_counts_no_request(tmp_path: Path) -> None:
    script = (chat_reply("It is hard to say."), chat_reply(CORRECT))
    with stub_server(*script) as stub, GenerationCache(tmp_path / "judgements.jsonl") as cache:
        judge = Judge(Endpoint(stub.url, "tiny", max_retries=0), cache=cache)
        judge_response(EXAMPLE, RESPONSE, judge.ask)
        found = estimate([judge_response], [(EXAMPLE, RESPONSE)], judge.cached_reply, price_in=1.0)
    assert (found.requests, found.cached, found.cost) == (0, 2, 0)


def test_an_estimate_of_a_two_stage_judge_counts_both_stages() -> None:
    example = Example("1", "How long?", "7", meta={"question_type": "free-form"})
    found = estimate([mathverse_judge], [(example, Response("1", "It is 8."))], lambda prompt: None)
    assert found.requests == 2


def test_an_estimate_of_several_judges_asks_what_each_asks() -> None:
    asked: list[str] = []

    def reply(prompt: str) -> None:
        asked.append(prompt)

    def own(example: Example, response: Response, ask: Ask) -> Verdict:
        return Verdict(float(ask("own?") == "1"), Status.CORRECT)

    def failing(example: Example, response: Response, ask: Ask) -> Verdict:
        raise RuntimeError("broken")

    assert estimate([own, failing, own], [(EXAMPLE, RESPONSE)], reply).requests == 1
    assert asked == ["own?", "own?"]


def test_prices_are_for_a_million_tokens() -> None:
    assert price(2_000_000, 500_000, 0.15, 0.6) == pytest.approx(0.6)


def test_tokens_are_guessed_from_letters() -> None:
    assert [estimate_tokens(text) for text in ("", "abc", "abcd", "面积", "面积 3")] == [0, 1, 2, 2, 3]
