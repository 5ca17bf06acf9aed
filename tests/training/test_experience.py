"""Division of completions into optimizer steps and forward passes."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mm_cpgd.policy import EncodedPrompt
from mm_cpgd.training.experience import Experience, fill_with_groups, pad_tokens, plan_mini_batches

USABLE = torch.tensor([[1, 1], [0, 0], [1, 0], [1, 1], [0, 1]], dtype=torch.bool)
LENGTHS = torch.tensor([[3, 5], [7, 7], [2, 9], [4, 4], [9, 1]])


def experience(rows: list[tuple[int, int, int]]) -> Experience:
    """Rows of (prompt, length, mini-batch); the prompts have 2, 4 and 6 tokens."""
    prompts = [EncodedPrompt(torch.arange(n), torch.arange(n).unsqueeze(0)) for n in (2, 4, 6)]
    tokens, mask = pad_tokens([torch.arange(1, length + 1) for _, length, _ in rows])
    return Experience(
        examples=[0, 1, 2],
        prompts=prompts,
        prompt_of=torch.tensor([prompt for prompt, _, _ in rows], dtype=torch.long),
        tokens=tokens,
        mask=mask,
        advantages=torch.arange(len(rows)).float(),
        mini_batch=torch.tensor([step for _, _, step in rows], dtype=torch.long),
        lengths=[],
    )


def test_prompts_without_usable_completions_take_no_place_in_a_step() -> None:
    plan = plan_mini_batches(USABLE, LENGTHS, prompts_per_step=2)
    assert plan.step_of[USABLE.any(1)].tolist() == [0, 0, 1, 1]
    assert [part.tolist() for part in plan.lengths] == [[3, 5, 2], [4, 4, 1]]


def test_nothing_usable_gives_no_step_at_all() -> None:
    plan = plan_mini_batches(torch.zeros_like(USABLE), LENGTHS, 2)
    assert plan.lengths == []


@given(st.data())
def test_every_usable_completion_counts_in_exactly_one_step(data: st.DataObject) -> None:
    prompts, group = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 4))
    flags = data.draw(st.lists(st.booleans(), min_size=prompts * group, max_size=prompts * group))
    usable = torch.tensor(flags).reshape(prompts, group)
    lengths = torch.arange(prompts * group).reshape(prompts, group)
    per_step = data.draw(st.integers(1, 4))
    plan = plan_mini_batches(usable, lengths, per_step)
    assert sorted(torch.cat([*plan.lengths, torch.zeros(0)]).tolist()) == lengths[usable].tolist()
    assert all(0 < len(part) <= per_step * group for part in plan.lengths)


def test_rows_of_a_prompt_stay_together_and_the_largest_group_comes_first() -> None:
    rows = experience([(0, 1, 0), (2, 3, 0), (1, 9, 1), (0, 2, 0), (2, 4, 0), (1, 1, 0)])
    # The groups have 2 + 3, 6 + 7 and, in the first mini-batch, 4 + 1 tokens.
    assert [part.tolist() for part in rows.split(0, 13, shared_prefix=True)] == [[4, 1], [3, 0, 5]]
    assert [part.tolist() for part in rows.split(1, 13, shared_prefix=True)] == [[2]]


def test_a_group_beyond_the_budget_is_split_and_its_prompt_counts_in_each_micro_batch() -> None:
    rows = experience([(2, length, 0) for length in (1, 2, 3, 4, 9)])
    # 6 tokens of prompt: 6 + 9 is more than 13 alone.
    assert [part.tolist() for part in rows.split(0, 13, shared_prefix=True)] == [[4], [3, 2], [1, 0]]


def test_without_a_shared_prefix_rows_are_padded_to_the_longest() -> None:
    rows = experience([(0, 1, 0), (2, 3, 0), (1, 9, 1), (1, 1, 0)])
    # Prompt and completion together: 3, 9, 13 and 5 tokens.
    assert [part.tolist() for part in rows.split(0, 18, shared_prefix=False)] == [[1, 3], [0]]
    assert [part.tolist() for part in rows.split(0, 17, shared_prefix=False)] == [[1], [3, 0]]
    assert [part.tolist() for part in rows.split(1, 2, shared_prefix=False)] == [[2]]


@given(st.data())
def test_every_row_is_in_exactly_one_micro_batch_and_only_single_rows_exceed_the_budget(
    data: st.DataObject,
) -> None:
    count = data.draw(st.integers(1, 12))
    prompt_of = data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    completions = data.draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))
    prompts = [3 + 2 * prompt for prompt in prompt_of]
    budget = data.draw(st.integers(1, 40))
    parts = fill_with_groups(prompt_of, prompts, completions, budget)
    assert sorted(row for part in parts for row in part) == list(range(count))
    for part in parts:
        prefixes = {prompt_of[row]: prompts[row] for row in part}
        size = sum(prefixes.values()) + sum(completions[row] for row in part)
        assert size <= budget or len(part) == 1


def test_selected_rows_are_as_wide_as_their_longest_completion() -> None:
    rows = experience([(0, 1, 0), (2, 3, 0), (1, 9, 0)])
    part = rows.select(torch.tensor([1, 0]))
    assert part.tokens.tolist() == [[1, 2, 3], [1, 0, 0]]
    assert part.mask.tolist() == [[True, True, True], [True, False, False]]
    assert ([len(prompt) for prompt in part.prompts], part.advantages.tolist()) == ([6, 2], [1.0, 0.0])


def test_no_rows_are_replaced_by_one_masked_row() -> None:
    rows = experience([(0, 1, 0)])
    rows.reference_logprobs = torch.ones(1, 1)
    part = rows.select(torch.zeros(0, dtype=torch.long))
    assert (len(part.prompts), part.mask.any().item(), part.advantages.tolist()) == (1, False, [0.0])
    assert part.old_logprobs is None
    assert part.reference_logprobs is not None


def test_a_state_round_trip_keeps_everything_except_the_prompts() -> None:
    rows = experience([(0, 1, 0), (2, 3, 0)])
    state = rows.state()
    assert "prompts" not in state
    back = Experience.from_state(state, rows.prompts)
    assert vars(back).keys() == vars(rows).keys()
    assert torch.equal(back.tokens, rows.tokens)


def test_no_completions_pad_to_an_empty_table() -> None:
    tokens, mask = pad_tokens([])
    assert (tokens.shape, mask.dtype) == (torch.Size([0, 1]), torch.bool)
