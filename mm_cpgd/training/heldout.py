"""Held-out evaluation during training: greedy accuracy by the same rules that train."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from accelerate import Accelerator
from accelerate.utils import gather_object

from data import Example
from mm_cpgd.distributed import Parts, together
from mm_cpgd.interrupt import ShouldStop, check, never
from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.policy.prompt_workers import PromptWorkers
from mm_cpgd.rollout import Group, RolloutEngine, Sampling
from mm_cpgd.rollout.conversations.sampler import ConversationSampler
from mm_cpgd.training.ahead.prefetch import PromptPrefetcher, encode_rows, lost_line
from mm_cpgd.training.rollout_stats import check_rules
from mm_cpgd.training.rollouts.scorer import CompletionScorer
from mm_cpgd.training.rollouts.seeds import turn_seed
from rewards import RewardSum


@dataclass(frozen=True)
class ScoredExample:
    """Scores and length of the completion of one held-out example.

    Attributes:
        scores: score of each rule by name, None where it could not score.
        finished: whether the completion ended with an end token.
        tokens: its length in own tokens.
        turns: its turns; None without an environment.
        kind: kind of the example, None if it has none.
    """

    scores: dict[str, float | None]
    finished: bool
    tokens: int
    kind: str | None = None
    turns: int | None = None


class HeldOut:
    """Evaluator: one greedy completion of every held-out example, scored by the run's rules.

    Args:
        accelerator: the run's accelerator; examples are distributed over its processes.
        policy: encodes prompts.
        engine: samples completions.
        rewards: the rules; the first one's score is the accuracy.
        examples: held-out rows.
        max_new_tokens: limit of a completion.
        batch_prompts: prompts sampled together, per process.
        say: called with a line for each row whose image has vanished; such a row is left out.
        workers: processes that encode the prompts of the next batch meanwhile; None: there are none.
        conversations: samples conversations with an environment; None: a completion is one turn.
        scores: weights of what the environment scores, as in training.
        gates: likewise, the rules that gate these scores.
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
        say: Callable[[str], None] = lambda text: None,
        workers: PromptWorkers | None = None,
        conversations: ConversationSampler | None = None,
        scores: Mapping[str, float] | None = None,
        gates: Mapping[str, str] | None = None,
    ) -> None:
        self.accelerator = accelerator
        self.policy = policy
        self.engine = engine
        self.rewards = rewards
        self.conversations = conversations
        self.scorer = CompletionScorer(rewards, scores or {}, gates)
        self.examples = examples
        self.sampling = Sampling(max_new_tokens, temperature=0)
        self.batch_prompts = batch_prompts
        self.say = say
        self.prefetcher = PromptPrefetcher(
            lambda index: policy.encoder.encode(examples[index]), examples, workers
        )
        self._lost: list[str] = []
        self._reported: set[str] = set()

    def __call__(self, should_stop: ShouldStop = never) -> dict[str, float]:
        """Return the metrics of ``summarise`` under the prefix ``eval/``.

        Raises:
            Interrupted: ``should_stop`` was true between two batches, or the engine was interrupted.
            EngineFailed: the sampling engine has ended.
        """
        self.engine.load_weights(self.policy)
        self.rewards.failures.clear()
        processes = self.accelerator.num_processes
        mine = range(self.accelerator.process_index, len(self.examples), processes)
        scored_examples: list[ScoredExample] = []
        parts = Parts()
        # Equally often on all processes, also after an error: the decision to stop is collective.
        for start in range(0, -(-len(self.examples) // processes), self.batch_prompts):
            check(should_stop)
            batch, following = (
                mine[at : at + self.batch_prompts] for at in (start, start + self.batch_prompts)
            )
            if parts.problem is not None:
                batch = following = range(0)
            scored_examples += parts.run(partial(self._batch, batch, following), [])
        together(self.accelerator, parts.end)
        self.engine.release()
        gathered: list[ScoredExample] = gather_object(scored_examples)
        lost: list[str] = gather_object(self._lost)
        for line in [line for line in lost if line not in self._reported]:
            self.say(f"held-out {line}")
        self._reported, self._lost = {*self._reported, *lost}, []
        rules = self.scorer.names
        silent = [rule for rule in rules if all(one.scores[rule] is None for one in gathered)]
        check_rules(self.accelerator, self.rewards.failures, silent)
        metrics = summarise(gathered, rules)
        counted = {"eval/lost": float(len(lost))} if lost else {}
        return {f"eval/{name}": value for name, value in metrics.items()} | counted

    def _batch(self, indices: Sequence[int], following: Sequence[int]) -> list[ScoredExample]:
        """Return the scores of these rows, while processes encode the prompts of those ``following``."""
        examples = [self.examples[index] for index in indices]
        pending = self.prefetcher.take(indices)
        if self.prefetcher.in_processes:
            self.prefetcher.begin(following)
        encoded, lost = encode_rows(self.policy.encoder, examples, pending)
        self._lost += lost
        present = [place for place, prompt in enumerate(encoded) if prompt is not None]
        prompts = [prompt for prompt in encoded if prompt is not None]
        examples = [examples[place] for place in present]
        groups = self._generate(prompts, examples, [indices[place] for place in present])
        self._lost += [
            lost_line(one, "its image cannot be opened any more")
            for one, group in zip(examples, groups, strict=True)
            if not group
        ]
        examples = [one for one, group in zip(examples, groups, strict=True) if group]
        groups = [group for group in groups if group]
        completions = [group[0] for group in groups]
        scored = self.scorer.score(completions, examples)
        return [
            ScoredExample(
                {name: verdict.score for name, verdict in score.components.items()},
                completion.finished,
                completion.length,
                _kind(example),
                len(completion.talk.turns) if completion.talk else None,
            )
            for example, completion, score in zip(examples, completions, scored, strict=True)
        ]

    def _generate(
        self, prompts: Sequence[EncodedPrompt], examples: Sequence[Example], indices: Sequence[int]
    ) -> list[Group]:
        """Return one greedy completion of each prompt, none if its image has vanished."""
        with self.accelerator.autocast():
            if self.conversations is None:
                return self.engine.generate(prompts, self.sampling, [[0]] * len(prompts))
            # An environment may draw at random: what it draws depends on the row alone.
            seeds = [[partial(turn_seed, 0, 0, 0, index, 0)] for index in indices]
            return self.conversations.generate(prompts, examples, self.sampling, seeds)


def summarise(scored_examples: Sequence[ScoredExample], rules: Sequence[str]) -> dict[str, float]:
    """Average over examples; neither their order nor their process matters.

    Returns:
        ``accuracy`` (mean score of the first rule over completions that it could score), every other rule's
        mean, ``n`` scored completions, ``unscored``, ``truncated`` (share of all), ``length_mean``
        (tokens), ``turns`` (mean, with an environment), and ``accuracy/KIND`` where examples have a kind. A
        mean of nothing is NaN.
    """
    accuracy, *others = rules
    kinds: dict[str, list[ScoredExample]] = defaultdict(list)
    for one in scored_examples:
        if one.kind is not None:
            kinds[one.kind].append(one)
    unscored = sum(one.scores[accuracy] is None for one in scored_examples)
    return {
        "accuracy": _mean(one.scores[accuracy] for one in scored_examples),
        **{rule: _mean(one.scores[rule] for one in scored_examples) for rule in others},
        "n": float(len(scored_examples) - unscored),
        "unscored": float(unscored),
        "truncated": _mean(float(not one.finished) for one in scored_examples),
        "length_mean": _mean(float(one.tokens) for one in scored_examples),
        **({"turns": _mean(turns)} if (turns := [one.turns for one in scored_examples if one.turns]) else {}),
        **{
            f"accuracy/{kind}": _mean(one.scores[accuracy] for one in own)
            for kind, own in sorted(kinds.items())
        },
    }


def _kind(example: Example) -> str | None:
    kind = example.meta.get("kind")
    return None if kind is None else str(kind)


def _mean(values: Iterable[float | None]) -> float:
    """Return the exactly rounded mean, which does not depend on the order of summation."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else float("nan")
