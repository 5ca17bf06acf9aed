"""Budget of an LLM judge: what was spent, and whether another request fits. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Any

from eval.scoring.estimate import estimate_tokens, price
from mm_cpgd.errors import UserError

# Tokens of a reply that has no limit of its own.
_UNBOUNDED = 4_096


class Budget:
    """Bound of the cost of a judge's requests. May be used from many threads.

    A request is sent if its upper estimate still fits: its prompt, and a reply of the greatest length. What
    it costs is counted when the reply is there, as the server reports its tokens. A failed request counts as
    its prompt, since a server may charge for it.

    Args:
        limit: in the currency of the prices.
        price_in: price of a million prompt tokens.
        price_out: price of a million completion tokens.

    Attributes:
        spent: cost of the replies so far.

    Raises:
        UserError: no limit above 0, or no price above 0, which would never reach it.
    """

    def __init__(self, limit: float, price_in: float | None, price_out: float | None) -> None:
        if not 0 < limit < float("inf"):
            raise UserError(f"--judge-budget {limit:g} must be above 0")
        if not (price_in or price_out):
            raise UserError(
                f"--judge-budget {limit:g} needs prices: give --judge-price-in and --judge-price-out, per "
                "million tokens"
            )
        self.limit, self.price_in, self.price_out = limit, price_in, price_out
        self.spent = 0.0
        self._reserved = 0.0
        self._lock = Lock()

    def reserve(self, prompt: str, sampling: Mapping[str, Any]) -> float | None:
        """Return the upper estimate of a request, which is kept free for it; None if it does not fit."""
        limits = [sampling.get(name) for name in ("max_tokens", "max_completion_tokens")]
        known = [limit for limit in limits if isinstance(limit, int)]
        amount = self._price(estimate_tokens(prompt), max(known, default=_UNBOUNDED))
        with self._lock:
            if self.spent + self._reserved + amount > self.limit:
                return None
            self._reserved += amount
        return amount

    def settle(self, reserved: float, prompt: str, prompt_tokens: int | None, tokens: int | None) -> None:
        """Count a request that has ended.

        Args:
            reserved: result of ``reserve``.
            prompt: its text.
            prompt_tokens: as the server reports them; None: as estimated.
            tokens: tokens of the reply; None, if the server does not report them: what was reserved.
        """
        asked = estimate_tokens(prompt) if prompt_tokens is None else prompt_tokens
        cost = reserved if tokens is None else self._price(asked, tokens)
        with self._lock:
            self._reserved -= reserved
            self.spent += cost

    def _price(self, prompt_tokens: int, completion_tokens: int) -> float:
        return price(prompt_tokens, completion_tokens, self.price_in, self.price_out) or 0.0

    def __str__(self) -> str:
        return f"the budget of {self.limit:g} is used up ({self.spent:,.4g} spent)"
