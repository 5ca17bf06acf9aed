"""Choice of the attention kernel: the fast one only if it agrees with plain matrix products."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mm_cpgd.policy.shared_prefix import kernels
from mm_cpgd.policy.shared_prefix.kernels import CpuFlashKernel, PlainKernel, kernel_for


class Wrong(CpuFlashKernel):
    """A kernel with a wrong log-sum-exp."""

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float, causal: bool
    ) -> tuple[Tensor, Tensor]:
        out, lse = super().forward(query, key, value, scale=scale, causal=causal)
        return out, lse + 0.1


class Gone(CpuFlashKernel):
    """A kernel whose operator torch has removed."""

    def forward(self, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        raise AttributeError("no such operator")


@pytest.mark.parametrize("broken", [Wrong, Gone])
def test_an_incorrect_kernel_is_not_used(
    broken: type[CpuFlashKernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "CpuFlashKernel", broken)
    kernel_for.cache_clear()
    assert isinstance(kernel_for("cpu", torch.float32, 16), PlainKernel)
    kernel_for.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_fast_kernel_is_used_if_it_is_correct(dtype: torch.dtype) -> None:
    assert isinstance(kernel_for("cpu", dtype, 32), CpuFlashKernel)
