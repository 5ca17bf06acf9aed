"""Measurements on a GPU, in eight minutes and without a download.

    python -m benchmarks.gpu --output runs/gpu
    python -m benchmarks.gpu --shape tiny --only numerics update

Random weights in the shapes of Qwen2.5-VL-3B and 7B in bfloat16. Every section runs in a process of its own
and is ended when its part of ``--seconds`` is over; results.jsonl and results.md are written as numbers come,
NAME.log holds what a section prints. Without a GPU, a small amount of work with the tiny model shows that
everything runs; its times say nothing about a GPU.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from dataclasses import fields, replace
from pathlib import Path

from benchmarks.gpu.results import Results
from benchmarks.gpu.runner import run_sections
from benchmarks.gpu.sections import SECTIONS
from benchmarks.gpu.settings import CPU, GPU, Settings
from benchmarks.performance.models import SHAPES

SECONDS = {"cuda": 440.0, "cpu": 3000.0}


def main(arguments: list[str] | None = None) -> None:
    """Parse the options, run the sections, print the tables."""
    import torch

    options = _parser().parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = [name for name in options.only or SECTIONS if name not in (options.skip or ())]
    command = shlex.join(
        ["python", "-m", "benchmarks.gpu", *(sys.argv[1:] if arguments is None else arguments)]
    )
    # As an exception, so that the section that runs, a session of its own, is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    results = Results(options.output, f"# Measurements on {_name(device)}\n\n`{command}`")
    seconds = options.seconds or SECONDS[device]
    run_sections(chosen, _settings(options, device), seconds, results, ahead=device == "cuda")
    print("\n" + results.markdown())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"), help="folder of the results")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), help="run these sections alone")
    parser.add_argument("--skip", nargs="+", choices=list(SECTIONS), help="leave these sections out")
    parser.add_argument(
        "--shape", dest="shapes", nargs="+", choices=SHAPES, help="default: 3b 7b, on a CPU tiny"
    )
    parser.add_argument("--seconds", type=float, help="of the whole run; default: 440, on a CPU 3000")
    for field in fields(Settings):
        if field.name != "shapes":
            several = {"nargs": "+"} if field.name.startswith("growth") else {}
            parser.add_argument(f"--{field.name.replace('_', '-')}", type=int, **several)
    return parser


def _settings(options: argparse.Namespace, device: str) -> Settings:
    """Return the defaults of the device, with what the command line says."""
    tiny = device == "cpu" or options.shapes == ["tiny"]
    given = {field.name: getattr(options, field.name) for field in fields(Settings)}
    chosen = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if v is not None}
    return replace(CPU if tiny else GPU, **chosen)


def _name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else "a CPU: no GPU was found"


if __name__ == "__main__":
    main()
