"""Scores of completions: by the reward rules, and of conversations by their environments too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mm_cpgd.errors import UserError
from mm_cpgd.rollout import Completion
from rewards import ConversationText, RewardSum, Status, Verdict
from rewards.compose import RESERVED_NAMES, Scored


class CompletionScorer:
    """Scores completions by the reward rules, and those of conversations by their environments too.

    Args:
        rewards: the rules.
        weights: factor of each part that an environment scores.

    Attributes:
        names: names of all components, rules first.
        factors: weights of the components, in the same order.

    Raises:
        UserError: a part has the name of a rule, or one that the log uses.
    """

    def __init__(self, rewards: RewardSum, weights: Mapping[str, float]) -> None:
        if taken := sorted({*rewards.rules, *RESERVED_NAMES} & set(weights)):
            raise UserError(
                f"rollout.environment.scores has {', '.join(taken)}, which is the name of a reward, or of a "
                "metric of all rewards; give the reward another name (name: …), or the environment's score"
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

    def _with_environment(self, scored: Scored, completion: Completion) -> Scored:
        if completion.talk is None:
            return scored
        if failure := completion.talk.failure:
            return Scored(None, dict.fromkeys(self.names, failure))
        given = completion.talk.scores()
        own = {name: _verdict(name, given.get(name, 0.0)) for name in self.weights}
        total = scored.total
        for name, weight in self.weights.items():
            score = own[name].score
            if weight and score is None:
                total = None
            total = None if total is None else total + weight * (score or 0.0)
        return replace(scored, total=total, components={**scored.components, **own})


def _verdict(name: str, score: float | None) -> Verdict:
    if score is None:
        return Verdict(None, Status.NOT_JUDGED, None, f"the environment could not score {name}")
    return Verdict(score, Status.PARTIAL, None, f"{score:g} from the environment")


def text_of(completion: Completion) -> str:
    """Return what rules score: the last turn's text, which knows the turns of the whole conversation."""
    if completion.talk is None:
        return completion.text
    return ConversationText.of([(turn.text, turn.observed) for turn in completion.talk.turns])
