"""Demonstrations of one's own: solutions alone at the beginning of the run, rollouts alone after that."""

from __future__ import annotations

from torch import Tensor

from mm_cpgd.algorithms import described


@described("the solution where progress < {share} and there is one; else the rollouts")
def teach_first(teachable: Tensor, progress: float, *, share: float = 0.1) -> tuple[Tensor, Tensor]:
    """Teach for a share of the run, then reinforce: a cold start within the run.

    Args:
        teachable: (P,) bool, prompts with a usable solution.
        progress: 0 in the first iteration of the run, 1 in the last.
        share: of the run.

    Returns:
        Factors of the rollouts and weights of the solutions, (P,) each.
    """
    taught = teachable & (progress < share)
    return (~taught).double(), taught.double()
