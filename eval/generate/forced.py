"""Forced answers: a response that the length limit cut off is continued once with a text that asks to answer.

A thought that never ends has no answer. As budget forcing (Muennighoff et al. 2025, arXiv 2501.19393) it is
ended from outside, and the model completes the answer; the wording is this project's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from eval.generate.cache import Generation
from eval.generate.decoding import LIMIT, Decoding
from mm_cpgd.errors import UserError

OURS = "ours"
# A box, which every extraction of this project reads; the model completes it.
TEXT = "\n\nSo the final answer is \\boxed{"
_OPEN, _CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Forcing:
    """Continuation of responses that were cut off.

    Attributes:
        text: appended to the response; the model continues after it.
        tokens: length limit of the continuation.

    Raises:
        UserError: no text, or no tokens.
    """

    text: str = TEXT
    tokens: int = 64

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise UserError(f"--force-answer needs a text that the model continues, or {OURS!r}")
        if self.tokens < 1:
            raise UserError(f"--force-tokens {self.tokens} must be at least 1")

    def beginning(self, response: str) -> str:
        """Return the response with the text; an open thought is closed before it."""
        thinks = response.rfind(_OPEN) > response.rfind(_CLOSE)
        return response + (f"\n{_CLOSE}" if thinks else "") + self.text

    def decoding(self, decoding: Decoding) -> Decoding:
        """Return the sampling settings of the continuation."""
        request = dict(decoding.request)
        if request.get(LIMIT) is not None:
            request[LIMIT] = self.tokens
        return replace(decoding, max_new_tokens=self.tokens, request=request)

    def joined(self, cut: Generation, continuation: Generation) -> Generation:
        """Return the whole response; it stays one that was cut off."""
        counts = (cut.tokens, continuation.tokens)
        tokens = sum(count for count in counts if count is not None) if None not in counts else None
        return Generation(self.beginning(cut.text) + continuation.text, False, tokens)


def find_forcing(text: str | None, tokens: int) -> Forcing | None:
    """Return the continuation that the settings ask for, None for none. Raises ``UserError``."""
    if text is None:
        return None
    return Forcing(TEXT if text == OURS else text, tokens)
