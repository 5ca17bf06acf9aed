"""Scores of completions: by the reward rules, and of conversations by their environments too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mm_cpgd.errors import UserError
from mm_cpgd.rollout import Completion
from rewards import ConversationText, RewardSum, Status, Verdict
from rewards.compose import RESERVED_NAMES, Scored
from rewards.messages import nearest


class CompletionScorer:
    """Scores completions by the reward rules, and those of conversations by their environments too.

    Args:
        rewards: the rules.
        weights: factor of each part that an environment scores.
        gates: rule by part; below 1 there, the part counts 0.

    Attributes:
        names: names of all components, rules first.
        factors: weights of the components, in the same order.

    Raises:
        UserError: a part has the name of a rule, or one that the log uses; a gate is no rule, or that of a
            part without weight.
    """

    def __init__(
        self, rewards: RewardSum, weights: Mapping[str, float], gates: Mapping[str, str] | None = None
    ) -> None:
        if taken := sorted({*rewards.rules, *RESERVED_NAMES} & set(weights)):
            raise UserError(
                f"rollout.environment.scores has {', '.join(taken)}, which is the name of a reward, or of a "
                "metric of all rewards; give the reward another name (name: …), or the environment's score"
            )
        self.gates = dict(gates or {})
        for part, gate in self.gates.items():
            if part not in weights:
                raise UserError(
                    f"rollout.environment.gates has {part!r}, which has no weight in rollout.environment."
                    f"scores: {nearest(part, weights) if weights else 'there is none'}"
                )
            if gate not in rewards.rules:
                raise UserError(
                    f"rollout.environment.gates.{part} is {gate!r}, and no reward has that name: "
                    f"{nearest(gate, rewards.rules)} (or add one, with weight 0 if it is only a gate)"
                )
        self.rewards = rewards
        self.weights = dict(weights)
        self.names = [*rewards.rules, *weights]
        self.factors = [*rewards.weights.values(), *self.weights.values()]

    def score(self, completions: Sequence[Completion], examples: Sequence[Any]) -> list[Scored]:
        """Score completions against their examples, in order; errors as in ``RewardSum.score``.

        A completion whose environment failed has no score: its conversation is not what it should have been.
        """
        texts = [text_of(completion) for completion in completions]
        scored = self.rewards.score(texts, examples)
        return [self._with_environment(*pair) for pair in zip(scored, completions, strict=True)]

    def score_groups(
        self, groups: Sequence[Sequence[Completion]], examples: Sequence[Any], width: int
    ) -> list[list[Scored]]:
        """Score the groups of several examples; an empty one, of a lost row, gets ``width`` non-scores."""
        owners = [example for example, group in zip(examples, groups, strict=True) for _ in group]
        flat = iter(self.score([one for group in groups for one in group], owners))
        nothing = Scored(None, dict.fromkeys(self.names, Verdict(None, Status.NOT_JUDGED)))
        return [[next(flat) for _ in group] if group else [nothing] * width for group in groups]

    def _with_environment(self, scored: Scored, completion: Completion) -> Scored:
        if completion.talk is None:
            return scored
        if failure := completion.talk.failure:
            return Scored(None, dict.fromkeys(self.names, failure))
        given = completion.talk.scores()
        own = {
            name: self._gated(name, _verdict(name, given.get(name, 0.0)), scored.components)
            for name in self.weights
        }
        total = scored.total
        for name, weight in self.weights.items():
            score = own[name].score
            if weight and score is None:
                total = None
            total = None if total is None else total + weight * (score or 0.0)
        return replace(scored, total=total, components={**scored.components, **own})

    def _gated(self, name: str, verdict: Verdict, rules: Mapping[str, Verdict]) -> Verdict:
        """Return the verdict, with score 0 if its gate is closed, and no score if the gate has none."""
        if name not in self.gates or not verdict.score:
            return verdict
        gate = self.gates[name]
        score = rules[gate].score
        if score is None:
            return Verdict(None, Status.NOT_JUDGED, None, f"{gate} has no score: {rules[gate].reason}")
        if score >= 1:
            return verdict
        reason = f"does not count: {gate} is {score:g}, at least 1 is needed (otherwise {verdict.score:g})"
        return replace(verdict, score=0.0, reason=reason)


def _verdict(name: str, score: float | None) -> Verdict:
    if score is None:
        return Verdict(None, Status.NOT_JUDGED, None, f"the environment could not score {name}")
    return Verdict(score, Status.PARTIAL, None, f"{score:g} from the environment")


def text_of(completion: Completion) -> str:
    """Return what rules score: the last turn's text, which knows the turns of the whole conversation."""
    if completion.talk is None:
        return completion.text
    return ConversationText.of([(turn.text, turn.observed) for turn in completion.talk.turns])
