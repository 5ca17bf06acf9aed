"""Tokens drawn in the language head: values, gradients and memory, whatever the chunk."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mm_cpgd.policy import token_logprobs
from mm_cpgd.policy.distribution import draw_several
from mm_cpgd.policy.logprobs import drawn_logprobs

M, H, V, K = 23, 16, 57, 5


def setting() -> tuple[Tensor, nn.Linear, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(M, H, generator=generator, dtype=torch.float64).requires_grad_()
    head = nn.Linear(H, V, bias=False, dtype=torch.float64)
    head.weight.data = torch.randn(V, H, generator=generator, dtype=torch.float64) / 4
    uniforms = torch.rand(M, K, generator=generator)
    return hidden, head, torch.randint(V, (M,), generator=generator), uniforms


@pytest.mark.parametrize("chunk", [1, 5, M, 1024])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients_equal_the_plain_computation(chunk: int, temperature: float) -> None:
    hidden, head, targets, uniforms = setting()
    logits = head(hidden) / temperature
    tokens = draw_several((logits / 1.3).detach(), uniforms)
    weights = torch.linspace(-1, 2, M * K, dtype=torch.float64).view(M, K)
    log = logits.log_softmax(-1)
    plain = (weights * log.gather(-1, tokens)).sum() + log[torch.arange(M), targets].sum()
    expected = torch.autograd.grad(plain, [hidden, head.weight])
    options: dict[str, Any] = {"chunk": chunk, "temperature": temperature}
    own, entropies, drawn, hits = drawn_logprobs(
        hidden, head, targets, uniforms, draw_temperature=1.3, **options
    )
    assert torch.equal(hits, tokens == targets[:, None])
    for values, wanted in zip(
        (own, entropies), token_logprobs(hidden, head, targets, **options), strict=True
    ):
        torch.testing.assert_close(values, wanted, rtol=0, atol=1e-13)
    found = torch.autograd.grad((weights * drawn).sum() + own.sum(), [hidden, head.weight])
    for values, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(values, wanted, rtol=0, atol=1e-12)


def test_forbidden_and_cut_tokens_are_never_drawn() -> None:
    logits = torch.zeros(1, 6)
    logits[0, [0, 2, 5]] = -torch.inf
    uniforms = torch.linspace(0, 1, 10_001)[None, :-1]
    largest = torch.full((1, 1), 1 - 2**-24)
    drawn = draw_several(logits, torch.cat([uniforms, largest], 1))
    counts = drawn[0].bincount(minlength=6)
    assert counts.tolist() == pytest.approx([0, 3333, 0, 3334, 3334, 0], abs=1)


def test_a_position_without_any_token_to_draw_has_no_draws() -> None:
    hidden, head, targets, uniforms = setting()
    found = drawn_logprobs(hidden[:0], head, targets[:0], uniforms[:0])
    assert [tuple(one.shape) for one in found] == [(0,), (0,), (0, K), (0, K)]


class Largest(TorchDispatchMode):
    """Notes the rows of the largest tensor that is V wide, the weights (H, V) aside."""

    rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else [result]:
            if isinstance(one, Tensor) and one.dim() == 2 and one.shape[1] == V and one.shape[0] != H:
                self.rows = max(self.rows, one.shape[0])
        return result


def test_never_all_logits_exist_at_once() -> None:
    hidden, head, targets, uniforms = setting()
    with Largest() as mode:
        _, _, drawn, _ = drawn_logprobs(hidden, head, targets, uniforms, chunk=4)
        drawn.sum().backward()
    assert mode.rows == 4
