"""Packing of prompts and completions: properties that hold for rows of any lengths in any order."""

from __future__ import annotations

from typing import NamedTuple

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mm_cpgd.policy import EncodedPrompt
from mm_cpgd.policy.shared_prefix.packing import PackedBatch, pack, packed_layout, unique_prompts

AXES = 3
quick = settings(max_examples=60, deadline=None, derandomize=True)


class Rows(NamedTuple):
    """n rows: the prompt of each, completions (n, T) and their mask; no two tokens are equal."""

    prompts: list[EncodedPrompt]
    tokens: Tensor
    mask: Tensor

    def packed(self) -> PackedBatch:
        unique, prompt_of = unique_prompts(self.prompts)
        return pack(unique, prompt_of, self.tokens, self.mask)


@st.composite
def rows(draw: st.DrawFn) -> Rows:
    prompt_lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    prompts = []
    for number, length in enumerate(prompt_lengths):
        # Positions of an image overlap: the highest one need not be the last one.
        steps = torch.tensor(draw(st.lists(st.integers(0, 3), min_size=length, max_size=length)))
        positions = steps.cumsum(0).expand(AXES, -1).clone()
        positions[1, 0] += draw(st.integers(0, 9))
        prompts.append(EncodedPrompt(10_000 * (number + 1) + torch.arange(length), positions))
    prompt_of = draw(st.lists(st.integers(0, len(prompts) - 1), min_size=1, max_size=7))
    lengths = draw(st.lists(st.integers(0, 5), min_size=len(prompt_of), max_size=len(prompt_of)))
    width = max(1, *lengths)
    tokens = torch.arange(len(prompt_of) * width).view(-1, width)
    mask = torch.arange(width) < torch.tensor(lengths).unsqueeze(1)
    return Rows([prompts[i] for i in prompt_of], tokens, mask)


@quick
@given(rows())
def test_rows_share_a_prompt_only_if_they_hold_the_same_object(case: Rows) -> None:
    unique, prompt_of = unique_prompts(case.prompts)
    assert all(unique[index] is prompt for index, prompt in zip(prompt_of, case.prompts, strict=True))
    assert len({id(prompt) for prompt in unique}) == len(unique)
    assert list(dict.fromkeys(prompt_of.tolist())) == list(range(len(unique)))


@quick
@given(rows())
def test_the_sequence_is_the_prompts_and_all_completion_tokens_but_the_last_once_each(case: Rows) -> None:
    unique, _ = unique_prompts(case.prompts)
    batch = case.packed()
    prefixes = [token for prompt in unique for token in prompt.input_ids.tolist()]
    assert batch.input_ids[: batch.layout.prefix_tokens].tolist() == prefixes
    inputs = [
        token for row, mask in zip(case.tokens, case.mask, strict=True) for token in row[mask][:-1].tolist()
    ]
    assert sorted(batch.input_ids[batch.layout.prefix_tokens :].tolist()) == sorted(inputs)


@quick
@given(rows())
def test_each_completion_token_is_predicted_once_from_the_token_before_it(case: Rows) -> None:
    batch = case.packed()
    pairs = list(zip(batch.rows.tolist(), batch.columns.tolist(), strict=True))
    assert sorted(pairs) == [tuple(pair) for pair in case.mask.nonzero().tolist()]
    for (row, column), predictor in zip(pairs, batch.predictors.tolist(), strict=True):
        prompt = case.prompts[row]
        before = torch.cat([prompt.input_ids, case.tokens[row]])[len(prompt) + column - 1]
        assert batch.input_ids[predictor] == before
        if column:
            expected = int(prompt.positions.max()) + column
            assert batch.positions[:, predictor].tolist() == [expected] * AXES


@quick
@given(rows())
def test_prompts_keep_their_positions(case: Rows) -> None:
    unique, _ = unique_prompts(case.prompts)
    batch = case.packed()
    expected = torch.cat([prompt.positions for prompt in unique], 1)
    assert torch.equal(batch.positions[:, : batch.layout.prefix_tokens], expected)


@quick
@given(rows())
def test_lengths_of_the_layout_describe_the_sequence(case: Rows) -> None:
    unique, prompt_of = unique_prompts(case.prompts)
    batch = case.packed()
    assert batch.layout.prefix_lengths == [len(prompt) for prompt in unique]
    inputs = (case.mask.sum(1) - 1).clamp(min=0)
    groups = [int(inputs[prompt_of == index].sum()) for index in range(len(unique))]
    assert batch.layout.group_lengths == groups
    packed = batch.input_ids[batch.layout.prefix_tokens :]
    for index, group in enumerate(packed.split(batch.layout.group_lengths)):
        members = (prompt_of == index).nonzero().flatten().tolist()
        assert group.tolist() == [t for row in members for t in case.tokens[row][: inputs[row]].tolist()]
    assert sorted(batch.layout.completion_lengths) == sorted(inputs[inputs > 0].tolist())
    # Consecutive slices of these lengths are the completions: each row's tokens in order.
    completions = packed.split(batch.layout.completion_lengths)
    own = {tuple(row[mask][:-1].tolist()) for row, mask in zip(case.tokens, case.mask, strict=True)}
    assert {tuple(completion.tolist()) for completion in completions} == own - {()}


@quick
@given(st.lists(st.integers(0, 6), min_size=1, max_size=8))
def test_the_padded_table_has_a_completion_in_each_row_and_unpads_to_the_same_tokens(
    lengths: list[int],
) -> None:
    total = torch.tensor([sum(lengths)])
    layout = packed_layout(torch.tensor([4]), total, torch.tensor(lengths))
    lengths = [length for length in lengths if length]
    if layout.pad is None or layout.unpad is None:
        assert len(set(lengths)) <= 1
        assert (layout.pad, layout.unpad) == (None, None)
        return
    tokens = torch.arange(sum(lengths))
    table = tokens[layout.pad].view(-1, layout.width)
    for row, completion in zip(table, tokens.split(lengths), strict=True):
        assert torch.equal(row[: len(completion)], completion)
    assert torch.equal(table.flatten()[layout.unpad], tokens)
