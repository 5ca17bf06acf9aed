"""Prompt selection, reward shaping and curriculum scores: processing of a rollout batch before advantages.

A selection part takes any of ``accuracy`` and ``rewards``, both (P, G) over all processes and NaN where a
completion could not be scored, and returns ``keep`` (P,) bool. With several parts a prompt must be kept by
each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from mm_cpgd.algorithms.part_info import OpenShare, Share, described


def has_signal(rewards: Tensor) -> Tensor:
    """Return whether a group's rewards differ, so that a group baseline leaves a learning signal.

    Args:
        rewards: (P, G), NaN where unscored; these are ignored.

    Returns:
        (P,) bool; False where fewer than two completions are scored.
    """
    unscored = rewards.isnan()
    highest = rewards.masked_fill(unscored, float("-inf")).amax(dim=1)
    lowest = rewards.masked_fill(unscored, float("inf")).amin(dim=1)
    return highest > lowest


@described(
    "keeps a prompt if {low} ≤ mean accuracy ≤ {high}",
    source="MM-Eureka, arXiv 2503.07365",
    use="rows of very different difficulty, and no sampling to fill the batch again",
)
def accuracy_filter(accuracy: Tensor, *, low: Share = 0.1, high: Share = 0.9) -> Tensor:
    """Keep prompts that are currently neither too hard nor too easy; drop those without any score.

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
    "samples, at most {max_rounds} times, until as many prompts are kept as requested",
    source="DAPO, arXiv 2503.14476, section 3.2",
    choice="on",
    variants={
        "accuracy": "keeps a prompt if its accuracies differ within the group",
        "rewards": "keeps a prompt if its rewards differ within the group",
    },
    differs=(
        "verl's implementation ends the run when the rounds are used up. Here the update goes on with the "
        "prompts that were kept.",
    ),
    use="where many groups have no signal, and sampling more is affordable",
)
def dynamic_sampling(
    accuracy: Tensor,
    rewards: Tensor,
    *,
    on: Literal["accuracy", "rewards"] = "accuracy",
    max_rounds: PositiveInt = 10,
) -> Tensor:
    """Keep prompts whose group has a signal; the trainer samples further prompts until the batch is full.

    DAPO's condition is on correct answers: 0 < #correct < G.

    Args:
        accuracy: (P, G), NaN where unscored.
        rewards: (P, G), the weighted sum, NaN where unscored.
        on: quantity that must differ within the group.
        max_rounds: largest number of rollout batches; read by the trainer through ``Objective.max_rounds``.

    Returns:
        (P,) bool.
    """
    return has_signal(accuracy if on == "accuracy" else rewards)


@described(
    "adds −{penalty}·clip((|y| − (max_new_tokens − {buffer})) / {buffer}, 0, 1)",
    source="DAPO, arXiv 2503.14476, eq. 13",
    differs=(
        "The paper's rewards are −1 and 1, so that its penalty of 1 is half of their range. Here 1 is the "
        "default whatever the rules can give; for half, set penalty to half of their range.",
    ),
    use="where completions run into the limit of length",
)
def overlong_penalty(
    lengths: Tensor, max_tokens: int, *, buffer: PositiveInt | None = None, penalty: PositiveFloat = 1.0
) -> Tensor:
    """Soft overlong punishment, from 0 down to −penalty.

    Args:
        lengths: tokens of each completion, any shape.
        max_tokens: longest completion that may be sampled; there the full penalty applies.
        buffer: number of tokens before ``max_tokens`` over which the penalty grows linearly; None: a fifth
            of ``max_tokens``, as in the paper.
        penalty: largest penalty, in units of reward; the paper uses 1 with rewards of −1 and 1.

    Returns:
        Addition to the rewards, ≤ 0, in the shape of ``lengths``.
    """
    width = buffer or max(1, max_tokens // 5)
    return -penalty * ((lengths - (max_tokens - width)) / width).clamp(min=0, max=1)


@described(
    "score = {outcome}·p·(1 − p) + {variety}·d, p mean accuracy of the prompt's completions, d their share "
    "of distinct {ngram}-grams; {share} of each batch is drawn in proportion to it, the rest uniformly",
    source="variance-aware sampling, MMR1, arXiv 2509.21268",
    choice="scale",
    variants={
        "minmax": "scores are first scaled to [0, 1] over the rows that have one",
        "none": "scores as they are",
    },
    differs=(
        "The authors score the whole pool by 8 new rollouts of each prompt every 4 steps. Here a prompt "
        "has the score of its last rollout in training, and none before, so that early draws by score "
        "repeat prompts already seen. No setting does this.",
        "The authors draw the share by score with replacement, over an epoch's worth of prompts. Here it "
        "is drawn without replacement in a batch, without the batch's other prompts. No setting does this.",
        "The authors' code can also take self-BLEU, with a positive weight, which rewards similar answers, "
        "contrary to the paper. Here diversity is the share of distinct n-grams alone.",
    ),
    use="large data sets, of which few rows have a signal at a time",
)
def variance_aware(
    accuracy: Tensor,
    diversity: Tensor,
    *,
    outcome: NonNegativeFloat = 0.8,
    variety: NonNegativeFloat = 0.2,
    share: OpenShare = 0.5,
    scale: Literal["minmax", "none"] = "minmax",
    ngram: PositiveInt = 3,
) -> Tensor:
    """MMR1's variance promotion score: outcome variance and diversity of the trajectories.

    MMR1 periodically scores every prompt by separate rollouts; here a prompt's score is that of its last
    rollout in training, at no extra cost, and prompts without one come from the uniform share.

    Args:
        accuracy: (P, G) in [0, 1], NaN where unscored.
        diversity: (P,) in [0, 1], see ``distinct_share``.
        outcome: weight of the outcome variance.
        variety: weight of the diversity.
        share: share of a batch that is drawn by score; read by the sampler.
        scale: *minmax* is the authors': the least promising prompt has weight 0; read by the sampler.
        ngram: length of the n-grams whose diversity counts, 3 in the authors' code; read by the collector.

    Returns:
        Scores (P,); 0 where no completion could be scored.
    """
    p = accuracy.nanmean(dim=1)
    return (outcome * p * (1 - p) + variety * diversity).nan_to_num(0.0)


def distinct_share(completions: Sequence[Sequence[int]], n: int) -> float:
    """Return distinct / all n-grams of a group's completions (Distinct-n, arXiv 1510.03055); 0 for none.

    Args:
        completions: token ids of each completion.
        n: length of the n-grams.
    """
    grams = [tuple(ids[i : i + n]) for ids in completions for i in range(len(ids) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0
