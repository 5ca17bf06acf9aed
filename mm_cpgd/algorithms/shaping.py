"""What is added to a completion's reward beside the rules' verdicts.

A part takes ``lengths`` (any shape, tokens of each completion) and ``max_tokens``, and returns an addition of
that shape.
"""

from __future__ import annotations

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from mm_cpgd.algorithms.described import described


@described(
    "adds −{penalty}·clip((|y| − (max_new_tokens − {buffer})) / {buffer}, 0, 1)",
    source="DAPO, arXiv 2503.14476, eq. 13",
)
def overlong_penalty(
    lengths: Tensor, max_tokens: int, *, buffer: PositiveInt | None = None, penalty: PositiveFloat = 1.0
) -> Tensor:
    """Soft overlong punishment, from 0 down to −penalty.

    Args:
        lengths: tokens of each completion, any shape.
        max_tokens: longest completion that may be sampled; there the whole penalty applies.
        buffer: tokens before ``max_tokens`` over which it grows linearly; None: a fifth of them, as in the
            paper.
        penalty: the largest, in units of reward; the paper's 1 goes with rewards of −1 and 1.

    Returns:
        The addition, ≤ 0, in the shape of ``lengths``.
    """
    width = buffer or max(1, max_tokens // 5)
    return -penalty * ((lengths - (max_tokens - width)) / width).clamp(min=0, max=1)
