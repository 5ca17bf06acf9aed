"""Credit by agreement: groups whose answers agree learn from how they compare with other prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

from mm_cpgd.algorithms.advantages import grpo
from mm_cpgd.algorithms.part_info import described

Answers = Sequence[Sequence[str | None]]


@described(
    "A = w·A_local + (1 − w)·A_global; A_local = (R − mean) / (std + {eps}), A_global the same of the "
    "prompts' mean rewards over the batch, w = σ({gamma}·(H − {rho})), H the entropy of the group's answers",
    source="COPO, arXiv 2508.04138",
    group="over the batch",
    use="late in a run, when many groups are all right or all wrong",
    differs=(
        "The paper adds two clipped losses. Here their advantages are added, which is the same wherever no "
        "clip acts or both have one sign. No setting does this.",
        "The form of w and the numbers of gamma and rho could not be seen in the paper. Here they are a "
        "reconstruction.",
    ),
)
def copo(
    rewards: Tensor,
    answers: Answers | None,
    finished: Tensor,
    *,
    gamma: PositiveFloat = 3.0,
    rho: float = 1.0,
    scale: Literal["standardised", "centred"] = "standardised",
    eps: PositiveFloat = 1e-6,
) -> Tensor:
    """COPO: the group's own comparison where its answers differ, that with other prompts where they agree.

    A group that agrees on a wrong answer is pushed away from it, one that agrees on the right one towards it.
    Prompts that are all equally good say nothing about each other. With one completion a prompt only the
    comparison with other prompts remains.

    Args:
        rewards: (P, G), NaN where unscored.
        answers: (P, G) texts, compared without case and spacing; an answer that is None, or of a completion
            that was cut off, agrees with no other. None in place of all: equal rewards count as agreement.
        finished: (P, G), 1 where the completion ended by itself.
        gamma: steepness of the gate, per nat.
        rho: entropy at which both count alike, in nats; for agreement by rewards of 0 and 1 about 0.35.
        scale: *centred* does not divide the prompts' means by their standard deviation.
        eps: keeps the quotients finite.

    Returns:
        (P, G).
    """
    scored = ~rewards.isnan()
    returns = rewards.nanmean(dim=1)[None]
    across = grpo(returns, eps=eps)[0]
    if scale == "centred":
        known = ~returns[0].isnan()
        across = torch.where(known, returns[0] - returns.nanmean(), torch.zeros_like(returns[0]))
    entropy = answer_entropy(_clusters(rewards, answers, finished)).to(rewards)
    local = torch.sigmoid(gamma * (entropy - rho))[:, None]
    mixed = local * grpo(rewards, eps=eps) + (1 - local) * across[:, None]
    return torch.where(scored, mixed, torch.zeros_like(mixed))


def answer_entropy(clusters: Sequence[Sequence[object]]) -> Tensor:
    """Return −Σ p·ln p of the shares p of each group's clusters, (P,), nats; 0 for an empty group."""
    return torch.tensor(
        [
            float(torch.special.entr(torch.tensor([*Counter(group).values()]).double() / len(group)).sum())
            for group in clusters
        ],
        dtype=torch.float64,
    )


def _clusters(rewards: Tensor, answers: Answers | None, finished: Tensor) -> list[list[object]]:
    """Return a name of the cluster of each scored completion, by group."""
    found: list[list[object]] = []
    for prompt, row in enumerate(rewards.tolist()):
        group: list[object] = []
        for place, reward in enumerate(row):
            if reward != reward:
                continue
            answer = None if answers is None else answers[prompt][place]
            alone = answer is None or not finished[prompt, place] > 0
            name = place if alone or answer is None else " ".join(answer.casefold().split())
            group.append(reward if answers is None else name)
        found.append(group)
    return found
