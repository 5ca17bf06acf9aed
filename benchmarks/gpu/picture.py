"""Picture of where the time goes, from the profiles of one or several results.

python -m benchmarks.gpu.picture docs/pictures/gpu_time.svg "before=OLD/results.jsonl" "now=NEW/results.jsonl"
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from benchmarks.gpu.profile import IDLE, KINDS

# Of each kind, readable with any colour vision (Okabe and Ito); light grey for no work.
COLOURS = ("#56B4E9", "#009E73", "#0072B2", "#F0E442", "#CC79A7", "#D55E00", "#DDDDDD")

# Work → kind → milliseconds.
Profile = dict[str, dict[str, float]]


def main(target: Path, *named: str) -> None:
    """Write the picture; each further argument is NAME=FILE."""
    plt.rcParams["svg.hashsalt"] = "mm-cpgd"
    profiles = {}
    for one in named:
        name, _, file = one.partition("=")
        profiles[name] = read(Path(file))
    figure = draw(profiles)
    figure.savefig(target, metadata={"Date": None})


def read(file: Path) -> Profile:
    """Return the profile in a file of results."""
    found: Profile = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["section"] == "profile" and "row" in record:
            row = record["row"]
            found.setdefault(row["work"], {})[row["what"]] = row["ms"]
    return found


def draw(profiles: Mapping[str, Profile]) -> plt.Figure:
    """Return a figure with a stacked bar for each work of each profile."""
    bars = [
        (f"{work}, {name}" if name else work, kinds)
        for work in dict.fromkeys(work for profile in profiles.values() for work in profile)
        for name, profile in profiles.items()
        for kinds in [profile.get(work)]
        if kinds
    ]
    figure, axes = plt.subplots(figsize=(8, 1.4 + 0.5 * len(bars)), layout="constrained")
    _stack(axes, bars)
    axes.set_xlabel("milliseconds")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _stack(axes: plt.Axes, bars: Sequence[tuple[str, dict[str, float]]]) -> None:
    labels = [label for label, _ in bars]
    left = [0.0] * len(bars)
    for kind, colour in zip((*KINDS, IDLE), COLOURS, strict=True):
        widths = [kinds.get(kind, 0.0) for _, kinds in bars]
        if not any(widths):
            continue
        axes.barh(labels, widths, left=left, color=colour, label=kind, edgecolor="white", linewidth=0.5)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for label, end in zip(labels, left, strict=True):
        axes.annotate(
            f"{end:,.0f}", (end, label), (4, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.invert_yaxis()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
