"""Estimate of the requests to a judge and of their cost, before the first one is sent. No torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from data import Example
from eval.benchmark import ByJudge, Response

# Valid as an extraction and as either kind of verdict, so that each stage of a judge is asked once.
_PLACEHOLDER = '{"verdict": "wrong", "reason": "0"}'
# A short JSON object with one sentence.
REPLY_TOKENS = 50


@dataclass(frozen=True)
class Estimate:
    """Estimate of the requests to a judge.

    Attributes:
        requests: prompts without a cached reply.
        cached: prompts with a cached reply.
        prompt_tokens: approximate number in the requests.
        completion_tokens: approximate number in the replies.
        cost: in the currency of the prices; None without prices.
    """

    requests: int
    cached: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None

    def __str__(self) -> str:
        if not self.requests:
            return f"judge: no requests, {self.cached:,} replies are cached"
        cost = f", about {self.cost:,.2f}" if self.cost is not None else ", price not given"
        return (
            f"judge: {self.requests:,} requests ({self.cached:,} more replies are cached), about "
            f"{self.prompt_tokens:,} tokens in and {self.completion_tokens:,} out{cost}"
        )


def estimate(
    judges: Collection[ByJudge],
    pairs: Iterable[tuple[Example, Response]],
    cached_reply: Callable[[str], str | None],
    *,
    price_in: float | None = None,
    price_out: float | None = None,
    reply_tokens: int = REPLY_TOKENS,
) -> Estimate:
    """Estimate requests, tokens and cost by running judges on placeholder replies.

    Args:
        judges: benchmarks' own, or ``judge_response``; all of them ask about every pair.
        pairs: questions with the responses to be judged.
        cached_reply: returns the cached reply to a prompt, None if there is none.
        price_in: price of a million prompt tokens.
        price_out: price of a million completion tokens.
        reply_tokens: expected length of a reply. A reasoning model needs far more.
    """
    known: set[str] = set()
    new: set[str] = set()

    def ask(prompt: str) -> str:
        reply = cached_reply(prompt)
        (new if reply is None else known).add(prompt)
        return _PLACEHOLDER if reply is None else reply

    for example, response in pairs:
        for judge in judges:
            # Fails again while scoring, and is reported there with its row.
            with suppress(Exception):
                judge(example, response, ask)
    tokens, replies = sum(map(estimate_tokens, new)), reply_tokens * len(new)
    return Estimate(len(new), len(known), tokens, replies, price(tokens, replies, price_in, price_out))


def scorable(
    examples: Sequence[Example], responses: Sequence[Response]
) -> Iterator[tuple[Example, Response]]:
    """Yield the pairs to be judged: each response to a question that has a gold answer."""
    asked = {example.id: example for example in examples if example.answer.strip()}
    return ((asked[one.id], one) for one in responses if one.id in asked and one.failure is None)


def price(
    prompt_tokens: int, completion_tokens: int, price_in: float | None, price_out: float | None
) -> float | None:
    """Return the cost of tokens at prices per million; None if neither price is given."""
    if price_in is None and price_out is None:
        return None
    return (prompt_tokens * (price_in or 0) + completion_tokens * (price_out or 0)) / 1e6


def estimate_tokens(text: str) -> int:
    """Return an upper estimate of a text's tokens: one for three ASCII characters, one for each other."""
    plain = sum(character.isascii() for character in text)
    return -(-plain // 3) + len(text) - plain
