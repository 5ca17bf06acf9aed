"""Kernels of the softmax over the vocabulary, which Triton interprets on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from packaging.version import Version
from torch import Tensor

from mm_cpgd.policy import head_kernels
from mm_cpgd.policy.logprobs import token_logprobs

triton = pytest.importorskip("triton")

ROOT = Path(__file__).resolve().parents[2]


def case(dtype: torch.dtype, size: int = 9001) -> tuple[Tensor, Tensor]:
    """Return logits of four rows, with forbidden tokens in three of them, and tokens."""
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(4, size, generator=generator)).to(dtype)
    logits[0, 5:40] = -torch.inf
    logits[1, :5000] = -torch.inf  # the whole first block
    logits[2, 1:] = -torch.inf  # one token is certain
    return logits, torch.tensor([7000, 8999, 0, size - 1])


def check() -> None:
    """Compare both kernels with autograd; runs in a process in which Triton interprets."""
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        logits, tokens = case(dtype)
        assert head_kernels.usable(logits)
        exact = logits.double().requires_grad_()
        log = exact.log_softmax(-1)
        logprobs = log.gather(-1, tokens[:, None])[:, 0]
        finite = log.clamp(min=torch.finfo(torch.float64).min)
        entropies = -(finite * log.exp()).sum(-1)
        found = head_kernels.values(logits, tokens)
        for one, other in zip(found, (logprobs, entropies), strict=True):
            torch.testing.assert_close(one.double(), other.detach(), rtol=1e-5, atol=1e-5)
        of_logprob, of_entropy = torch.tensor([1.0, -2.0, 0.5, 0.3]), torch.tensor([0.2, 0.7, -1.0, 0.1])
        for slope in (None, of_entropy):
            total = (of_logprob * logprobs).sum() + (0 if slope is None else (slope * entropies).sum())
            (wanted,) = torch.autograd.grad(total, exact, retain_graph=True)
            own = logits.clone()
            returned = head_kernels.write_gradient(own, tokens, of_logprob, slope)
            assert returned.data_ptr() == own.data_ptr()
            torch.testing.assert_close(own.double(), wanted.nan_to_num(), rtol=tolerance, atol=tolerance / 10)
    assert head_kernels.values(torch.zeros(0, 9), torch.zeros(0, dtype=torch.long))[0].shape == (0,)


@pytest.mark.skipif(
    Version(triton.__version__) < Version("3.7"), reason="its interpreter fails with numpy 2.4"
)
@pytest.mark.parametrize("name", ["check", "check_head"])
def test_values_and_gradients_are_those_of_torch(name: str) -> None:
    code = f"from tests.policy.test_head_kernels import {name}; {name}()"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def check_head() -> None:
    """Compare a whole head with kernels and without; runs in a process in which Triton interprets."""
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 70, bias=False)
    hidden, targets = torch.randn(11, 8), torch.randint(0, 70, (11,))
    options = {"chunk": 4, "temperature": 0.7, "forbidden": torch.tensor([1, 69])}
    targets[targets == 1] = 2
    targets[targets == 69] = 3

    def results(entropy: bool) -> list[Tensor]:
        head.zero_grad()
        states = hidden.clone().requires_grad_()
        found = token_logprobs(states, head, targets, entropy_gradient=entropy, **options)  # type: ignore[arg-type]
        (found[0].square().sum() + (found[1].sum() if entropy else 0)).backward()
        with torch.no_grad():
            alone = token_logprobs(states, head, targets, **options)  # type: ignore[arg-type]
        assert states.grad is not None
        assert head.weight.grad is not None
        return [*found, *alone, states.grad, head.weight.grad.clone()]

    assert head_kernels.usable(hidden)
    for entropy in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            kernel = Mock(wraps=head_kernels.values)
            patch.setattr(head_kernels, "values", kernel)
            own = results(entropy)
            assert kernel.call_count == 2 * 3
            patch.setattr(head_kernels, "usable", lambda _: False)
            for one, other in zip(own, results(entropy), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_torch_computes_where_triton_does_not_run() -> None:
    logits, _ = case(torch.float32)
    assert not head_kernels.usable(logits)
    assert not head_kernels.usable(logits.double())
