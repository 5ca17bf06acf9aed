"""The rule "accuracy": is the final answer the gold answer?"""

from __future__ import annotations

from rewards.equivalence import TIME_LIMIT
from rewards.registry import Answerable, rule
from rewards.verdict import Verdict
from rewards.verification import verify


@rule("accuracy")
def accuracy(completion: str, example: Answerable, timeout: float = TIME_LIMIT) -> Verdict:
    """1 if the final answer equals the gold answer in meaning (mathematics, options, words), else 0.

    Args:
        completion: the model's text.
        example: holds the gold answer and the options.
        timeout: seconds for a comparison that needs sympy.
    """
    return verify(completion, example.answer, choices=example.choices, timeout=timeout)
