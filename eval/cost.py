"""What a judge will be asked and what that may cost, before anything is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from data import Example
from eval.benchmark import Ask, Response
from rewards import Verdict

# Read as an extraction as well as a verdict, so that judges of two stages go on to the second.
_STAND_IN = '{"verdict": "wrong", "reason": "0"}'
# A short object with a sentence in it.
REPLY_TOKENS = 50


@dataclass(frozen=True)
class Estimate:
    """What is about to be asked.

    Attributes:
        requests: prompts that no earlier run has a reply to.
        remembered: prompts whose reply is in the cache.
        prompt_tokens: of the requests, about.
        completion_tokens: of the replies, about.
        cost: in the currency of the prices; None without prices.
    """

    requests: int
    remembered: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None

    def __str__(self) -> str:
        if not self.requests:
            return f"judge: nothing to ask, {self.remembered:,} replies are known"
        cost = f", about {self.cost:,.2f}" if self.cost is not None else ", price not given"
        return (
            f"judge: {self.requests:,} requests ({self.remembered:,} more replies are known), about "
            f"{self.prompt_tokens:,} tokens in and {self.completion_tokens:,} out{cost}"
        )


def estimate(
    judge: Callable[[Example, Response, Ask], Verdict],
    pairs: Iterable[tuple[Example, Response]],
    recall: Callable[[str], str | None],
    *,
    price_in: float | None = None,
    price_out: float | None = None,
    reply_tokens: int = REPLY_TOKENS,
) -> Estimate:
    """Let a judge go through all answers with a stand-in that notes the prompts, and add them up.

    Args:
        judge: a benchmark's own, or ``eval.judge.judged``.
        pairs: questions with the answers that will be judged.
        recall: returns the known reply to a prompt, None where it has to be asked for.
        price_in: of a million prompt tokens.
        price_out: of a million completion tokens.
        reply_tokens: expected length of a reply. A model that thinks first needs far more.
    """
    known: set[str] = set()
    new: set[str] = set()

    def ask(prompt: str) -> str:
        reply = recall(prompt)
        (new if reply is None else known).add(prompt)
        return _STAND_IN if reply is None else reply

    for example, response in pairs:
        # What fails here fails again while scoring, and is told there with its row.
        with suppress(Exception):
            judge(example, response, ask)
    tokens, replies = sum(map(about_tokens, new)), reply_tokens * len(new)
    return Estimate(len(new), len(known), tokens, replies, price(tokens, replies, price_in, price_out))


def price(
    prompt_tokens: int, completion_tokens: int, price_in: float | None, price_out: float | None
) -> float | None:
    """Return what the tokens cost at prices for a million each; None if neither price is given."""
    if price_in is None and price_out is None:
        return None
    return (prompt_tokens * (price_in or 0) + completion_tokens * (price_out or 0)) / 1e6


def about_tokens(text: str) -> int:
    """Return about how many tokens a text has, rather too many: three ASCII letters each, or one other."""
    plain = sum(character.isascii() for character in text)
    return -(-plain // 3) + len(text) - plain
