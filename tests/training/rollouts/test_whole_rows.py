"""Advantages by token: the same on one process and on two, for every micro-batch size."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mm_cpgd.policy import Policy
from mm_cpgd.training.experience import Experience
from mm_cpgd.training.rollouts.whole_rows import gather_rows, group_tables, pieces_of, token_advantages
from tests.fakes.collecting import Accelerator
from tests.fakes.learning import assert_same, gradient
from tests.fakes.objectives import build

EXAMPLE = [{"name": "examples/parts/late_tokens.py:late_tokens"}]


@pytest.fixture
def rows(whole: Experience) -> Experience:
    """The rows of one process, with what is known of them."""
    facts = {
        "prompt_of": whole.prompt_of * 2 + 1,
        "completion_of": torch.arange(8) % 2,
        "rewards": torch.arange(8).double(),
        "accuracy": torch.ones(8).double(),
        "finished": torch.ones(8).double(),
        "early_scores": torch.arange(16).double().view(8, 2),
    }
    generator = torch.Generator().manual_seed(1)
    return replace(whole, facts=facts, old_logprobs=-torch.rand(whole.mask.shape, generator=generator))


def part(rows: Experience, chosen: Tensor) -> Experience:
    width = int(rows.mask[chosen].sum(1).max())
    return replace(
        rows,
        tokens=rows.tokens[chosen, :width],
        mask=rows.mask[chosen, :width],
        advantages=rows.advantages[chosen],
        old_logprobs=None if rows.old_logprobs is None else rows.old_logprobs[chosen, :width],
        facts=rows.facts and {name: value[chosen] for name, value in rows.facts.items()},
    )


def test_two_processes_see_the_rows_of_one_in_its_order(rows: Experience) -> None:
    alone: Any = Accelerator()
    entropy = torch.rand(rows.mask.shape)
    expected, places = gather_rows(rows, entropy, alone)
    assert places.tolist() == list(range(8))
    # Prompts 1 and 3 of four are on the second process, as slot j is on process j mod W.
    second = (rows.prompt_of % 2).bool()
    halves = [~second, second]
    barrier, board = threading.Barrier(2), [None] * 2

    def gather(rank: int) -> tuple[dict[str, Any], Tensor]:
        process: Any = Accelerator(rank, 2)
        process.barrier, process.board = barrier, board
        own = part(rows, halves[rank])
        return gather_rows(own, entropy[halves[rank], : own.mask.shape[1]], process)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(gather, range(2)))
    for rank, (table, own) in enumerate(found):
        assert own.tolist() == halves[rank].nonzero().squeeze(1).tolist()
        assert table.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(table[name], value, msg=name)


def test_without_rows_there_is_nothing(rows: Experience) -> None:
    process: Any = Accelerator()
    none = part(rows, torch.arange(8) < 1)
    none = replace(none, tokens=none.tokens[:0], mask=none.mask[:0], advantages=none.advantages[:0])
    none = replace(none, old_logprobs=torch.zeros(none.mask.shape))
    none.facts = {name: value[:0] for name, value in (rows.facts or {}).items()}
    found = token_advantages(build(recipe="gtpo"), none, torch.zeros(none.mask.shape), process, 1)
    assert found.shape == none.mask.shape


def test_the_example_weighs_late_tokens_more(rows: Experience) -> None:
    process: Any = Accelerator()
    found = token_advantages(build(token_advantages=EXAMPLE), rows, torch.zeros(rows.mask.shape), process, 1)
    assert found[0, :5].tolist() == pytest.approx([0.5, 0.75, 1, 1.25, 1.5])
    torch.testing.assert_close(found.sum(1)[[0, 2, 3]], (rows.advantages * rows.mask.sum(1))[[0, 2, 3]])
    assert not found[~rows.mask].any()


def test_micro_batches_leave_gtpos_gradient_unchanged(policy: Policy, rows: Experience) -> None:
    rows = replace(rows, old_logprobs=None)
    expected, metrics = gradient(policy, rows, "gtpo")
    found, others = gradient(policy, rows, "gtpo", tokens=40)
    assert_same(found, expected)
    assert others == pytest.approx(metrics, rel=1e-4, abs=1e-6)


def test_pieces_are_texts_of_the_own_tokens_alone(policy: Policy) -> None:
    ids = policy.tokenizer("<think>a</think>", add_special_tokens=False)["input_ids"]
    tokens = torch.tensor([[*ids, policy.pad_id]])
    mask = torch.tensor([[True] * len(ids) + [False]])
    found = pieces_of(tokens, mask, policy.tokenizer)
    assert sorted(found) == sorted(set(ids))
    assert "".join(found[one] for one in ids) == "<think>a</think>"


def test_sums_over_whole_completions_stand_at_their_places(rows: Experience) -> None:
    assert rows.old_logprobs is not None
    current = rows.old_logprobs + 0.5
    own = rows.prompt_of < 3
    rows = replace(rows, reference_logprobs=rows.old_logprobs - 1.0)
    lengths = rows.mask.sum(1)[own].double()
    tables, place = group_tables(rows, own, current)
    for name, factor in (("lengths", 1.0), ("log_ratios", 0.5), ("reference_log_ratios", 1.5)):
        torch.testing.assert_close(tables[name], (factor * lengths).view(3, 2))
    assert tables["rewards"].tolist() == [[0, 1], [2, 3], [4, 5]]
    torch.testing.assert_close(tables["lengths"][place], lengths)
    # Completion 0 of the first prompt is left out: its place is empty.
    own[0] = False
    assert group_tables(rows, own, current)[0]["rewards"][0].isnan().tolist() == [True, False]


def test_micro_batches_leave_copgs_gradient_unchanged(policy: Policy, rows: Experience) -> None:
    reference = -torch.rand(rows.mask.shape, generator=torch.Generator().manual_seed(2))
    rows = replace(rows, old_logprobs=None, reference_logprobs=reference)
    expected, _ = gradient(policy, rows, "copg")
    found, _ = gradient(policy, rows, "copg", tokens=40)
    assert_same(found, expected)
