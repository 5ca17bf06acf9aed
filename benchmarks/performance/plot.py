"""Plot of an iteration's seconds by phase, from the JSON of ``benchmarks.performance.train_step --save``.

python -m benchmarks.performance.plot docs/pictures/train_step.svg big.json small.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

COLOURS = {"rollout": "#2a6bc2", "reward": "#8a8f98", "update": "#c8611a"}


def title(work: dict[str, Any]) -> str:
    """Return the workload in one or two lines."""
    more = [f"{work['updates']} updates"] if work["updates"] > 1 else []
    more += ["reference policy"] if work["reference"] else []
    more += [] if work["checkpointing"] else ["activations kept"]
    size = f"{work['visual_tokens']} visual, {work['completion_tokens']} completion tokens"
    return "\n".join([size, ", ".join(more)]) if more else size


def draw(axes: Any, result: dict[str, Any]) -> None:
    """Draw both sides of a comparison as stacked bars."""
    peer = next(name for name in ("trl", "unshared") if name in result)
    sides = {"mm-cpgd": result["ours"], {"trl": "TRL"}.get(peer, peer): result[peer]}
    for row, side in enumerate(sides.values()):
        left = 0.0
        for phase, seconds in side["phases"].items():
            axes.barh(row, seconds, left=left, color=COLOURS[phase], height=0.6)
            left += seconds
        axes.text(max(left, side["seconds"]), row, f" {side['seconds']:.2f} s", va="center", fontsize=9)
    axes.set_yticks(range(len(sides)), list(sides))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.22 * max(side["seconds"] for side in sides.values()))
    axes.set_title(f"{title(result['workload'])}: × {result['ratio']:.1f}", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("seconds per iteration", fontsize=8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("results", type=Path, nargs="+")
    options = parser.parse_args()
    results = [json.loads(path.read_text(encoding="utf-8")) for path in options.results]
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "mm-cpgd", "font.size": 9})
    figure, rows = plt.subplots(len(results), 1, figsize=(7, 1.7 * len(results)), squeeze=False)
    for axes, result in zip(rows[:, 0], results, strict=True):
        draw(axes, result)
    patches = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS.values()]
    figure.legend(patches, list(COLOURS), loc="upper right", ncols=3, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0, 1, 0.96))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output, metadata={"Date": None})
    print(options.output)


if __name__ == "__main__":
    main()
