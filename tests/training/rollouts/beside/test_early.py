"""Early answers: where a thinking ends, what is asked for and scored, and the metrics over it."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from data import Example
from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.rollout import Completion, Group, LocalEngine, Sampling
from mm_cpgd.rollout.conversations.given import given_tokens
from mm_cpgd.training.rollouts.beside.early import EarlyAnswers, EarlyScores
from rewards.compose import Scored
from rewards.verdict import Status, Verdict

NAN = float("nan")
ROW = Example("one", "How many?", "3")


class Scorer:
    """Scores a text by its number of characters, and keeps it; without a bridge in it there is no score."""

    names = ("length",)

    def __init__(self) -> None:
        self.texts: list[str] = []

    def score(self, completions: list[Completion], examples: list[Example]) -> list[Scored]:
        assert len(completions) == len(examples)
        self.texts += [one.text for one in completions]
        found = [float(len(one.text)) if "</think>" in one.text else None for one in completions]
        return [Scored(one, {"length": Verdict(one, Status.PARTIAL)}) for one in found]


def early(policy: Policy, budgets: tuple[int, ...] = (2, 4), **more: Any) -> EarlyAnswers:
    scorer: Any = Scorer()
    options = {"limit": 8, "bridge": "</think><answer>", "answers": 1, "sampling": Sampling(3), **more}
    return EarlyAnswers(policy, scorer, budgets, **options)


def completion(policy: Policy, text: str) -> Completion:
    tokens = given_tokens(policy, text)
    return Completion(tokens, torch.zeros(len(tokens)), text, finished=True)


@pytest.fixture
def prompt(tiny_policy: Policy) -> EncodedPrompt:
    return tiny_policy.encoder.encode(ROW)


@pytest.mark.parametrize(
    ("text", "ended"),
    [
        ("<think>one two</think><answer>3</answer>", "<think>one two</think>"),
        ("<answer>3</answer>", "<answer>"),
        ("no tag at all", "no tag at all"),
    ],
)
def test_a_thinking_ends_with_the_first_tag_of_the_bridge(tiny_policy: Policy, text: str, ended: str) -> None:
    found = early(tiny_policy).thinking(given_tokens(tiny_policy, text))
    assert found == len(given_tokens(tiny_policy, ended))


def sample(
    asked: EarlyAnswers, prompts: list[EncodedPrompt | None], groups: list[Group]
) -> list[list[EarlyScores]]:
    seeds = [[100 * slot + place for place in range(len(group))] for slot, group in enumerate(groups)]
    found = asked.sample(LocalEngine(asked.policy), prompts, groups, seeds)
    return asked.score(found, [ROW] * len(groups))


def test_a_thinking_is_answered_at_the_budgets_that_it_reaches(
    tiny_policy: Policy, prompt: EncodedPrompt
) -> None:
    asked = early(tiny_policy)
    long, short = (completion(tiny_policy, text) for text in ("a b c d e f g", "<answer>3"))
    ((first, second),) = sample(asked, [prompt], [[long, short]])
    scorer: Any = asked.scorer
    decode = tiny_policy.tokenizer.decode
    for text, budget in zip(scorer.texts, asked.budgets, strict=True):
        assert text.startswith(decode(long.tokens[:budget]) + "</think><answer>")
    assert first.thinking == len(long.tokens)
    assert first.rewards == first.accuracy == tuple(float(len(text)) for text in scorer.texts)
    assert 2 <= first.tokens <= 6
    assert second.thinking == 1
    assert all(math.isnan(one) for one in second.rewards)
    assert second.tokens == 0


def test_answers_depend_on_the_completions_seed_alone(tiny_policy: Policy, prompt: EncodedPrompt) -> None:
    long = completion(tiny_policy, "a b c d e f g")
    several, single = early(tiny_policy, answers=2), early(tiny_policy, answers=2)
    sample(several, [prompt, None, prompt], [[long, long], [], [long]])
    sample(single, [prompt], [[long]])
    texts, alone = (one.scorer.texts for one in (several, single))  # type: ignore[attr-defined]
    assert texts[:4] == alone
    assert len(texts) == 12


def test_without_completions_the_engine_is_called_all_the_same(tiny_policy: Policy) -> None:
    calls = []

    def generate(*arguments: Any) -> list[Group]:
        calls.append(arguments)
        return []

    engine: Any = SimpleNamespace(generate=generate)
    found = early(tiny_policy).sample(engine, [None], [[]], [[1, 2]])
    assert len(calls) == 1
    assert found.thinking == [[]]


def test_the_facts_are_tables_by_completion(tiny_policy: Policy) -> None:
    rows = [EarlyScores(5, (0.0, 1.0), (0.0, 1.0), 4), EarlyScores(1, (NAN, NAN), (NAN, NAN), 0)]
    facts = early(tiny_policy).facts(rows)
    assert facts["early_scores"][0].tolist() == [0, 1]
    assert facts["early_scores"].shape == (2, 2)
    assert facts["early_budgets"].tolist() == [[2, 4, 8]] * 2
    assert facts["thinking"].tolist() == [5, 1]
    nothing = early(tiny_policy).facts([])
    assert {name: tuple(values.shape) for name, values in nothing.items()} == {
        "early_scores": (0, 2),
        "early_budgets": (0, 3),
        "thinking": (0,),
    }


def test_the_metrics_take_the_completions_own_score_where_its_thinking_had_ended(tiny_policy: Policy) -> None:
    rows = [
        [EarlyScores(5, (0.0, 1.0), (0.0, 1.0), 4), EarlyScores(3, (0.5, NAN), (0.5, NAN), 2)],
        [EarlyScores(1, (NAN, NAN), (NAN, NAN), 0)],
    ]
    process: Any = SimpleNamespace(gather=lambda values: values, device=torch.device("cpu"))
    found = early(tiny_policy).metrics(process, rows, torch.tensor([[1.0, 0.0], [1.0, NAN]]))
    assert found == pytest.approx(
        {
            "early/tokens": 6,
            "early/accuracy_2": 0.5,
            "early/reached_2": 2 / 3,
            "early/accuracy_4": 2 / 3,
            "early/reached_4": 1 / 3,
        }
    )
