"""Weights that are spread over processes are refused before anything could wait for ever."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.utils import DistributedType

from mm_cpgd.distributed import check_whole_weights
from mm_cpgd.errors import UserError


def launched(kind: DistributedType, zero_stage: int | None = None) -> Any:
    plugin = None if zero_stage is None else SimpleNamespace(zero_stage=zero_stage)
    return SimpleNamespace(distributed_type=kind, state=SimpleNamespace(deepspeed_plugin=plugin))


@pytest.mark.parametrize(
    ("accelerator", "name"),
    [
        (launched(DistributedType.FSDP), "FSDP"),
        (launched(DistributedType.MEGATRON_LM), "MEGATRON_LM"),
        (launched(DistributedType.DEEPSPEED, 3), "DeepSpeed ZeRO-3"),
    ],
)
def test_sharded_weights_are_refused_with_the_alternative(accelerator: Any, name: str) -> None:
    with pytest.raises(UserError, match=f"^{name} shards.*use DDP"):
        check_whole_weights(accelerator)


@pytest.mark.parametrize(
    "accelerator",
    [
        launched(DistributedType.NO),
        launched(DistributedType.MULTI_GPU),
        launched(DistributedType.MULTI_CPU),
        launched(DistributedType.DEEPSPEED, 2),
    ],
)
def test_whole_weights_pass(accelerator: Any) -> None:
    check_whole_weights(accelerator)
