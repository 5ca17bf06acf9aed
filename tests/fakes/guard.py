"""Rows of metrics and objectives for tests of the guard."""

from __future__ import annotations

from typing import Any

from mm_cpgd.algorithms.composition import build_objective
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.config.schema import AlgorithmConfig

DRIFT = {"name": "policy_drift", "alpha": 0.01}
Row = dict[str, Any]
HEALTHY = {
    "reward/mean": 1.2,
    "reward/std": 0.4,
    "reward/format": 1.0,
    "accuracy/train": 0.7,
    "groups/no_signal": 0.4,
    "completion/length_mean": 20.0,
    "completion/truncated": 0.0,
    "tokens/sampled": 20.0 * 128,
    "policy/drift": 0.01,
    "policy/clip_fraction": 0.05,
    "policy/ratio_max": 3.0,
    "policy/entropy": 0.05,
    "optimizer/grad_norm": 0.5,
    "optimizer/skipped": 0.0,
}


def rows_of(**series: list[Any]) -> list[Row]:
    """Rows of a healthy run with given values of some metrics; ``reward_mean`` means ``reward/mean``."""
    (length,) = {len(values) for values in series.values()}
    named = {key.replace("_", "/", 1): values for key, values in series.items()}
    return [
        {"iteration": i + 1, **HEALTHY, **{key: values[i] for key, values in named.items()}}
        for i in range(length)
    ]


def objective(*regularizers: dict[str, Any]) -> Objective:
    config = AlgorithmConfig.model_validate(
        {
            "advantage": {"name": "grpo"},
            "surrogate": {"name": "ppo_clip"},
            "aggregation": {"name": "token_mean"},
            "regularizers": list(regularizers),
        }
    )
    return build_objective(config, completions=8, max_new_tokens=16)
