"""Choice of the attention kernel: the fast one only if it agrees with plain matrix products."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from mm_cpgd.policy.shared_prefix import choice
from mm_cpgd.policy.shared_prefix.choice import attention_for, checked, forced, plain, working
from mm_cpgd.policy.shared_prefix.kernels import CpuFlashKernel


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


@pytest.fixture
def nothing_checked() -> Iterator[None]:
    checked.cache_clear()
    yield
    checked.cache_clear()


@pytest.mark.usefixtures("nothing_checked")
@pytest.mark.parametrize("broken", [Wrong, Gone])
def test_an_incorrect_kernel_is_not_used(
    broken: type[CpuFlashKernel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "CpuFlashKernel", broken)
    assert attention_for("sdpa", "cpu", torch.float32, 16) is plain()
    assert list(working("cpu", torch.float32, 16)) == ["plain"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("preferred", ["sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"])
def test_the_fast_kernel_is_used_if_it_is_correct(preferred: str, dtype: torch.dtype) -> None:
    # The preferred ones need a GPU.
    assert attention_for(preferred, "cpu", dtype, 32) is checked("cpu_flash", "cpu", dtype, 32) is not None


def test_eager_attention_is_plain_products() -> None:
    assert attention_for("eager", "cpu", torch.float32, 32) is plain()


def test_a_forced_kernel_is_used_within_its_block_alone() -> None:
    with forced("plain"):
        assert attention_for("sdpa", "cpu", torch.float32, 32) is plain()
    with forced(None):
        assert attention_for("sdpa", "cpu", torch.float32, 32) is not plain()


@pytest.mark.usefixtures("nothing_checked")
def test_the_comparison_sees_nothing_of_the_layer_that_calls_it() -> None:
    saved: list[Tensor] = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda one: saved.append(one) or one, lambda one: one)
    with hooks, torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert checked("cpu_flash", "cpu", torch.float32, 16) is not None
    assert saved == []
