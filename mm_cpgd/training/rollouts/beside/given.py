"""Completions with given tokens as the config asks for them: early answers, and empty thoughts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mm_cpgd.config.given import EmptyThoughtConfig
from mm_cpgd.config.schema import RunConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import Policy
from mm_cpgd.rollout import Completion, Sampling
from mm_cpgd.training.rollouts.beside.early import EarlyAnswers, EarlyScores
from mm_cpgd.training.rollouts.scorer import CompletionScorer


def check_given(config: RunConfig) -> None:
    """Check that early answers and empty thoughts can be sampled.

    Raises:
        UserError: they do not go together with other settings, or a budget is no part of a completion.
    """
    algorithm, rollout = config.algorithm, config.rollout
    for name in ("early_answers", "empty_thought"):
        if getattr(algorithm, name) is None:
            continue
        obstacles: dict[str, object] = {
            "rollout.environment, whose conversations have several turns": rollout.environment,
            "algorithm.noisy, whose halves see two pictures": algorithm.noisy,
            "algorithm.demonstrations, replay or tempered, whose completions are from elsewhere": (
                algorithm.demonstrations or algorithm.replay or algorithm.tempered
            ),
        }
        if name == "empty_thought":
            obstacles |= {
                "algorithm.budget, which gives prompts odd numbers of completions": algorithm.budget,
                "algorithm.early_answers, which would cut a thought that is empty": algorithm.early_answers,
                f"rollout.completions={rollout.completions}, of which half have an empty thought; take an "
                "even number": rollout.completions % 2,
            }
        if found := [text for text, present in obstacles.items() if present]:
            raise UserError(f"algorithm.{name} does not go together with {'; and with '.join(found)}")
    early = algorithm.early_answers
    if early and (budgets := early.tokens(rollout.max_new_tokens))[-1] >= rollout.max_new_tokens:
        raise UserError(
            f"algorithm.early_answers.budgets={list(budgets)} must be below rollout.max_new_tokens="
            f"{rollout.max_new_tokens}: at the limit the completion itself is scored"
        )


def given_facts(
    early: EarlyAnswers | None,
    begun: EmptyThoughtConfig | None,
    rows: Sequence[Completion],
    scores: Sequence[Sequence[EarlyScores]],
    slot: Sequence[int],
    place: Sequence[int],
) -> dict[str, Tensor]:
    """Return what parts by token know of completions with given tokens; see ``token_advantages``.

    Args:
        early: asks for early answers, if the run does.
        begun: the given beginning, if there is one.
        rows: the n completions.
        scores: early scores of all completions of all prompts.
        slot: prompt of each row.
        place: of each row within its group.
    """
    facts: dict[str, Tensor] = {}
    if early:
        facts |= early.facts([scores[s][k] for s, k in zip(slot, place, strict=True)])
    if begun:
        facts["empty_thought"] = torch.tensor([not one.own[0] for one in rows], dtype=torch.float64)
    return facts


def build_early(
    config: RunConfig, policy: Policy, scorer: CompletionScorer, sampling: Sampling
) -> EarlyAnswers | None:
    """Return what asks for early answers, if the config does; ``sampling`` is that of completions."""
    chosen, limit = config.algorithm.early_answers, config.rollout.max_new_tokens
    if chosen is None:
        return None
    return EarlyAnswers(
        policy,
        scorer,
        chosen.tokens(limit),
        limit,
        chosen.bridge,
        chosen.answers,
        replace(sampling, max_new_tokens=chosen.max_new_tokens),
    )
