"""Groups of completions as the rollout log stores them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from data import Example
from mm_cpgd.environments.images import region_of
from mm_cpgd.rollout import Group
from mm_cpgd.rollout.engine import Turn
from mm_cpgd.tracking import LoggedTurn, PromptRollout, ScoredCompletion, ScoredComponent
from mm_cpgd.training.rollouts.batches import Rollouts
from rewards import Verdict
from rewards.compose import Scored


def record_of(
    example: Example, group: Group, scored: Sequence[Scored], advantages: Sequence[float]
) -> PromptRollout:
    """Return a group as the rollout log stores it; a NaN advantage (not in the update) becomes None."""
    completions = tuple(
        ScoredCompletion(
            text=completion.text,
            tokens=completion.length,
            finished=completion.finished,
            total=score.total,
            advantage=None if advantage != advantage else advantage,
            components={
                name: ScoredComponent(verdict.score, verdict.status.value, verdict.extracted, verdict.reason)
                for name, verdict in score.components.items()
            },
            turns=tuple(_turn(turn, example) for turn in completion.talk.turns) if completion.talk else (),
            cut=completion.talk.cut if completion.talk else "",
        )
        for completion, score, advantage in zip(group, scored, advantages, strict=True)
    )
    return PromptRollout(example.id, example.question, example.answer, completions)


def records_of(
    examples: Sequence[Example], batches: Sequence[Rollouts], advantages: Iterable[Sequence[float]]
) -> tuple[list[PromptRollout], list[Example]]:
    """Return this process's groups as the rollout log stores them, and the row of each; lost rows have none.

    Args:
        examples: the training rows.
        batches: the iteration's rollout batches.
        advantages: of each prompt's completions, lost ones included; NaN where one is not learned from.
    """
    rows = iter(advantages)
    found = [
        (examples[index], group, scores, next(rows)[: len(group)])
        for batch in batches
        for index, group, scores in zip(batch.indices, batch.groups, batch.scored, strict=True)
    ]
    present = [one for one in found if one[1]]
    return [record_of(*one) for one in present], [one[0] for one in present]


def _turn(turn: Turn, example: Example) -> LoggedTurn:
    reply = turn.observation
    if reply is None:
        return LoggedTurn(turn.text)
    scores = {
        name: one.score if isinstance(one, Verdict) else float(one) for name, one in reply.scores.items()
    }
    pictures = tuple(image for message in reply.messages for image in message.images)
    parts = []
    for found in map(region_of, pictures):
        if found is not None and found[0] in example.images:
            parts.append((example.images.index(found[0]), *(round(edge, 5) for edge in found[1])))
    return LoggedTurn(turn.text, turn.observed, reply.reason, scores, parts=tuple(parts), pictures=pictures)
