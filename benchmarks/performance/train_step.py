"""Seconds and memory of an iteration compared with a peer: same model, prompts, lengths, optimizer steps.

    python -m benchmarks.performance.train_step --peer trl --visual-tokens 256 --completion-tokens 64 --json

Both sides freeze the vision tower, as CPGD's published runs do, and recompute activations in the backward
pass, as TRL does by default; ``--train-vision`` and ``--no-checkpointing`` change that for both.

The sides run alternately, each in its own process, so that changes of the machine's load affect both.
``ratio`` is this project's iterations per second over the peer's, the median over rounds; ``memory_ratio`` is
this project's peak memory over the peer's: of the GPU's allocator, or on a CPU of the whole process.
``working_memory_ratio`` leaves out what each process held before its first iteration (libraries, weights).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.performance.models import SHAPES
from benchmarks.performance.workload import Workload, prepare

PEERS = {"trl": "benchmarks.performance.side_trl", "unshared": "benchmarks.performance.side_ours"}
ROOT = Path(__file__).resolve().parents[2]


class Side:
    """One side in its own process.

    Args:
        module: of the side.
        folder: as ``prepare`` wrote it.
        threads: of its CPU work.
        log: receives what it prints on standard error.
        waits: whether it waits for ``report`` once its model is loaded.
    """

    def __init__(self, module: str, folder: Path, threads: int, log: Path, *, waits: bool = False) -> None:
        self.module = module
        self.log = log
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TRL_EXPERIMENTAL_SILENCE": "1"}
        with log.open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(folder), *(["--wait"] if waits else [])],
                cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                text=True,
            )  # fmt: skip

    def report(self) -> dict[str, Any]:
        """Let it work, and return its report; raises SystemExit with its last messages."""
        output, _ = self.process.communicate()  # which closes its standard input
        if self.process.returncode:
            messages = self.log.read_text(encoding="utf-8", errors="replace")
            raise SystemExit(f"{self.module} failed:\n{messages[-3000:]}")
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        return found


def run_side(module: str, folder: Path, threads: int) -> dict[str, Any]:
    """Run one side in its own process and return its report."""
    return Side(module, folder, threads, folder / "errors.log").report()


def compare(work: Workload, peer: str, rounds: int) -> dict[str, Any]:
    """Run both sides alternately, ``rounds`` times each, and return ratios and times."""
    with tempfile.TemporaryDirectory() as scratch:
        ours, theirs = Path(scratch) / "ours", Path(scratch) / "theirs"
        prepare(ours, work)
        if peer == "unshared":
            prepare(theirs, Workload(**{**vars(work), "shared": False}))
        else:
            theirs = ours
        pairs = [
            (
                run_side("benchmarks.performance.side_ours", ours, work.threads),
                run_side(PEERS[peer], theirs, work.threads),
            )
            for _ in range(rounds)
        ]
    return summary(work, peer, pairs)


def summary(work: Workload, peer: str, pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Return the medians over all rounds, with workload and versions."""
    ratios = [mean(b["seconds"]) / mean(a["seconds"]) for a, b in pairs]
    tokens = work.prompts * work.completions * work.completion_tokens
    return {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "memory_ratio": statistics.median(a["peak"] / b["peak"] for a, b in pairs),
        "working_memory_ratio": statistics.median(_working(a) / _working(b) for a, b in pairs),
        "ours": _one([a for a, _ in pairs], tokens),
        peer: _one([b for _, b in pairs], tokens),
        "workload": vars(work),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that are installed."""
    found = {"python": sys.version.split()[0]}
    for name in ("torch", "transformers", "trl"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def mean(values: list[float]) -> float:
    """Return the mean, for a side's iterations of one round."""
    return statistics.fmean(values)


def _working(side: dict[str, Any]) -> float:
    return max(side["peak"] - side["before"], 1.0)


def _one(reports: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
    seconds = statistics.median(mean(report["seconds"]) for report in reports)
    phases = {
        phase: statistics.median(mean(report["phases"][phase]) for report in reports)
        for phase in reports[0]["phases"]
    }
    return {
        "seconds": seconds,
        "phases": phases,
        "tokens_per_second": tokens / seconds,
        "peak_mib": statistics.median(report["peak"] for report in reports),
        "before_mib": statistics.median(report["before"] for report in reports),
    }


def print_table(result: dict[str, Any], peer: str) -> None:
    """Print seconds per iteration by phase, tokens per second and memory of both sides."""
    print(f"{'':24}{'mm-cpgd':>12}{peer:>12}")
    ours, theirs = result["ours"], result[peer]
    print(f"{'seconds per iteration':24}{ours['seconds']:12.3f}{theirs['seconds']:12.3f}")
    for phase in dict.fromkeys([*ours["phases"], *theirs["phases"]]):
        values = (side["phases"].get(phase) for side in (ours, theirs))
        print(f"  {phase:22}" + "".join(f"{'–' if v is None else format(v, '.3f'):>12}" for v in values))
    for name, key in (("sampled tokens/s", "tokens_per_second"), ("peak MiB", "peak_mib")):
        print(f"{name:24}{ours[key]:12.0f}{theirs[key]:12.0f}")
    print(f"{'  before the work':24}{ours['before_mib']:12.0f}{theirs['before_mib']:12.0f}")
    print(
        f"ratio {result['ratio']:.2f} (rounds: {', '.join(f'{r:.2f}' for r in result['ratios'])}), "
        f"peak memory × {result['memory_ratio']:.2f}, working memory × {result['working_memory_ratio']:.2f}"
    )


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that describe a workload."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    defaults = Workload()
    for name in ("prompts", "completions", "visual_tokens", "completion_tokens", "updates", "iterations"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(defaults, name))
    parser.add_argument("--warmup", type=int, default=defaults.warmup)
    parser.add_argument("--threads", type=int, default=defaults.threads)
    parser.add_argument(
        "--tokens", type=int, default=defaults.tokens, help="tokens in a forward pass of our update"
    )
    parser.add_argument("--rows", type=int, help="completions in a forward pass of the peer; default: all")
    parser.add_argument("--shape", choices=SHAPES, default=defaults.shape)
    parser.add_argument("--lora", type=int, default=0, metavar="RANK", help="train adapters, on both sides")
    parser.add_argument("--reference", action="store_true", help="add a frozen reference policy (KL)")
    parser.add_argument(
        "--train-vision", dest="frozen_vision", action="store_false", help="train the vision tower too"
    )
    parser.add_argument(
        "--no-checkpointing",
        dest="checkpointing",
        action="store_false",
        help="keep activations, on both sides",
    )
    return parser


def workload(options: argparse.Namespace) -> Workload:
    """Return the workload of the parsed options."""
    return Workload(**{name: getattr(options, name) for name in vars(Workload()) if hasattr(options, name)})


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--peer", choices=sorted(PEERS), default="trl")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side runs, alternately")
    parser.add_argument("--json", action="store_true", help="print JSON as the last line")
    parser.add_argument("--save", type=Path, help="write the JSON to a file, for benchmarks.performance.plot")
    options = parser.parse_args()
    result = compare(workload(options), options.peer, options.rounds)
    print_table(result, options.peer)
    if options.save:
        options.save.write_text(json.dumps(result), encoding="utf-8")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
