"""Selection of completions: which of them take part in the update, once their advantages are known.

A part takes any of the outcomes (``mm_cpgd/algorithms/inputs/outcomes.py``) and ``advantages``, of the kept
prompts over all processes, and returns which completions stay, (P, G) bool. With several parts each must keep
a completion. One that is left out has had its part in the group's baseline; it is in no mini-batch and in no
denominator.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from mm_cpgd.algorithms.part_info import Share, UpToOne, described


@described(
    "keeps a completion if no limit cut it off",
    source="overlong filtering, DAPO, arXiv 2503.14476, section 3.4",
    use="where right reasoning is often cut off by the limit of length",
)
def drop_truncated(finished: Tensor) -> Tensor:
    """Leave out completions that the length limit, or a limit of conversations, cut off.

    Args:
        finished: (P, G) 1 where the completion ended by itself; NaN where there is none.

    Returns:
        (P, G) bool.
    """
    return finished == 1


@described(
    "keeps a completion if its accuracy ≥ {least}",
    source="rejection sampling, RAFT, arXiv 2304.06767; arXiv 2505.02391",
    use="with the advantage one: imitation of right answers",
)
def right_only(accuracy: Tensor, *, least: Share = 1.0) -> Tensor:
    """Keep right answers only.

    Args:
        accuracy: (P, G) in [0, 1], NaN where unscored.
        least: lowest accuracy that is kept.

    Returns:
        (P, G) bool.
    """
    return accuracy >= least


@described(
    "keeps the {share} of the completions, at least 2, whose A have the largest variance; none of a group "
    "without a signal; everything at a share of 1",
    source="D³S, arXiv 2509.22115; the search: PODS, arXiv 2504.13818",
    use="large groups, of which only the clearest completions are worth a backward pass",
    differs=(
        "PODS computes advantages again among those that are kept. Here, as D³S reads, they are those of the "
        "whole group. No setting does this.",
    ),
)
def max_variance(
    advantages: Tensor,
    rewards: Tensor,
    *,
    share: UpToOne = 0.25,
    scope: Literal["group", "batch"] = "group",
) -> Tensor:
    """Keep the completions whose advantages differ most.

    The best subset of a size is always some of the smallest and some of the largest values. Of equal values
    those that come first are taken. D³S's abstract gives the criterion; that groups without a signal are left
    out, and the default share, are choices of this project.

    Args:
        advantages: (P, G).
        rewards: (P, G), NaN where unscored, which is never kept.
        share: share that is kept, of G or of P·G, rounded up.
        scope: whether the choice is made within each group or over the batch.

    Returns:
        (P, G) bool.
    """
    scored = ~rewards.isnan()
    if share == 1:
        return scored
    size = rewards.numel() if scope == "batch" else rewards.shape[1]
    # Less a rounding error, so that 0.7 of 10 are 7.
    count = max(2, math.ceil(share * size - 1e-9))
    shape = (1, -1) if scope == "batch" else rewards.shape
    keep = torch.zeros_like(scored).reshape(shape)
    known = scored.reshape(shape)
    for row, values in enumerate(advantages.reshape(shape)):
        chosen = most_spread(values[known[row]], count)
        keep[row, known[row].nonzero().squeeze(1)[chosen]] = True
    return keep.reshape(scored.shape)


def most_spread(values: Tensor, count: int) -> Tensor:
    """Return the places of the ``count`` values (n,) with the largest variance; none if all are equal."""
    if not values.numel() or values.min() == values.max():
        return torch.zeros(0, dtype=torch.long)
    if count >= len(values):
        return torch.arange(len(values))
    ascending = values.double().sort(stable=True)
    lowest = torch.arange(count + 1)

    def sums(ordered: Tensor) -> Tensor:
        before = torch.nn.functional.pad(ordered.cumsum(0), (1, 0))
        return before[lowest] + before[-1] - before[len(values) - count + lowest]

    variance = sums(ascending.values.square()) / count - (sums(ascending.values) / count).square()
    # The first among equals, whatever the rounding.
    low = int((variance >= variance.max() - 1e-12).nonzero()[0])
    bottom = ascending.indices[:low]
    descending = values.sort(descending=True, stable=True).indices
    top = descending[~torch.isin(descending, bottom)][: count - low]
    return torch.cat([bottom, top])
