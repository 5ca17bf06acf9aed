"""An advantage of one's own: short right answers get more of the credit, more so late in the run."""

from __future__ import annotations

from torch import Tensor

from mm_cpgd.algorithms import described


@described("A = X − mean X, X = R·(shortest / |y|)^({power}·progress), shortest of the group's completions")
def shortest_first(rewards: Tensor, lengths: Tensor, progress: float, *, power: float = 0.5) -> Tensor:
    """Group mean of rewards that are discounted by length; (P, G) to (P, G).

    Args:
        rewards: (P, G), NaN where unscored.
        lengths: (P, G) tokens.
        progress: 0 in the first iteration, where this is the plain group mean, to 1 in the last.
        power: how strongly length counts at the end of the run.
    """
    shortest = lengths.amin(dim=1, keepdim=True)
    credit = rewards * (shortest / lengths) ** (power * progress)
    return (credit - credit.nanmean(dim=1, keepdim=True)).nan_to_num(0.0)
