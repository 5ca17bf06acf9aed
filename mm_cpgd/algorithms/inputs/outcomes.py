"""Outcomes of an iteration's rollouts over all processes, as parts may ask for them by name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Outcomes:
    """What is known of P prompts with up to G completions each, in the order of the draws.

    The tensors are the same on all processes, so that a part which computes with them is global by
    arithmetic. Where a completion could not be scored, or a prompt has fewer than G of them, values are NaN.

    Attributes:
        rewards: (P, G) float64, the weighted sum with shaping.
        accuracy: (P, G) scores of the first rule.
        lengths: (P, G) own tokens.
        finished: (P, G) 1 where the completion ended by itself, 0 where a limit cut it off.
        components: (P, G, R) score of each rule, gated and bounded, without its weight.
        weights: (R,) weights of the rules: Σ weights·components + shaping = rewards.
        shaping: (P, G) additions of the shaping parts.
        rows: (P,) int64, index of the prompt in the training rows.
        rules: names of the R rules.
        answers: text that the first rule extracted from each completion, None where there is none; only there
            if a part asks for it.
        iteration: the running iteration, from 1.
        progress: 0 in the first iteration of the run, 1 in the last.
        seed: of random choices, of this iteration; the same on all processes.
        entries: completions that the memory of replay takes up, see ``by_row.entries.Entries.state``; None
            without such a memory. No input of parts.
        replayed: number of entries that were learned from in this iteration. No input of parts.
        scale: factor of the advantages, as a part of ``reward_weights`` has set it.
    """

    rewards: Tensor
    accuracy: Tensor
    lengths: Tensor
    finished: Tensor
    components: Tensor
    weights: Tensor
    shaping: Tensor
    rows: Tensor
    rules: tuple[str, ...] = ()
    answers: list[list[str | None]] | None = None
    iteration: int = 1
    progress: float = 0.0
    seed: int = 0
    entries: dict[str, Any] | None = None
    replayed: int = 0
    scale: float = 1.0

    def of(self, prompts: Tensor) -> Outcomes:
        """Return those of the prompts (P,) bool."""
        tensors = ("rewards", "accuracy", "lengths", "finished", "components", "shaping", "rows")
        chosen = prompts.nonzero().squeeze(1).tolist()
        return replace(
            self,
            **{name: getattr(self, name)[prompts] for name in tensors},
            answers=self.answers and [self.answers[place] for place in chosen],
        )

    def with_rewards(self, rewards: Tensor) -> Outcomes:
        """Return the same with other rewards (P, G), as of one turn of conversations."""
        return replace(self, rewards=rewards)

    def mixed(self, weights: Tensor, scale: float = 1.0) -> Outcomes:
        """Return the same with rewards mixed by other weights (R,) of the rules, and advantages scaled.

        What could not be scored stays so; a rule's missing score counts 0 elsewhere, as its weight was 0.
        """
        total = (self.components.nan_to_num(0.0) * weights).sum(2) + self.shaping
        rewards = total.to(self.rewards).masked_fill(self.rewards.isnan(), float("nan"))
        return replace(self, rewards=rewards, weights=weights, scale=scale)

    def facts(self, completions: Tensor) -> dict[str, Tensor]:
        """Return what is known of each of the completions (P, C) bool, in order, (n,) each.

        Columns beyond G are of completions that were not sampled; they have neither reward nor accuracy.
        """
        prompt, number = completions.nonzero(as_tuple=True)
        more = (0, completions.shape[1] - self.rewards.shape[1])
        values = {
            name: torch.nn.functional.pad(getattr(self, name), more, value=torch.nan)[completions]
            for name in ("rewards", "accuracy", "finished")
        }
        return {"prompt_of": prompt, "completion_of": number, **values}

    def available(self) -> dict[str, Any]:
        """Return the values by the names of parts' inputs."""
        return {name: getattr(self, name) for name in OUTCOMES}

    @classmethod
    def of_rewards(cls, rewards: Tensor) -> Outcomes:
        """Return outcomes of which only the rewards are known: one rule, lengths of 1, rows 0 to P − 1."""
        ones = torch.ones_like(rewards)
        return cls(
            rewards=rewards,
            accuracy=rewards,
            lengths=ones,
            finished=ones,
            components=rewards.unsqueeze(2),
            weights=rewards.new_ones(1),
            shaping=torch.zeros_like(rewards),
            rows=torch.arange(len(rewards)),
            rules=("reward",),
        )


OUTCOMES = frozenset(Outcomes.__dataclass_fields__) - {"entries", "replayed", "scale"}
"""Names of the inputs that ``Outcomes`` provides to parts."""
CLOCK = frozenset({"iteration", "progress"})
"""Names of the inputs that a part of every kind may take."""
