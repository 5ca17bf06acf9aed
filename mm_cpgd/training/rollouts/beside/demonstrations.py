"""Demonstrations: solutions that training rows hold, learned from beside or in place of their rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from data import Example
from mm_cpgd.algorithms.inputs.outcomes import Outcomes
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.config.schema import RunConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import Policy
from mm_cpgd.rollout import Completion
from mm_cpgd.training.rollouts.beside.elsewhere import OtherCompletions, Source
from mm_cpgd.training.sft import LIKELIHOOD, sft_objective, target_tokens


@dataclass(frozen=True)
class Mix:
    """What an iteration learns from.

    Attributes:
        learned: (P,) bool, prompts whose rollouts are learned from.
        factors: (P,) of their advantages; None: 1.
        others: completions from elsewhere.
        metrics: of the mixture.
    """

    learned: Tensor
    factors: Tensor | None = None
    others: list[OtherCompletions] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


class Demonstrations:
    """Asks the objective's part which prompts are taught, and returns their solutions as completions.

    The text is the row's, by ``template``, with the end token, as ``mm-cpgd sft`` teaches it.

    Args:
        objective: an objective with ``demonstrations``.
        policy: tokenizes solutions.
        examples: training rows.
        template: ``{solution}`` and ``{answer}`` are filled in.
        max_new_tokens: a longer solution is not taught.
    """

    def __init__(
        self,
        objective: Objective,
        policy: Policy,
        examples: Sequence[Example],
        template: str,
        max_new_tokens: int,
    ) -> None:
        self.objective = objective
        self.policy = policy
        self.examples = examples
        self.template = template
        self.max_new_tokens = max_new_tokens

    def mix(self, outcomes: Outcomes, scored: Tensor, mine: Tensor) -> Mix:
        """Return what the iteration learns from, the same on all processes but for the completions.

        Nothing is taught where no completion could be scored: whether the policy needs it is unknown.

        Args:
            outcomes: of all prompts drawn, P of them.
            scored: (P,) bool, prompts that can be learned from.
            mine: (P,) bool, prompts of this process.

        Raises:
            UserError: the part returns something else than two tables (P,) of numbers of at least 0.
        """
        targets = [self._target(self.examples[row]) for row in outcomes.rows.tolist()]
        teachable = torch.tensor([target is not None for target in targets])
        factors, weights = self.objective.mix(outcomes, teachable)
        taught = scored & teachable & (weights > 0)
        learned = scored & (factors > 0)
        metrics = {
            "demonstrations/taught": float(taught.double().mean()),
            "demonstrations/teachable": float(teachable.double().mean()),
        }
        if not taught.any():
            return Mix(learned, factors, metrics=metrics)
        lengths = [0 if target is None else target.length for target in targets]
        own = [targets[place] if taught[place] else None for place in mine.nonzero().squeeze(1).tolist()]
        others = OtherCompletions(
            usable=taught.unsqueeze(1),
            lengths=torch.tensor(lengths, dtype=torch.float64).unsqueeze(1),
            advantages=weights.unsqueeze(1),
            groups=[[one] for one in own],
        )
        return Mix(learned, factors, [others], metrics)

    def _target(self, example: Example) -> Completion | None:
        """Return the row's solution, None if there is none or it is too long."""
        if "{solution}" in self.template and not (example.solution or "").strip():
            return None
        tokens = target_tokens(self.policy, example, self.template)
        if tokens.numel() > self.max_new_tokens:
            return None
        # Compared with a probability of 1, so that the loss is the negative log-likelihood.
        return Completion(tokens, torch.zeros(tokens.shape), "", finished=True)


def build_demonstrations(
    config: RunConfig, objective: Objective, policy: Policy, examples: Sequence[Example]
) -> Demonstrations | None:
    """Return the solutions of a run's rows, None where no part of the objective teaches them.

    Raises:
        UserError: no row has a solution, so that nothing could be taught.
    """
    if objective.demonstrations is None:
        return None
    template = config.sft.target_template
    if "{solution}" in template and not any((one.solution or "").strip() for one in examples):
        raise UserError(
            f"{objective.demonstrations.where} teaches solutions, and no training row has one; name their "
            "column in data.train.columns.solution, or write sft.target_template with {answer}"
        )
    return Demonstrations(objective, policy, examples, template, config.rollout.max_new_tokens)


def demonstration_source(max_new_tokens: int) -> Source:
    """Return the loss on demonstrations: that of ``mm-cpgd sft``, each row times its weight."""
    return Source("demonstrations", sft_objective(LIKELIHOOD, max_new_tokens))
