"""Greedy accuracy on held-out examples, by the same rules that train."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from accelerate import Accelerator
from accelerate.utils import gather_object

from data import Example
from mm_cpgd.policy import Policy
from mm_cpgd.rollout import RolloutEngine, Sampling
from rewards import RewardSum
from rewards.combine import Scored

Row = dict[str, float | str | None]


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

    def __call__(self) -> dict[str, float]:
        """Return the metrics of ``summarise`` under the prefix ``eval/``."""
        self.engine.load_weights(self.policy)
        mine = self.examples[self.accelerator.process_index :: self.accelerator.num_processes]
        rows: list[Row] = []
        for start in range(0, len(mine), self.batch_prompts):
            rows += self._batch(mine[start : start + self.batch_prompts])
        everyone: list[Row] = gather_object(rows)
        return {
            f"eval/{name}": value for name, value in summarise(everyone, list(self.rewards.rules)).items()
        }

    def _batch(self, examples: Sequence[Example]) -> list[Row]:
        prompts = [self.policy.encoder.encode(example) for example in examples]
        with self.accelerator.autocast():
            groups = self.engine.generate(prompts, self.sampling, [[0]] * len(prompts))
        answers = [group[0] for group in groups]
        scored = self.rewards.score([answer.text for answer in answers], examples)
        return [
            _row(example, score, answer.finished, answer.tokens.numel())
            for example, answer, score in zip(examples, answers, scored, strict=True)
        ]


def summarise(rows: Sequence[Row], rules: Sequence[str]) -> dict[str, float]:
    """Average rows of ``{rule: score or None, "finished": …, "tokens": …, "kind": …}``.

    Returns:
        ``accuracy`` (mean score of the first rule over rows that it could score), every other rule's mean,
        ``n`` scored rows, ``unscored``, ``truncated`` (share of all), ``length_mean`` (tokens), and
        ``accuracy/KIND`` where rows have a kind.
    """
    accuracy = rules[0]
    kinds: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["kind"]:
            kinds[str(row["kind"])].append(row)
    return {
        "accuracy": _mean(row[accuracy] for row in rows),
        **{rule: _mean(row[rule] for row in rows) for rule in rules[1:]},
        "n": float(sum(row[accuracy] is not None for row in rows)),
        "unscored": float(sum(row[accuracy] is None for row in rows)),
        "truncated": _mean(1 - float(row["finished"] or 0) for row in rows),
        "length_mean": _mean(row["tokens"] for row in rows),
        **{f"accuracy/{kind}": _mean(row[accuracy] for row in own) for kind, own in sorted(kinds.items())},
    }


def _row(example: Example, scored: Scored, finished: bool, tokens: int) -> Row:
    scores: Row = {name: verdict.score for name, verdict in scored.components.items()}
    kind = example.meta.get("kind")
    return {**scores, "finished": float(finished), "tokens": float(tokens), "kind": kind and str(kind)}


def _mean(values: Iterable[float | str | None]) -> float:
    known = [float(value) for value in values if value is not None]
    return fmean(known) if known else float("nan")
