"""Seconds per iteration with and without ``rollout.ahead``, on an engine that takes as long as the update.

    python -m benchmarks.performance.ahead

The engine is a second copy of the policy that samples in the training process and then waits for
``--engine`` seconds, as for a server on other GPUs; every optimizer step waits for ``--update`` seconds. The
waiting leaves the processor free, so that the result does not depend on the number of cores.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

from rich.console import Console

from mm_cpgd.config.loading import load_config
from mm_cpgd.policy import EncodedPrompt, Policy
from mm_cpgd.rollout import Group, LocalEngine, Sampling
from mm_cpgd.training.optimizer import OptimizerStep
from mm_cpgd.training.run import train

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
LONGEST = 512
SMALL = (
    "rollout.engine=vllm",  # replaced by the waiting engine
    "data.eval=null",
    "rollout.prompts=8",
    "rollout.completions=4",
    f"rollout.max_new_tokens={LONGEST}",  # the policy's completions end after about twenty
    "training.mini_batch_prompts=8",
    "training.threads=1",
)


class WaitingEngine(LocalEngine):
    """Samples from its own copy of the weights and waits, for shorter limits of a completion less long."""

    def __init__(self, policy: Policy, seconds: float) -> None:
        super().__init__(copy.deepcopy(policy))
        self.seconds = seconds

    def load_weights(self, policy: Policy) -> None:
        """Copy the weights."""
        self.policy.load_state_dict(policy.state_dict())

    def close(self) -> None:
        """Nothing to end."""

    def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[Group]:
        """Sample, then wait."""
        groups = super().generate(prompts, sampling, seeds)
        time.sleep(self.seconds * sampling.max_new_tokens / LONGEST)
        return groups


def seconds_per_iteration(ahead: int, engine: float, update: float, iterations: int) -> float:
    """Return the mean over a run's iterations, the first and the last one left out.

    With several batches ahead every k-th iteration waits for several; only the mean shows it.
    """
    step = OptimizerStep.__call__

    def slow_step(self: OptimizerStep, loss: Any) -> Any:
        time.sleep(update)
        return step(self, loss)

    def build(config: Any, accelerator: Any, placed: Any, *_: Any) -> WaitingEngine:
        return WaitingEngine(placed.policy, engine)

    with tempfile.TemporaryDirectory() as folder:
        options = [*SMALL, f"rollout.ahead={ahead}", f"training.iterations={iterations}"]
        config = load_config(QUICKSTART, [*options, f"output={folder}/run"])
        with (
            patch("mm_cpgd.training.run.build_engine", build),
            patch.object(OptimizerStep, "__call__", slow_step),
        ):
            train(config, console=Console(quiet=True))
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return fmean(row["seconds/iteration"] for row in rows[1:-1])


def main() -> None:
    """Print a table of settings and seconds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", type=float, default=2.0, help="seconds that the engine waits per batch")
    parser.add_argument("--update", type=float, default=2.0, help="seconds that an optimizer step waits")
    parser.add_argument("--iterations", type=int, default=8)
    parser.add_argument("--ahead", type=int, nargs="+", default=[0, 1, 2])
    chosen = parser.parse_args()
    for ahead in chosen.ahead:
        seconds = seconds_per_iteration(ahead, chosen.engine, chosen.update, chosen.iterations)
        print(f"rollout.ahead={ahead}: {seconds:.2f} s per iteration")


if __name__ == "__main__":
    main()
