"""Settings of given tokens: answers asked for early, and completions that begin with an empty thought."""

from __future__ import annotations

from itertools import pairwise

from pydantic import Field, PositiveInt, field_validator

from mm_cpgd.config.section import Section


class EarlyAnswersConfig(Section):
    """Answers asked for at budgets of the thinking: sampled to be scored, and not learned from."""

    budgets: list[PositiveInt] | None = Field(
        None,
        description="tokens after which a thinking is cut; null: a quarter, a half and three quarters of "
        "rollout.max_new_tokens",
    )
    bridge: str = Field(
        "</think><answer>",
        min_length=1,
        description="given text between the cut thinking and the answer; where one of its tags occurs in a "
        "completion, the thinking has ended",
    )
    answers: PositiveInt = Field(1, description="answers sampled at each budget")
    max_new_tokens: PositiveInt = Field(32, description="largest length of such an answer")

    @field_validator("budgets")
    @classmethod
    def _rise(cls, budgets: list[int] | None) -> list[int] | None:
        if budgets is not None and (not budgets or any(b <= a for a, b in pairwise(budgets))):
            raise ValueError(f"{budgets} must be one or more rising numbers of tokens, such as [12, 24, 36]")
        return budgets

    def tokens(self, max_new_tokens: int) -> tuple[int, ...]:
        """Return the budgets in tokens, where completions have at most ``max_new_tokens``."""
        if self.budgets is not None:
            return tuple(self.budgets)
        return tuple(sorted({max(1, max_new_tokens * part // 4) for part in (1, 2, 3)}))


class EmptyThoughtConfig(Section):
    """Half of each prompt's completions sampled after an empty thought, whose tokens are given."""

    text: str = Field(
        "<think></think><answer>", min_length=1, description="given beginning of these completions"
    )
    max_new_tokens: PositiveInt | None = Field(
        None, description="largest length of what follows it; null: rollout.max_new_tokens"
    )
