"""Log-probabilities and entropies in chunks equal the plain computation."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mm_cpgd.policy import token_logprobs

M, H, V = 23, 16, 57
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}


def setting(dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, nn.Linear, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(M, H, generator=generator, dtype=dtype).requires_grad_()
    head = nn.Linear(H, V, bias=False, dtype=dtype)
    head.weight.data = torch.randn(V, H, generator=generator, dtype=dtype)
    return hidden, head, torch.randint(V, (M,), generator=generator)


def plain(hidden: Tensor, head: nn.Module, targets: Tensor) -> tuple[Tensor, Tensor]:
    probabilities = head(hidden).softmax(-1)
    return probabilities[torch.arange(M), targets].log(), -(probabilities * probabilities.log()).sum(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk", [1, 5, M, 1024])
def test_values_equal_the_plain_computation_whatever_the_chunk(dtype: torch.dtype, chunk: int) -> None:
    hidden, head, targets = setting(dtype)
    expected = plain(hidden, head, targets)
    for values, wanted in zip(token_logprobs(hidden, head, targets, chunk=chunk), expected, strict=True):
        assert values.dtype == dtype
        torch.testing.assert_close(values, wanted, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk", [1, 5, M, 1024])
@pytest.mark.parametrize("share", [0.0, 0.3], ids=["logprobs alone", "with entropy"])
def test_gradients_equal_the_plain_computation(dtype: torch.dtype, chunk: int, share: float) -> None:
    hidden, head, targets = setting(dtype)
    weights = torch.linspace(-1, 2, M, dtype=dtype)

    def gradients(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        loss = (weights * pair[0]).sum() + share * (weights * pair[1]).sum()
        return torch.autograd.grad(loss, [hidden, head.weight])

    chunked = token_logprobs(hidden, head, targets, chunk=chunk, entropy_gradient=share > 0)
    wanted = gradients(plain(hidden, head, targets))
    for values, expected in zip(gradients(chunked), wanted, strict=True):
        torch.testing.assert_close(values, expected, rtol=0, atol=10 * TOLERANCE[dtype])


def test_entropy_carries_no_gradient_unless_requested() -> None:
    hidden, head, targets = setting()
    assert not token_logprobs(hidden, head, targets)[1].requires_grad
    assert token_logprobs(hidden, head, targets, entropy_gradient=True)[1].requires_grad


def test_the_gradient_of_a_logprob_is_one_hot_minus_probabilities() -> None:
    logits = torch.tensor([[0.0, math.log(2.0), math.log(5.0)]], requires_grad=True)
    logprobs, entropies = token_logprobs(logits, nn.Identity(), torch.tensor([1]))
    logprobs.sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[-1 / 8, 6 / 8, -5 / 8]]))
    assert logprobs.item() == pytest.approx(math.log(2 / 8), abs=1e-6)
    expected = -(1 / 8 * math.log(1 / 8) + 2 / 8 * math.log(2 / 8) + 5 / 8 * math.log(5 / 8))
    assert entropies.item() == pytest.approx(expected, abs=1e-6)


def test_large_logits_lose_no_digits() -> None:
    small = torch.tensor([[0.0, 1.0, 2.0]])
    near = token_logprobs(small, nn.Identity(), torch.tensor([1]))
    far = token_logprobs(small + 8192, nn.Identity(), torch.tensor([1]))
    for one, other in zip(near, far, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("trained", [True, False])
def test_never_more_than_a_chunk_of_logits_exists(trained: bool) -> None:
    hidden, head, targets = setting()
    sizes: list[torch.Size] = []
    head.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape))
    with torch.set_grad_enabled(trained):
        logprobs, _ = token_logprobs(hidden, head, targets, chunk=5)
    if trained:
        logprobs.sum().backward()
    assert max(size[0] for size in sizes) == 5
    # The backward pass recomputes them instead of having kept them.
    assert sum(size[0] for size in sizes) == (2 * M if trained else M)


def test_no_logits_are_kept_for_the_backward_pass() -> None:
    hidden, head, targets = setting()
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        token_logprobs(hidden, head, targets, chunk=5)
    assert max(kept) <= max(M * H, V * H)
    assert 5 * V not in kept


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_normalised_in_float32(half: torch.dtype) -> None:
    hidden, head, targets = setting()
    hidden, head = hidden.detach().to(half), head.to(half)
    logprobs, entropies = token_logprobs(hidden, head, targets)
    expected = head(hidden).double().log_softmax(-1)
    assert logprobs.dtype == entropies.dtype == torch.float32
    wanted = expected[torch.arange(M), targets].float()
    torch.testing.assert_close(logprobs, wanted, rtol=0, atol=1e-5)


def test_no_tokens_give_no_values_and_a_gradient_of_zero() -> None:
    _, head, _ = setting()
    hidden = torch.zeros(0, H, requires_grad=True)
    logprobs, entropies = token_logprobs(hidden, head, torch.zeros(0, dtype=torch.long))
    assert logprobs.shape == entropies.shape == (0,)
    logprobs.sum().backward()
    assert head.weight.grad is not None
    assert not head.weight.grad.any()


def hooked(head: nn.Linear) -> nn.Linear:
    """Return a head that must be called: its gradient is left to autograd."""
    head.register_forward_hook(lambda *_: None)
    return head


CUTS: dict[str, Any] = {
    "all tokens": {},
    "at a temperature": {"temperature": 0.7},
    "without forbidden tokens": {"forbidden": torch.tensor([3, 50])},
    "over kept tokens": {
        "kept": (
            torch.tensor([0] + [4] * (M - 1)),
            torch.cat([torch.tensor([1, 9, 30, 56]) for _ in range(M - 1)]),
        ),
        "temperature": 1.3,
    },
}


@pytest.mark.parametrize("share", [0.0, 0.4, 50.0], ids=["logprobs alone", "with entropy", "mostly entropy"])
@pytest.mark.parametrize("bias", [False, True], ids=["without bias", "with bias"])
@pytest.mark.parametrize("options", CUTS.values(), ids=CUTS)
def test_the_gradient_written_in_place_is_that_of_autograd(
    options: dict[str, Any], bias: bool, share: float
) -> None:
    hidden, plain_head, _ = setting(torch.float64)
    head = nn.Linear(H, V, bias=bias, dtype=torch.float64)
    head.weight.data = plain_head.weight.data
    targets = torch.tensor([1, 9, 30, 56])[torch.arange(M) % 4]
    weights = torch.linspace(-1, 2, M, dtype=torch.float64)

    def results() -> list[Tensor]:
        pair = token_logprobs(hidden, head, targets, chunk=5, entropy_gradient=share > 0, **options)
        loss = (weights * pair[0]).sum() + share * (weights.flip(0) * pair[1]).sum()
        return [*pair, *torch.autograd.grad(loss, [hidden, *head.parameters()])]

    found = results()
    hooked(head)
    for one, other in zip(found, results(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden, head, targets = setting()
    head.requires_grad_(False)
    token_logprobs(hidden, head, targets, chunk=5)[0].sum().backward()
    assert hidden.grad is not None
    assert head.weight.grad is None


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["logprobs alone", "with entropy"])
def test_under_autocast_gradients_are_those_of_autograd(share: float) -> None:
    hidden, head, targets = setting()

    def gradients() -> tuple[Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16):
            pair = token_logprobs(hidden, head, targets, chunk=5, entropy_gradient=share > 0)
        loss = pair[0].sum() + (share * pair[1]).sum()
        return torch.autograd.grad(loss, [hidden, head.weight])

    found = gradients()
    hooked(head)
    for one, other in zip(found, gradients(), strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert (one - other).norm() < 0.005 * other.norm()


class Largest(TorchDispatchMode):
    """Notes the most values of any tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.found = 0

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        self.found = max(self.found, result.numel() if isinstance(result, Tensor) else 0)
        return result


@pytest.mark.parametrize("entropy", [False, True])
def test_neither_pass_has_more_than_a_chunk_of_logits(entropy: bool) -> None:
    hidden, head, targets = setting()
    with Largest() as largest:
        pair = token_logprobs(hidden, head, targets, chunk=20, entropy_gradient=entropy)
        sum(one.sum() for one in pair if one.requires_grad).backward()
    assert M * V > 20 * V >= V * H
    assert largest.found == 20 * V
