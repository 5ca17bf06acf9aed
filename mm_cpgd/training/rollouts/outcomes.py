"""Outcomes: what is known of an iteration's rollouts over all processes, for the parts that ask for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from mm_cpgd.algorithms.inputs.outcomes import Outcomes
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.training.rollout_stats import RolloutStats
from mm_cpgd.training.rollouts.batches import Rollouts
from mm_cpgd.training.rollouts.scorer import CompletionScorer
from mm_cpgd.training.rollouts.seeds import seed_of
from rewards.compose import Scored


def gather_outcomes(
    accelerator: Accelerator,
    objective: Objective,
    scorer: CompletionScorer,
    batches: Sequence[Rollouts],
    stats: RolloutStats,
    rewards: Tensor,
    *,
    iteration: int,
    seed: int,
) -> Outcomes:
    """Return the outcomes of all rollout batches of an iteration, the same on all processes.

    Only the extracted answers have to be gathered for it, and only if a part asks for them.

    Args:
        accelerator: the run's accelerator.
        objective: says what its parts ask for.
        scorer: names and weights of the rules.
        batches: the rollout batches, with this process's groups.
        stats: their statistics over all processes.
        rewards: (P, G) shaped; mixed anew where a part weights the rules.
        iteration: the running iteration, from 1.
        seed: of the run.
    """
    answers = None
    if objective.asks("answers"):
        answers = [group for batch in batches for group in gather_answers(accelerator, scorer, batch.scored)]
        answers = [[*group, *[None] * (rewards.shape[1] - len(group))] for group in answers]
    found = Outcomes(
        rewards=rewards,
        accuracy=stats.accuracy,
        lengths=stats.lengths,
        finished=stats.finished,
        components=stats.components,
        weights=torch.tensor(scorer.factors, dtype=torch.float64),
        shaping=rewards - stats.rewards,
        rows=torch.tensor([row for batch in batches for row in batch.drawn]),
        rules=tuple(scorer.names),
        answers=answers,
        seed=seed_of(seed, iteration, "outcomes"),
        **objective.clock(iteration),
    )
    return objective.weigh(found)


def gather_answers(
    accelerator: Accelerator, scorer: CompletionScorer, scored: Sequence[Sequence[Scored]]
) -> list[list[str | None]]:
    """Return the text that the first rule extracted from each completion, in the order of the prompts.

    Args:
        accelerator: the run's accelerator.
        scorer: names of the rules.
        scored: of this process's groups; prompt j of a batch belongs to process j mod W.
    """
    first = scorer.names[0]
    own = [[_extracted(one, first) for one in group] for group in scored]
    everywhere: list[list[list[str | None]]] = gather_object([own])
    processes = accelerator.num_processes
    return [everywhere[slot % processes][slot // processes] for slot in range(sum(map(len, everywhere)))]


def _extracted(scored: Scored, rule: str) -> str | None:
    found = scored.components[rule].extracted
    return None if found is None else str(found)
