"""Returns of single turns of conversations, and their advantages as one per token.

The return of turn t is what is scored from there on, R_t = Σ_{s ≥ t} γ^(s - t) r_s, where r_s are the
weighted scores that the environment gives in turn s, and in the last turn also the rest of the reward: the
rules' and the objective's shaping. With γ = 1 that of the first turn is the reward. The advantage of a turn
compares its return with those of the same turn in the group, by the objective's own part; a turn that only
one conversation of the group reached has nothing to be compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from mm_cpgd.algorithms.inputs.outcomes import Outcomes
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.config.rollout import EnvironmentConfig
from mm_cpgd.rollout import Completion, Group
from mm_cpgd.training.experience import pad_tokens
from rewards import Verdict


def credit_of_turns(
    accelerator: Accelerator,
    objective: Objective,
    environment: EnvironmentConfig | None,
    groups: Sequence[Sequence[Group]],
    outcomes: Outcomes,
    keep: Tensor,
    advantages: Tensor,
) -> Tensor:
    """Return the advantages (P, G, turns) of turns; ``advantages`` where a completion has one.

    Args:
        accelerator: the run's accelerator.
        objective: whose advantages are compared by turn.
        environment: of the run's conversations, if completions are conversations.
        groups: this process's groups of each rollout batch.
        outcomes: of all batches and processes.
        keep: (P,) bool, prompts that are learned from.
        advantages: (P, G) of whole completions.
    """
    if environment is None or environment.returns != "by_turn":
        return advantages
    scored = gather_turn_rewards(
        accelerator,
        groups,
        environment.scores,
        completions=outcomes.rewards.shape[1],
        turns=environment.max_turns,
    )
    returns = turn_returns(outcomes.rewards, scored, environment.discount)
    return turn_advantages(returns, keep, lambda given, rows: objective.advantages(given, outcomes.of(rows)))


def gather_turn_rewards(
    accelerator: Accelerator,
    batches: Sequence[Sequence[Group]],
    weights: Mapping[str, float],
    *,
    completions: int,
    turns: int,
) -> Tensor:
    """Return the environment's weighted scores of each turn over all processes, (P, G, turns) float64.

    Args:
        accelerator: the run's accelerator.
        batches: this process's groups of each rollout batch; prompt j belongs to process j mod W.
        weights: factor of each score.
        completions: G.
        turns: largest number of turns.

    Returns:
        NaN where a conversation has no such turn.
    """
    tables = []
    for groups in batches:
        own = torch.full((len(groups), completions, turns), torch.nan, dtype=torch.float64)
        for place, group in enumerate(groups):
            for number, completion in enumerate(group):
                values = _turn_rewards(completion, weights)
                own[place, number, : len(values)] = torch.tensor(values, dtype=torch.float64)
        gathered = accelerator.gather(own.to(accelerator.device)).cpu()
        by_process = gathered.unflatten(0, (accelerator.num_processes, -1))
        tables.append(by_process.transpose(0, 1).flatten(0, 1))
    return torch.cat(tables)


def _turn_rewards(completion: Completion, weights: Mapping[str, float]) -> list[float]:
    values = []
    for turn in completion.talk.turns if completion.talk else ():
        total = 0.0
        for name, given in (turn.observation.scores if turn.observation else {}).items():
            score = given.score if isinstance(given, Verdict) else float(given)
            total += weights.get(name, 0.0) * (score or 0.0)
        values.append(total)
    return values


def turn_returns(rewards: Tensor, by_turn: Tensor, discount: float) -> Tensor:
    """Return R_t of each turn.

    Args:
        rewards: (P, G) of whole conversations, shaped; NaN where unscored.
        by_turn: (P, G, turns) scores of turns, NaN where there is no such turn.
        discount: γ.

    Returns:
        (P, G, turns), NaN where there is no such turn or the conversation is unscored.
    """
    given = by_turn.nan_to_num(0.0)
    rest = rewards - given.sum(2)
    count = (~by_turn.isnan()).sum(2)
    returns = torch.full_like(by_turn, torch.nan)
    following = torch.zeros_like(rewards)
    for turn in reversed(range(by_turn.shape[2])):
        own = given[..., turn] + torch.where(count == turn + 1, rest, 0.0)
        following = own + discount * following
        returns[..., turn] = torch.where(turn < count, following, torch.nan)
    return returns


def turn_advantages(returns: Tensor, keep: Tensor, advantages: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the advantage of each turn, (P, G, turns); 0 where there is none.

    Args:
        returns: (P, G, turns), NaN where there is none.
        keep: (P,) prompts that are learned from.
        advantages: the objective's, from returns (P', G) with NaN and the prompts (P,) bool that they are of
            to (P', G).
    """
    found = torch.zeros_like(returns)
    for turn in range(returns.shape[2]):
        known = ~returns[..., turn].isnan()
        rows = keep & known.any(1)
        if rows.any():
            own = advantages(returns[rows, :, turn], rows)
            found[rows, :, turn] = own.to(found).masked_fill(~known[rows], 0.0)
    return found


def by_token(completions: Sequence[Completion], advantages: Tensor) -> Tensor:
    """Return advantages (n,) as they are, and those of turns (n, turns) by token (n, T)."""
    if advantages.dim() == 1:
        return advantages
    pairs = zip(completions, advantages, strict=True)
    return pad_tokens([token_advantages(*pair) for pair in pairs])[0].float()


def token_advantages(completion: Completion, by_turn: Tensor) -> Tensor:
    """Return the advantage (T_i,) of each token of a completion from those of its turns; 0 where observed."""
    values = torch.zeros(completion.tokens.shape)
    turns = [turn.tokens for turn in completion.talk.turns] if completion.talk else [completion.length]
    values[completion.own] = by_turn[: len(turns)].float().repeat_interleave(torch.tensor(turns))
    return values
