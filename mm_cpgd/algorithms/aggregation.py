"""Aggregation: weights with which the terms of all tokens are summed to one number.

A part takes ``mask`` (n, T) bool, the completion mask of the given rows, and ``lengths`` (M,), the lengths in
tokens of *all* completions of the mini-batch over all processes, and returns weights (n, T). The sum of
weight·term over all rows, micro-batches and processes is the objective. It is not averaged further, so the
result does not depend on how the mini-batch is split. A floating ``lengths`` sets the dtype of the weights.
"""

from __future__ import annotations

from pydantic import PositiveInt
from torch import Tensor

from mm_cpgd.algorithms.part_info import described


@described(
    "w = 1 / Σ over the mini-batch of |y|",
    source="CPGD, arXiv 2505.12504; DAPO, arXiv 2503.14476",
    use="long completions count by their length; the default of most recipes",
)
def token_mean(mask: Tensor, lengths: Tensor) -> Tensor:
    """Mean over all tokens of the mini-batch."""
    return mask / lengths.sum().clamp(min=1)


@described(
    "w = 1 / (M·|y|)",
    source="GRPO, arXiv 2402.03300",
    use="every completion counts alike; long ones are favoured when they are wrong",
)
def completion_mean(mask: Tensor, lengths: Tensor) -> Tensor:
    """Mean over completions of their token means; empty completions do not count."""
    completions = (lengths > 0).sum().clamp(min=1).to(lengths.dtype)
    return mask / completions / mask.sum(dim=1, keepdim=True).clamp(min=1)


@described(
    "w = 1 / M",
    source="LUSPO, arXiv 2602.05261",
    use="as constant, with another size of step; for terms of whole completions",
)
def completion_sum(mask: Tensor, lengths: Tensor) -> Tensor:
    """Mean over completions of their sums over tokens; empty completions do not count.

    ``constant`` with ``length: 1``. With ``gspo``, whose term is the same for all tokens of a completion, it
    is LUSPO's loss: that of GSPO times the completion's length.
    """
    completions = (lengths > 0).sum().clamp(min=1).to(lengths.dtype)
    return mask / completions


@described(
    "w = 1 / (M·{length})",
    source="Dr. GRPO, arXiv 2503.20783",
    use="no preference for any length; the size of a step follows the lengths",
)
def constant(mask: Tensor, lengths: Tensor, max_tokens: int, *, length: PositiveInt | None = None) -> Tensor:
    """Sum over tokens divided by a constant, without length bias.

    Args:
        mask: (n, T).
        lengths: (M,).
        max_tokens: longest completion that may be sampled.
        length: the constant; None: ``max_tokens``, as in the paper's code.

    Returns:
        (n, T).
    """
    completions = (lengths > 0).sum().clamp(min=1).to(lengths.dtype)
    return mask / (completions * (length or max_tokens))
