"""Demonstrations: by prompt, whether its rollouts are learned from, its row's solution, or both.

A part takes any of the outcomes (``mm_cpgd/algorithms/inputs/outcomes.py``), of all prompts drawn over all
processes, and ``teachable`` (P,) bool: the rows with a solution that fits into a completion. It returns two
tables (P,) of numbers of at least 0: the factor of the advantages of the prompt's rollouts, and the weight of
its solution's log-likelihood. Where the first is 0 the rollouts leave the update and its denominators, where
the second is 0 nothing is taught. What is not teachable is not taught, whatever the second says.

Both are one estimator of J = E[R] − mu·KL(demonstrator ‖ π) (arXiv 2509.04419): a token's gradient is
mask / denominator · A · ∇π. For rollouts the surrogate chooses mask and denominator (π_old: a ratio), and the
advantage part chooses A; for demonstrations the denominator is π itself, A is the weight, and
nothing is masked.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat
from torch import Tensor

from mm_cpgd.algorithms.part_info import described

Weight = Annotated[float, Field(gt=0)]


@described(
    "the solution alone, of weight {coefficient}, if the prompt's mean accuracy ≤ {gamma}; else the rollouts",
    source="HPT, arXiv 2509.04419, and its code",
    use="prompts that are never solved, and a worked solution for them",
    differs=(
        "The authors count right completions. Here the threshold is for the mean of the accuracies, which "
        "may lie between 0 and 1.",
        "The authors average the log-likelihood over the tokens of a micro-batch. Here it is over those of "
        "the mini-batch and all processes.",
        "The authors have a solution for every prompt, and an option to leave a row out once it was taught. "
        "Here a prompt without a usable solution learns from its rollouts, and rows are drawn again.",
    ),
)
def hpt(
    accuracy: Tensor, teachable: Tensor, *, gamma: float = 0.0, coefficient: Weight = 1.0
) -> tuple[Tensor, Tensor]:
    """Teach a prompt that its completions hardly ever solve, and let the others learn from their rewards.

    Below 0, ``gamma`` teaches nothing; from 1 on, everything that can be taught.

    Args:
        accuracy: (P, G) in [0, 1], NaN where unscored.
        teachable: (P,) bool.
        gamma: largest mean accuracy, over the scored completions, at which a prompt is taught.
        coefficient: weight of the solution's log-likelihood.

    Returns:
        Factors of the rollouts and weights of the solutions, (P,) each; a prompt has one of the two.
    """
    taught = teachable & (accuracy.nanmean(1) <= gamma)
    return (~taught).double(), coefficient * taught.double()


@described(
    "the rollouts times {rollouts} and the solution of weight {coefficient}, for every prompt",
    source="the objective E[R] − mu·KL(demonstrator ‖ π) of arXiv 2509.04419, mu = coefficient",
    use="good solutions for most prompts; reinforcement and imitation at once",
)
def always(
    teachable: Tensor, *, rollouts: NonNegativeFloat = 1.0, coefficient: Weight = 1.0
) -> tuple[Tensor, Tensor]:
    """Learn from rollouts and solutions together, with constant weights.

    With ``rollouts: 0`` and a prompt without a solution, nothing is learned from it.

    Args:
        teachable: (P,) bool.
        rollouts: factor of the rollouts' advantages.
        coefficient: weight of the solution's log-likelihood.

    Returns:
        Factors of the rollouts and weights of the solutions, (P,) each.
    """
    taught = teachable.double()
    return rollouts * taught.new_ones(taught.shape), coefficient * taught
