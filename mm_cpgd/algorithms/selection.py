"""Which prompts of a rollout batch are worth an update.

A part takes any of ``accuracy`` and ``rewards``, both (P, G) over all processes and NaN where a completion
could not be scored, and returns ``keep`` (P,) bool. With several parts a prompt must be kept by each.
"""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt
from torch import Tensor

from mm_cpgd.algorithms.described import described
from mm_cpgd.algorithms.limits import Share


def has_signal(rewards: Tensor) -> Tensor:
    """Whether a group's rewards differ, so that a group baseline leaves something to learn.

    Args:
        rewards: (P, G), NaN where unscored; these are left out.

    Returns:
        (P,) bool; False where fewer than two completions are scored.
    """
    unscored = rewards.isnan()
    highest = rewards.masked_fill(unscored, float("-inf")).amax(dim=1)
    lowest = rewards.masked_fill(unscored, float("inf")).amin(dim=1)
    return highest > lowest


@described("keeps a prompt if {low} ≤ mean accuracy ≤ {high}", source="MM-Eureka, arXiv 2503.07365")
def accuracy_filter(accuracy: Tensor, *, low: Share = 0.1, high: Share = 0.9) -> Tensor:
    """Keep prompts that are neither too hard nor too easy now; those without any score are dropped.

    Args:
        accuracy: (P, G) in [0, 1], NaN where unscored.
        low: lowest mean accuracy that is kept.
        high: highest mean accuracy that is kept.

    Returns:
        (P,) bool.
    """
    mean = accuracy.nanmean(dim=1)
    return (mean >= low) & (mean <= high)


@described(
    "samples, at most {max_rounds} times, until as many prompts are kept as were asked for",
    source="DAPO, arXiv 2503.14476, section 3.2",
    choice="on",
    variants={
        "accuracy": "keeps a prompt if its accuracies differ within the group",
        "rewards": "keeps a prompt if its rewards differ within the group",
    },
)
def dynamic_sampling(
    accuracy: Tensor,
    rewards: Tensor,
    *,
    on: Literal["accuracy", "rewards"] = "accuracy",
    max_rounds: PositiveInt = 10,
) -> Tensor:
    """Keep prompts whose group carries a signal; the trainer samples anew until the batch is full.

    DAPO's condition is on right answers: 0 < #right < G.

    Args:
        accuracy: (P, G), NaN where unscored.
        rewards: (P, G), the weighted sum, NaN where unscored.
        on: what has to differ within the group.
        max_rounds: rollout batches at most; read by the trainer through ``Objective.max_rounds``.

    Returns:
        (P,) bool.
    """
    return has_signal(accuracy if on == "accuracy" else rewards)
