"""Early answers: completions cut at budgets of their thinking, answered from there, and scored."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor

from data import Example
from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.rollout import Completion, Group, RolloutEngine, Sampling
from mm_cpgd.rollout.conversations.given import continued, given_tokens
from mm_cpgd.training.rollouts.scorer import CompletionScorer
from mm_cpgd.training.rollouts.seeds import seed_of

NAN = float("nan")


@dataclass(frozen=True)
class EarlyScores:
    """Early answers of one completion.

    Attributes:
        thinking: tokens until the thinking has ended.
        rewards: mean total reward of the answers at each budget; NaN where the thinking ended before, or none
            could be scored.
        accuracy: the same of the first rule.
        tokens: sampled for them.
    """

    thinking: int
    rewards: tuple[float, ...]
    accuracy: tuple[float, ...]
    tokens: int


Early = list[list[EarlyScores]] | None
"""Early scores of each completion of each prompt; None where none are asked for."""


@dataclass(frozen=True)
class _Cut:
    """A completion at one budget: the example's place, its own within the group, and that of the budget."""

    slot: int
    place: int
    budget: int


@dataclass(frozen=True)
class EarlySampled:
    """Answers of a rollout batch that are not scored yet.

    Attributes:
        thinking: of each completion of each prompt.
        cuts: where answers were asked for.
        answers: those of each cut; their texts have the cut thinking before them.
    """

    thinking: list[list[int]]
    cuts: list[_Cut]
    answers: list[Group]


@dataclass(frozen=True)
class EarlyAnswers:
    """Asks for answers at budgets of the thinking.

    Attributes:
        policy: its tokenizer and model give ids, texts and positions.
        scorer: scores the cut thinking with its answer as a whole completion.
        budgets: tokens after which a thinking is cut, rising.
        limit: largest length of a completion.
        bridge: given text between thinking and answer.
        answers: number of answers at each budget.
        sampling: of the answers.
    """

    policy: Policy
    scorer: CompletionScorer
    budgets: tuple[int, ...]
    limit: int
    bridge: str
    answers: int
    sampling: Sampling

    def thinking(self, tokens: Tensor) -> int:
        """Return how many tokens (T,) it takes until a tag of the bridge has occurred; T if none does."""
        tags = re.findall(r"<[^<>]+>", self.bridge) or [self.bridge.strip()]
        ids = tokens.tolist()

        def ended(count: int) -> bool:
            text = self.policy.tokenizer.decode(ids[:count], skip_special_tokens=True)
            return any(tag in text for tag in tags)

        return bisect_left(range(len(ids)), True, key=ended)

    def sample(
        self,
        engine: RolloutEngine,
        prompts: Sequence[EncodedPrompt | None],
        groups: Sequence[Group],
        seeds: Sequence[Sequence[int]],
    ) -> EarlySampled:
        """Sample answers of all completions with one call of the engine, which all processes make.

        Answers to one prompt share its keys, values and image features.

        Args:
            engine: samples.
            prompts: None for lost rows.
            groups: the completions of each prompt.
            seeds: of each completion; those of the answers follow from them.
        """
        bridge = given_tokens(self.policy, self.bridge)
        thinking = [[self.thinking(one.tokens) for one in group] for group in groups]
        cuts, begun, drawn = [], [], []
        for slot, (prompt, group) in enumerate(zip(prompts, groups, strict=True)):
            for place, one in enumerate(group if prompt is not None else ()):
                for number, budget in enumerate(self.budgets):
                    if budget < thinking[slot][place]:
                        assert prompt is not None
                        tokens = torch.cat([one.tokens[:budget], bridge])
                        cuts.append(_Cut(slot, place, number))
                        begun.append(continued(self.policy.model, prompt, tokens))
                        parts = (seeds[slot][place], "early", number)
                        drawn.append([seed_of(*parts, k) for k in range(self.answers)])
        sampled = engine.generate(begun, self.sampling, drawn)
        answers = [
            [self._whole(before.tokens, one) for one in group]
            for before, group in zip(begun, sampled, strict=True)
        ]
        return EarlySampled(thinking, cuts, answers)

    def _whole(self, before: Tensor, answer: Completion) -> Completion:
        ids = [*before.tolist(), *answer.tokens.tolist()]
        return replace(answer, text=self.policy.tokenizer.decode(ids, skip_special_tokens=True))

    def score(self, sampled: EarlySampled, examples: Sequence[Example]) -> list[list[EarlyScores]]:
        """Return the early scores of each completion of each prompt; errors as in ``CompletionScorer``."""
        flat = [one for group in sampled.answers for one in group]
        pairs = zip(sampled.cuts, sampled.answers, strict=True)
        owners = [examples[cut.slot] for cut, group in pairs for _ in group]
        scored = iter(self.scorer.score(flat, owners))
        size = len(self.budgets)
        rewards = [[[NAN] * size for _ in group] for group in sampled.thinking]
        accuracy = [[[NAN] * size for _ in group] for group in sampled.thinking]
        tokens = [[0] * len(group) for group in sampled.thinking]
        for cut, group in zip(sampled.cuts, sampled.answers, strict=True):
            found = [next(scored) for _ in group]
            first = [one.components[self.scorer.names[0]].score for one in found]
            rewards[cut.slot][cut.place][cut.budget] = _mean([one.total for one in found])
            accuracy[cut.slot][cut.place][cut.budget] = _mean(first)
            tokens[cut.slot][cut.place] += sum(one.length for one in group)
        return [
            [EarlyScores(*one[:1], tuple(one[1]), tuple(one[2]), one[3]) for one in zip(*rows, strict=True)]
            for rows in zip(sampled.thinking, rewards, accuracy, tokens, strict=True)
        ]

    def facts(self, rows: Sequence[EarlyScores]) -> dict[str, Tensor]:
        """Return what parts by token know of these completions; see ``token_advantages``."""
        size = len(self.budgets)
        scores = torch.tensor([one.rewards for one in rows], dtype=torch.float64).view(-1, size)
        budgets = torch.tensor([*self.budgets, self.limit], dtype=torch.float64)
        return {
            "early_scores": scores,
            "early_budgets": budgets.expand(len(rows), -1).clone(),
            "thinking": torch.tensor([one.thinking for one in rows], dtype=torch.float64),
        }

    def metrics(
        self, accelerator: Accelerator, groups: Sequence[Sequence[EarlyScores]], accuracy: Tensor
    ) -> dict[str, float]:
        """Return metrics over all processes.

        Args:
            accelerator: the run's accelerator.
            groups: the early scores of this process's completions.
            accuracy: (P, G) of the completions of this process's prompts themselves, in the same order.

        Returns:
            For each budget B ``early/accuracy_B``, the accuracy if every thinking were cut there, and
            ``early/reached_B``, the share that had not ended; ``early/tokens``, sampled for answers.
        """
        sums = torch.zeros(len(self.budgets), 3, dtype=torch.float64)
        tokens = count = 0.0
        for own, row in zip(groups, accuracy, strict=True):
            for one, given in zip(own, row.tolist(), strict=False):
                tokens, count = tokens + one.tokens, count + 1
                for number, budget in enumerate(self.budgets):
                    reached = budget < one.thinking
                    score = one.accuracy[number] if reached else given
                    known = score == score
                    sums[number] += torch.tensor([score if known else 0.0, known, reached])
        whole = torch.cat([sums.flatten(), torch.tensor([tokens, count], dtype=torch.float64)])
        total = accelerator.gather(whole[None].to(accelerator.device)).sum(0).cpu()
        found = {"early/tokens": float(total[-2])}
        for budget, (score, known, reached) in zip(self.budgets, total[:-2].view(-1, 3), strict=True):
            found[f"early/accuracy_{budget}"] = float(score / known) if known else NAN
            found[f"early/reached_{budget}"] = float(reached / total[-1].clamp(min=1))
        return found


def _mean(scores: Sequence[float | None]) -> float:
    """Return the mean of those that are known; NaN if none is."""
    known = [float(score) for score in scores if score is not None]
    return sum(known) / len(known) if known else NAN
