"""The embedded policy, made again from nothing: random weights, then two rounds of supervised fine-tuning."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from transformers import AutoModelForImageTextToText

from mm_cpgd.config.loading import load_config
from mm_cpgd.policy.model import EMBEDDED
from mm_cpgd.tiny.model import build_tiny
from mm_cpgd.training.run import EvaluatorFactory, Start, fine_tune

STAGES = ("tiny_see", "tiny_habits")


def build_cold_started(
    output: Path,
    assets: Path | None,
    overrides: Sequence[str],
    make_evaluator: EvaluatorFactory,
    console: Console,
) -> Path:
    """Build, fine-tune and put the policy in place; an interrupted build goes on where it stopped.

    Args:
        output: folder for the runs of the two stages.
        assets: where the policy goes; None: into this package, where ``embedded:tiny`` finds it.
        overrides: for the configs of both stages, for instance ``training.threads=2``.
        make_evaluator: as for ``fine_tune``.
        console: for progress.

    Returns:
        The folder that the policy was written to.
    """
    previous = build_tiny(output / "random")
    for stage in STAGES:
        folder = output / stage
        paths = [f"policy.model={previous}", f"output={folder}"]
        config = load_config(stage, [*paths, *overrides])
        console.print(f"[bold]{stage}[/]")
        fine_tune(config, Start(resume=(folder / "config.yaml").exists()), make_evaluator, console)
        previous = folder / "final"
    return install(previous, assets or EMBEDDED["embedded:tiny"])


def install(policy: Path, place: Path) -> Path:
    """Copy a policy folder with its weights in half precision, which is exact enough and half as large."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(policy, place)
    model = AutoModelForImageTextToText.from_pretrained(policy, dtype=torch.float16)
    model.save_pretrained(place)
    return place
