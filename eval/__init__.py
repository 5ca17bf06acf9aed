"""Evaluation of mm-cpgd: published benchmarks, generated or stored responses, scores and comparisons.

``evaluate`` runs a model on a benchmark, ``score`` scores stored predictions, ``compare`` two results.
Names are imported at first use, so that scoring needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import mm_cpgd  # noqa: F401  # its import guard makes `data` and `rewards` resolve beside it

if TYPE_CHECKING:
    from eval.benchmark import Benchmark, DataSource, Response, ScoredRow, verified, with_images
    from eval.benchmarks import benchmark_names, find_benchmark
    from eval.comparison import Comparison, compare
    from eval.predictions import read_predictions
    from eval.report import write_page
    from eval.results import EvalResult, read_result
    from eval.run import evaluate
    from eval.scoring.stored import score
    from eval.settings import Settings

_MODULES = {
    "Benchmark": "eval.benchmark",
    "Comparison": "eval.comparison",
    "DataSource": "eval.benchmark",
    "EvalResult": "eval.results",
    "Response": "eval.benchmark",
    "ScoredRow": "eval.benchmark",
    "Settings": "eval.settings",
    "benchmark_names": "eval.benchmarks",
    "compare": "eval.comparison",
    "evaluate": "eval.run",
    "find_benchmark": "eval.benchmarks",
    "read_predictions": "eval.predictions",
    "read_result": "eval.results",
    "score": "eval.scoring.stored",
    "verified": "eval.benchmark",
    "with_images": "eval.benchmark",
    "write_page": "eval.report",
}
__all__ = [
    "Benchmark",
    "Comparison",
    "DataSource",
    "EvalResult",
    "Response",
    "ScoredRow",
    "Settings",
    "benchmark_names",
    "compare",
    "evaluate",
    "find_benchmark",
    "read_predictions",
    "read_result",
    "score",
    "verified",
    "with_images",
    "write_page",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
