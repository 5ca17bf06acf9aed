"""One rollout batch: what a process samples of it, and with the statistics of all processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from mm_cpgd.errors import UserError
from mm_cpgd.policy import EncodedPrompt
from mm_cpgd.rollout import Group
from mm_cpgd.training.experience import RowsLost
from mm_cpgd.training.rollout_stats import RolloutStats
from mm_cpgd.training.rollouts.beside.early import Early, EarlyAnswers
from mm_cpgd.training.rollouts.conversations import gather_conversations
from rewards.compose import Scored


@dataclass(frozen=True)
class Sampled:
    """What a process samples of a rollout batch, without a word to the others.

    Attributes:
        indices: dataset index of each prompt.
        prompts: the encoded prompts; None for a row whose image has vanished.
        groups: the G completions of each prompt; none for such a row.
        scored: the scores of each group, in the same order; G times None for such a row.
        lost: a line for each row whose image has vanished.
        failures: of each rule that has failed, its newest error and traceback.
        seconds_of_rewards: time spent waiting for scores after the last completion.
        early: scores of answers asked for at budgets of the thinking, if any are.
    """

    indices: list[int]
    prompts: list[EncodedPrompt | None]
    groups: list[Group]
    scored: list[list[Scored]]
    lost: list[str]
    failures: dict[str, str]
    seconds_of_rewards: float
    early: Early = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Rollouts(Sampled):
    """One rollout batch: the prompts of this process, and the statistics of all processes.

    Attributes:
        stats: statistics of the whole batch, (P, G) over all processes.
        drawn: dataset index of each prompt of the batch, of all processes.
    """

    stats: RolloutStats
    drawn: list[int]


def batch_metrics(
    accelerator: Accelerator,
    batches: Sequence[Rollouts],
    stats: RolloutStats,
    keep: Tensor,
    rules: Sequence[str],
    seconds: float,
    *,
    conversations: bool = False,
    early: EarlyAnswers | None = None,
    mine: Tensor | None = None,
) -> dict[str, float]:
    """Return the metrics of an iteration's rollout batches over all processes.

    Args:
        accelerator: the run's accelerator.
        batches: the rollout batches.
        stats: their statistics.
        keep: (P,) bool, prompts that are kept.
        rules: names of the rules.
        seconds: since the iteration began.
        conversations: whether completions are conversations.
        early: asks for early answers, whose tokens count as sampled.
        mine: (P,) bool, prompts of this process; needed with ``early``.
    """
    groups = [group for batch in batches for group in batch.groups]
    seconds_of_rewards = sum(batch.seconds_of_rewards for batch in batches)
    metrics = stats.metrics(rules)
    if early and mine is not None:
        scores = [group for batch in batches for group in batch.early or []]
        metrics |= early.metrics(accelerator, scores, stats.accuracy[mine])
        metrics["tokens/sampled"] += metrics["early/tokens"]
    return {
        **metrics,
        **(gather_conversations(accelerator, groups) if conversations else {}),
        "groups/kept": float(keep.double().mean()),
        "groups/rounds": float(len(batches)),
        "seconds/reward": seconds_of_rewards,
        "seconds/rollout": seconds - seconds_of_rewards,
    }


def check_prompts(prompts: int, processes: int) -> None:
    """Raise ``UserError`` unless an iteration's prompts can be divided among the processes."""
    if prompts % processes:
        raise UserError(f"rollout.prompts={prompts} must be a multiple of the {processes} processes")


def gather_lost(stats: RolloutStats, batches: Sequence[Rollouts]) -> list[str]:
    """Return a line for each lost row of all processes. Raises ``RowsLost`` if none is left."""
    if not stats.lost.any():
        return []
    lost: list[str] = gather_object([line for batch in batches for line in batch.lost])
    if stats.lost.all():
        raise RowsLost(f"none of the {len(stats.lost):,} rows of this iteration can be read: {lost[0]}")
    return lost
