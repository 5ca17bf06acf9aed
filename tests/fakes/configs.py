"""A complete config as text, and the error that loading an invalid one raises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mm_cpgd.config.loading import load_config
from mm_cpgd.errors import UserError

BASE = """\
policy:
  model: embedded:tiny
data:
  train: {path: "generated:clock"}
algorithm:
  advantage: {name: group_mean, weight: std}
  surrogate: {name: log_ratio_clip, epsilon_low: 0.2, epsilon_high: 0.2}
  aggregation: {name: token_mean}
  regularizers: [{name: drift, coefficient: 0.01}, {name: entropy, coefficient: 1e-3}]
"""
Write = Callable[..., Path]


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config(path, overrides)
    return str(caught.value)
