"""Contrastive policy gradient: completions of a group are each other's baselines, at the current policy."""

from __future__ import annotations

import torch
from pydantic import PositiveFloat
from torch import Tensor

from mm_cpgd.algorithms.part_info import described


def regularised_differences(rewards: Tensor, reference_log_ratios: Tensor, *, beta: PositiveFloat) -> Tensor:
    """Return each completion's regularised reward minus the mean of its group's others.

    With R̃ = R − β·log(π(y)/π_ref(y)), that is n/(n − 1)·(R̃ − mean R̃) over the n scored completions.

    Args:
        rewards: (p, G), NaN where there is no completion.
        reference_log_ratios: (p, G), log π(y) − log π_ref(y) of whole completions, at the current policy.
        beta: weight of the log-ratio, in units of reward per nat.

    Returns:
        (p, G); 0 where there is nothing to compare with.
    """
    regularised = rewards - beta * reference_log_ratios
    known = ~regularised.isnan()
    count = known.sum(dim=1, keepdim=True)
    mean = regularised.nansum(dim=1, keepdim=True) / count.clamp(min=1)
    differences = (regularised - mean) * count / (count - 1).clamp(min=1)
    return torch.where(known & (count > 1), differences, 0.0)


@described(
    "S = sg(R̃ − mean R̃ of the group's others)·ℓ, R̃ = R − {beta}·log(π(y)/π_ref(y)) at the current policy",
    gradient="R̃ − mean R̃ of the group's others",
    source="CoPG, arXiv 2406.19185",
    group="with whole completions",
    use="several steps on one batch without a clip, and a reference policy to stay near",
    of_groups=regularised_differences,
    differs=(
        "The paper states pairs. Here a completion is compared with the mean of its group's others, the mean "
        "over its pairs: half of the gradient of the mean over all pairs.",
    ),
)
def copg(log_ratio: Tensor, prepared: Tensor, *, beta: PositiveFloat = 0.05) -> Tensor:
    """CoPG: no ratio and no clip; the samples may come from any policy.

    The value of the term has no meaning; only its gradient has. ``advantages`` are not used. Groups whose
    rewards are equal are learned from too: their log-ratios to the reference are drawn together. The paper's
    β for learned rewards is of the order of 0.03 to 0.1; the log-ratio is a sum over tokens, so that long
    completions need a smaller one.

    Args:
        log_ratio: (n, T).
        prepared: (n, T) from ``regularised_differences``, before this step.
        beta: weight of the log-ratio to the reference, in units of reward per nat.

    Returns:
        Terms (n, T).
    """
    return prepared * log_ratio
