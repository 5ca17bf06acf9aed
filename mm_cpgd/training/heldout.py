"""Held-out evaluation during training: greedy accuracy by the same rules that train."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from accelerate import Accelerator
from accelerate.utils import gather_object

from data import Example
from mm_cpgd.interrupt import ShouldStop, check, never
from mm_cpgd.policy import Policy
from mm_cpgd.rollout import RolloutEngine, Sampling
from rewards import RewardSum


@dataclass(frozen=True)
class Answered:
    """One held-out example's answer, as far as the averages need it.

    Attributes:
        scores: of each rule by name, None where it could not score.
        finished: the answer ended by itself.
        tokens: its length.
        kind: of the example, None if it has none.
    """

    scores: dict[str, float | None]
    finished: bool
    tokens: int
    kind: str | None = None


class HeldOut:
    """Answers every example once, with the most probable token at each place, and scores the answers.

    Args:
        accelerator: of the run; examples are shared out over its processes.
        policy: encodes prompts.
        engine: generates.
        rewards: the rules; the first one is what is called accuracy.
        examples: held-out rows.
        max_new_tokens: limit of an answer.
        batch_prompts: prompts generated together, per process.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        policy: Policy,
        engine: RolloutEngine,
        rewards: RewardSum,
        examples: Sequence[Example],
        *,
        max_new_tokens: int,
        batch_prompts: int,
    ) -> None:
        self.accelerator = accelerator
        self.policy = policy
        self.engine = engine
        self.rewards = rewards
        self.examples = examples
        self.sampling = Sampling(max_new_tokens, temperature=0)
        self.batch_prompts = batch_prompts

    def __call__(self, should_stop: ShouldStop = never) -> dict[str, float]:
        """Return the metrics of ``summarise`` under the prefix ``eval/``.

        Raises:
            Interrupted: ``should_stop`` was true between two batches.
        """
        self.engine.load_weights(self.policy)
        workers = self.accelerator.num_processes
        mine = self.examples[self.accelerator.process_index :: workers]
        answered: list[Answered] = []
        # As often on all processes, for all have to ask together whether to stop.
        for start in range(0, -(-len(self.examples) // workers), self.batch_prompts):
            check(should_stop)
            answered += self._batch(mine[start : start + self.batch_prompts])
        everyone: list[Answered] = gather_object(answered)
        metrics = summarise(everyone, list(self.rewards.rules))
        return {f"eval/{name}": value for name, value in metrics.items()}

    def _batch(self, examples: Sequence[Example]) -> list[Answered]:
        prompts = [self.policy.encoder.encode(example) for example in examples]
        with self.accelerator.autocast():
            groups = self.engine.generate(prompts, self.sampling, [[0]] * len(prompts))
        answers = [group[0] for group in groups]
        scored = self.rewards.score([answer.text for answer in answers], examples)
        return [
            Answered(
                {name: verdict.score for name, verdict in score.components.items()},
                answer.finished,
                answer.tokens.numel(),
                _kind(example),
            )
            for example, answer, score in zip(examples, answers, scored, strict=True)
        ]


def summarise(answered: Sequence[Answered], rules: Sequence[str]) -> dict[str, float]:
    """Average over answers; the order does not matter, nor on which process they were given.

    Returns:
        ``accuracy`` (mean score of the first rule over answers that it could score), every other rule's
        mean, ``n`` scored answers, ``unscored``, ``truncated`` (share of all), ``length_mean`` (tokens), and
        ``accuracy/KIND`` where examples have a kind. A mean of nothing is NaN.
    """
    accuracy, *others = rules
    kinds: dict[str, list[Answered]] = defaultdict(list)
    for one in answered:
        if one.kind is not None:
            kinds[one.kind].append(one)
    unscored = sum(one.scores[accuracy] is None for one in answered)
    return {
        "accuracy": _mean(one.scores[accuracy] for one in answered),
        **{rule: _mean(one.scores[rule] for one in answered) for rule in others},
        "n": float(len(answered) - unscored),
        "unscored": float(unscored),
        "truncated": _mean(float(not one.finished) for one in answered),
        "length_mean": _mean(float(one.tokens) for one in answered),
        **{
            f"accuracy/{kind}": _mean(one.scores[accuracy] for one in own)
            for kind, own in sorted(kinds.items())
        },
    }


def _kind(example: Example) -> str | None:
    kind = example.meta.get("kind")
    return None if kind is None else str(kind)


def _mean(values: Iterable[float | None]) -> float:
    """Return the exactly rounded mean, which no order of summation changes."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else float("nan")
