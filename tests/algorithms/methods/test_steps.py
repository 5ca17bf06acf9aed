"""EMPG: the worked numbers, its invariants, where steps end, and its gradient against the formula."""

import pytest
import torch

from mm_cpgd.algorithms.methods.steps import empg, marked_ends
from tests.fakes.objectives import build

PIECES = {0: "a", 1: "</thi", 2: "nk>", 3: "b\n", 4: "</think>"}


def table(entropies, lengths, advantages, prompts=None):
    """Rows whose steps have these entropies and lengths in tokens; each is a turn, a gap follows."""
    rows, masks = [], []
    for own, sizes in zip(entropies, lengths, strict=True):
        row, mask = [], []
        for value, size in zip(own, sizes, strict=True):
            row += [value] * size + [99.0]
            mask += [True] * size + [False]
        rows.append(row)
        masks.append(mask)
    width = max(map(len, rows))
    entropy = torch.tensor([row + [99.0] * (width - len(row)) for row in rows], dtype=torch.float64)
    mask = torch.tensor([row + [False] * (width - len(row)) for row in masks])
    base = torch.tensor(advantages, dtype=torch.float64)[:, None].expand(entropy.shape)
    return {
        "advantages": base,
        "base_advantages": base,
        "old_entropy": entropy,
        "tokens": torch.zeros(entropy.shape, dtype=torch.long),
        "mask": mask,
        "prompt_of": torch.tensor(prompts or [0] * len(rows)),
        "pieces": PIECES,
    }


def by_step(given, **options):
    """The result at the first token of each step, in order."""
    found = empg(*given.values(), **options)
    mask = given["mask"]
    first = mask & ~torch.nn.functional.pad(mask, (1, 0))[:, :-1]
    return found[first].tolist()


@pytest.mark.parametrize(
    ("advantage", "uncentred"), [(1, (1.580094, 0.958376, 0.558971)), (-1, (-1.458788, -0.884800, -0.558971))]
)
def test_the_worked_numbers_over_steps_and_over_tokens(advantage, uncentred):
    given = table([[0.2, 0.6, 1.0]], [[4, 2, 2]], [advantage])
    over_steps = [value - sum(uncentred) / 3 for value in uncentred]
    assert by_step(given, centre="steps") == pytest.approx(over_steps, abs=2e-6)
    mean = (4 * uncentred[0] + 2 * uncentred[1] + 2 * uncentred[2]) / 8
    assert by_step(given) == pytest.approx([value - mean for value in uncentred], abs=2e-6)


def test_the_printed_numbers_of_a_right_completion():
    given = table([[0.2, 0.6, 1.0]], [[4, 2, 2]], [1])
    assert by_step(given, centre="steps") == pytest.approx([0.547614, -0.074105, -0.473509], abs=2e-6)
    assert by_step(given) == pytest.approx([0.410710, -0.211008, -0.610413], abs=2e-6)


def random_rows(seed=0):
    torch.manual_seed(seed)
    lengths = [torch.randint(1, 5, (int(torch.randint(1, 4, ())),)).tolist() for _ in range(6)]
    entropies = [torch.rand(len(sizes)).tolist() for sizes in lengths]
    return table(entropies, lengths, [1, -1, 0.5, -0.5, 0, 0], prompts=[0, 0, 1, 1, 2, 2])


def test_the_scaling_has_a_mean_of_one_over_steps():
    given = random_rows()
    given["advantages"] = torch.ones_like(given["advantages"])
    # Not centred, the mean over steps is that of g; the result's spread is unchanged by the centring.
    scaled = torch.tensor(by_step(given, zeta=0.0, centre="steps"))
    assert scaled.mean().abs() < 1e-8
    assert scaled.min() > -1
    assert scaled.std() > 0.1


def test_shifting_and_scaling_all_entropies_changes_nothing():
    given = random_rows()
    other = {**given, "old_entropy": given["old_entropy"] * 3 + 2}
    torch.testing.assert_close(empg(*other.values()), empg(*given.values()), atol=1e-6, rtol=0)


def test_without_scaling_and_bonus_it_is_the_base_less_its_mean():
    given = random_rows()
    mask, base = given["mask"], given["advantages"]
    found = empg(*given.values(), k=0.0, zeta=0.0)
    torch.testing.assert_close(found[mask], base[mask] - base[mask].mean(), atol=1e-7, rtol=0)
    assert not found[~mask].any()


def test_one_step_is_the_base_too():
    given = table([[0.3], [0.3]], [[5], [5]], [1, -1])
    assert by_step(given) == pytest.approx([1, -1])


def test_order_of_the_completions_does_not_matter():
    given = random_rows()
    turned = {name: value if name == "pieces" else value.flip(0) for name, value in given.items()}
    torch.testing.assert_close(empg(*turned.values()).flip(0), empg(*given.values()))


def test_a_group_without_a_signal_gets_the_bonus_only_as_published():
    given = table([[0.1, 0.2], [0.1, 0.2]], [[1, 1], [1, 1]], [0, 0])
    assert by_step(given)[0] > 0
    assert by_step(given, bonus_without_signal=False) == pytest.approx([0, 0, 0, 0])
    mixed = table([[0.1, 0.2]] * 2, [[1, 1]] * 2, [1, -1])
    assert by_step(mixed, bonus_without_signal=False) == by_step(mixed)


@pytest.mark.parametrize("spread", [0.02, 1.0])
def test_rounding_of_the_entropies_counts_by_their_range(spread):
    given = random_rows()
    given["old_entropy"] = 5.8 + spread * given["old_entropy"]
    noise = 4e-6 * (2 * torch.rand(given["mask"].shape, dtype=torch.float64) - 1)
    other = {**given, "old_entropy": given["old_entropy"] + noise}
    difference = (empg(*other.values()) - empg(*given.values())).abs().max()
    assert 0 < difference < 4 * 4e-6 / spread


def test_steps_that_differ_by_rounding_alone_count_as_equal():
    given = random_rows()
    given["old_entropy"] = torch.full_like(given["old_entropy"], 5.8)
    expected = empg(*given.values())
    noise = 4e-6 * (2 * torch.rand(given["mask"].shape, dtype=torch.float64) - 1)
    found = empg(*{**given, "old_entropy": given["old_entropy"] + noise}.values())
    assert (found - expected).abs().max() < 4 * 4e-6 / 1e-3


def test_marks_over_several_tokens_end_a_step():
    tokens = torch.tensor([0, 1, 2, 0, 3, 4, 0])
    ends = marked_ends(tokens, torch.ones(7, dtype=torch.bool), PIECES, ("</think>", "\n"))
    assert ends.tolist() == [False, False, True, False, True, True, False]
    # What another wrote between two turns completes no mark.
    own = torch.tensor([True, True, False, True, True, True, True])
    assert not marked_ends(torch.tensor([0, 1, 0, 2, 0, 0, 0]), own, PIECES, ("</think>",)).any()


def test_marks_and_blocks_divide_a_turn():
    given = table([[0.2]], [[4]], [1])
    given["old_entropy"] = torch.tensor([[0.2, 0.2, 1.0, 1.0, 99.0]], dtype=torch.float64)
    given["tokens"] = torch.tensor([[1, 2, 0, 0, 0]])
    marked = empg(*given.values(), steps="marks")
    assert marked[0, 0] == marked[0, 1]
    assert marked[0, 1] > marked[0, 2] == marked[0, 3]
    torch.testing.assert_close(empg(*given.values(), steps="blocks", block=2), marked)
    torch.testing.assert_close(empg(*given.values(), steps="blocks", block=1000), empg(*given.values()))


def test_the_gradient_is_that_of_the_formula():
    """At the first step a token's gradient is its advantage by the number of tokens."""
    objective = build(recipe="empg", token_advantages=[{"name": "empg"}])
    given = table([[0.2, 0.6, 1.0]], [[4, 2, 2]], [1])
    by_token = objective.advantages_by_token(given)
    mask = given["mask"]
    logprobs = torch.zeros(mask.shape, dtype=torch.float64, requires_grad=True)
    loss, _ = objective.loss(logprobs, logprobs.detach(), by_token, mask, torch.tensor([8]))
    (gradient,) = torch.autograd.grad(loss, logprobs)
    expected = torch.tensor([0.410710] * 4 + [-0.211008] * 2 + [-0.610413] * 2, dtype=torch.float64) / 8
    torch.testing.assert_close(-gradient[mask], expected, atol=1e-6, rtol=0)


def test_nothing_to_learn_from_is_left_as_it_is():
    given = table([[0.2]], [[1]], [1])
    given["mask"] = torch.zeros_like(given["mask"])
    assert empg(*given.values()) is given["advantages"]
