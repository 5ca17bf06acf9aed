"""Stored completions: ragged tokens keep to their entries."""

import torch

from mm_cpgd.algorithms.by_row.entries import Entries


def entries(*lengths, iteration=1, rewards=None):
    count = len(lengths)
    first = torch.tensor([0, *lengths]).cumsum(0)[:-1].tolist()
    tokens = [torch.arange(start, start + n) for start, n in zip(first, lengths, strict=True)]
    joined = torch.cat([*tokens, torch.zeros(0, dtype=torch.long)])
    return Entries(
        rows=torch.arange(count),
        iterations=torch.full((count,), iteration),
        rewards=torch.tensor(rewards or [1.0] * count, dtype=torch.float64),
        advantages=torch.linspace(0.5, 1, count, dtype=torch.float64),
        lengths=torch.tensor(lengths, dtype=torch.long),
        tokens=joined.int(),
        logprobs=-joined.float(),
    )


def test_chosen_entries_have_their_own_tokens_in_the_order_asked_for():
    found = entries(2, 3, 1).at(torch.tensor([2, 0]))
    assert found.rows.tolist() == [2, 0]
    assert found.tokens.tolist() == [5, 0, 1]
    assert found.logprobs.tolist() == [-5, 0, -1]
    assert found.sizes == [1, 2]


def test_joined_parts_are_one_after_the_other():
    found = Entries.joined([Entries.none(), entries(2), entries(1, 1, iteration=4)])
    assert found.iterations.tolist() == [1, 4, 4]
    assert found.tokens.tolist() == [0, 1, 0, 1]
    assert found.tokens.dtype == torch.int32
    assert len(entries(2, 3).at(torch.zeros(0, dtype=torch.long))) == 0
