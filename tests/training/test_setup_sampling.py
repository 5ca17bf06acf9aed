"""What the learner is told of the engine's samples: cuts, corrections and the bound of the difference."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mm_cpgd.algorithms.corrections import Correction
from mm_cpgd.config.rollout import RolloutConfig
from mm_cpgd.errors import UserError
from mm_cpgd.rollout import Sampling
from mm_cpgd.training.setup import _sampling_options, build_correction, build_parity


def rollout(engine: str = "vllm", cuts: str = "renormalise", **vllm: Any) -> RolloutConfig:
    return RolloutConfig.model_validate({"engine": engine, "cuts": cuts, "vllm": vllm})


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, None),
        ({"correction": "truncate_tokens"}, Correction(False, False, 2.0, 0.5)),
        ({"correction": "truncate_sequences"}, Correction(True, False, 1.05, 0.95)),
        ({"correction": "mask_tokens", "importance_floor": 0.0}, Correction(False, True, 2.0, 0.0)),
        ({"correction": "mask_sequences", "importance_cap": 3.0}, Correction(True, True, 3.0, 0.95)),
    ],
)
def test_corrections_and_their_default_bounds(chosen: dict[str, Any], expected: Correction | None) -> None:
    assert build_correction(rollout(**chosen)) == expected
    assert build_correction(rollout("local", **chosen)) is None


def test_bounds_that_leave_nothing_are_refused() -> None:
    with pytest.raises(UserError, match=r"importance_floor=0\.5 must be below importance_cap=0\.4"):
        build_correction(rollout(correction="mask_tokens", importance_cap=0.4))
    build_correction(rollout(correction="truncate_tokens", importance_cap=0.4))


CUTS = Sampling(4, temperature=0.7, top_p=0.9)
AS_VLLM = Sampling(4, temperature=0.7, top_p=0.9, min_p_first=True)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (rollout(), {"correction": None, "unreported_cuts": AS_VLLM}),
        (rollout(cuts="reweight"), {"correction": Correction(cap=math.inf), "reweighted_cuts": AS_VLLM}),
        (
            rollout(cuts="reweight", correction="mask_tokens"),
            {"correction": Correction(False, True, 2.0, 0.5), "reweighted_cuts": AS_VLLM},
        ),
        (rollout("local"), {"correction": None}),
        (rollout("local", "reweight"), {"correction": Correction(cap=math.inf)}),
    ],
)
def test_cuts_of_another_engine_are_computed_in_its_order(
    config: RolloutConfig, expected: dict[str, Any]
) -> None:
    assert _sampling_options(config, CUTS) == {"temperature": 0.7, **expected}


def test_without_cuts_there_are_none_to_compute() -> None:
    plain = Sampling(4, temperature=0.7)
    assert _sampling_options(rollout(cuts="reweight"), plain) == {"temperature": 0.7, "correction": None}


@pytest.mark.parametrize(
    ("weights", "precision", "engine", "bound"),
    [
        (torch.float32, "no", torch.float32, 1e-5),
        (torch.float32, "no", torch.bfloat16, 5e-2),
        (torch.float32, "bf16", torch.float32, 5e-2),
        (torch.float32, "no", None, 5e-2),
        (torch.bfloat16, "no", torch.float32, 5e-2),
        (torch.float32, "no", torch.float16, 5e-3),
    ],
)
def test_the_coarsest_format_of_both_sides_sets_the_bound(
    weights: torch.dtype, precision: str, engine: torch.dtype | None, bound: float
) -> None:
    policy: Any = torch.nn.Linear(1, 1, dtype=weights)
    accelerator: Any = SimpleNamespace(mixed_precision=precision)
    vllm: Any = SimpleNamespace(dtype=engine)
    assert build_parity(rollout(), accelerator, policy, vllm).bound == bound
    given = build_parity(rollout(max_difference=0.3), accelerator, policy, vllm)
    assert (given.bound, given.source) == (0.3, "rollout.vllm.max_difference")
