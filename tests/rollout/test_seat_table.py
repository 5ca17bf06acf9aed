"""One table of keys for a prompt and its completions: the samples of separate ones, while it is small."""

from __future__ import annotations

import pytest
import torch

from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.rollout import Completion, seat_table
from mm_cpgd.rollout.seat_table import SeatTable
from tests.fakes.sampling import flat, sampled


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> list[SeatTable]:
    """Return the tables that are made."""
    found: list[SeatTable] = []
    make = SeatTable.__init__

    def noted(self: SeatTable, *args: object) -> None:
        found.append(self)
        make(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(SeatTable, "__init__", noted)
    return found


def assert_same(found: list[Completion], wanted: list[Completion]) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one.tokens.tolist() == other.tokens.tolist()
        assert one.finished == other.finished
        torch.testing.assert_close(one.logprobs, other.logprobs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("copies", [1, 2, 7])
@pytest.mark.parametrize("lengths", ["alike", "different"])
def test_samples_are_those_of_separate_keys_as_completions_end(
    tiny_policy: Policy,
    prompts: list[EncodedPrompt],
    many_ends: list[int],
    tables: list[SeatTable],
    monkeypatch: pytest.MonkeyPatch,
    copies: int,
    lengths: str,
) -> None:
    chosen = prompts if lengths == "different" else [prompts[0]] * 3
    seeds = [[10 * prompt + copy for copy in range(copies)] for prompt in range(3)]
    found = flat(sampled(tiny_policy, chosen, seeds, max_new_tokens=24))
    assert len(tables) == 1
    assert tables[0].padded is (lengths == "different")
    assert len({len(one.tokens) for one in found}) > 1
    monkeypatch.setattr(seat_table, "MOST_SCORES", 0)
    assert_same(found, flat(sampled(tiny_policy, chosen, seeds, max_new_tokens=24)))
    assert len(tables) == 1


def test_places_are_dropped_until_none_are_left(
    tiny_policy: Policy, prompts: list[EncodedPrompt], many_ends: list[int], tables: list[SeatTable]
) -> None:
    seeds = [list(range(6)), list(range(6, 12)), list(range(12, 18))]
    found = flat(sampled(tiny_policy, prompts, seeds, max_new_tokens=24))
    rows = tables[0].prompts * tables[0].seats
    assert rows < len(found)
    assert tables[0].width <= max(len(one.tokens) for one in found)


def test_what_is_sampled_can_take_part_in_a_backward_pass(
    tiny_policy: Policy, prompts: list[EncodedPrompt]
) -> None:
    (completion, *_) = flat(sampled(tiny_policy, prompts, [[1], [2], [3]], max_new_tokens=4))
    weight = torch.ones(1, requires_grad=True)
    (weight * completion.logprobs).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad[0], completion.logprobs.sum())


def test_weights_that_have_changed_are_used(tiny_policy: Policy, prompts: list[EncodedPrompt]) -> None:
    seeds = [[1], [2], [3]]
    head = tiny_policy.model.model.language_model.layers[0].input_layernorm.weight
    before = flat(sampled(tiny_policy, prompts, seeds, max_new_tokens=4))
    with torch.no_grad():
        head.mul_(1.5)
        after = flat(sampled(tiny_policy, prompts, seeds, max_new_tokens=4))
        head.div_(1.5)
    pairs = zip(before, after, strict=True)
    assert any(not torch.allclose(one.logprobs, other.logprobs) for one, other in pairs)
