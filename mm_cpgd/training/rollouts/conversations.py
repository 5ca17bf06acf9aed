"""Statistics of completions that are conversations, over all processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from accelerate import Accelerator
from accelerate.utils import gather_object

from mm_cpgd.rollout import Completion, Group
from rewards import Verdict

CUTS = ("turns", "tokens", "images")
"""Limits that end a conversation."""


def gather_conversations(accelerator: Accelerator, groups: Sequence[Group]) -> dict[str, float]:
    """Return the metrics of the conversations of all processes.

    Returns:
        ``conversation/turns``, ``/observed_tokens`` and ``/images`` (means), ``/cut_turns``, ``/cut_tokens``,
        ``/cut_images`` and ``/failed`` (shares), ``/count_NAME`` (mean of what environments count by name),
        and ``environment/NAME`` (mean of each score), ``environment/NAME/turn_T`` of those given in turn T.
    """
    own = _sums([one for group in groups for one in group if one.talk is not None])
    sums: Counter[str] = Counter()
    for other in gather_object([dict(own)]):
        sums.update(other)
    count = sums.pop("conversations", 0)
    means = {name: value / max(count, 1) for name, value in sums.items() if "/turn_" not in name}
    by_turn = {
        name: value / sums[f"given/{name}"]
        for name, value in sums.items()
        if "/turn_" in name and not name.startswith("given/")
    }
    return dict(sorted({**means, **by_turn}.items()))


def _sums(completions: Sequence[Completion]) -> Counter[str]:
    """Return sums over conversations, by metric."""
    sums: Counter[str] = Counter(dict.fromkeys((f"conversation/cut_{name}" for name in CUTS), 0))
    sums["conversation/failed"] = 0
    for completion in completions:
        talk = completion.talk
        assert talk is not None
        sums["conversations"] += 1
        sums["conversation/turns"] += len(talk.turns)
        sums["conversation/observed_tokens"] += completion.tokens.numel() - completion.length
        replies = [turn.observation for turn in talk.turns if turn.observation]
        sums["conversation/images"] += sum(len(m.images) for reply in replies for m in reply.messages)
        if talk.cut:
            sums[f"conversation/cut_{talk.cut}"] += 1
        sums["conversation/failed"] += talk.failure is not None
        for name, value in (pair for reply in replies for pair in reply.counts.items()):
            sums[f"conversation/count_{name}"] += value
        _add_scores(sums, completion)
    return sums


def _add_scores(sums: Counter[str], completion: Completion) -> None:
    assert completion.talk is not None
    for name, score in completion.talk.scores().items():
        sums[f"environment/{name}"] += score or 0.0  # type: ignore[assignment]
    for number, turn in enumerate(completion.talk.turns, 1):
        for name, given in (turn.observation.scores if turn.observation else {}).items():
            score = given.score if isinstance(given, Verdict) else float(given)
            sums[f"environment/{name}/turn_{number}"] += score or 0.0  # type: ignore[assignment]
            sums[f"given/environment/{name}/turn_{number}"] += 1
