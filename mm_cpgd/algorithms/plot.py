"""Plot of loss and gradient of one token against its log-ratio, one curve per objective."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.errors import UserError

FORMATS = (".png", ".svg", ".pdf")
# Okabe and Ito's palette, distinguishable with any colour vision, and line styles for print.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1)))
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "mm-cpgd",
}
# Limit of the vertical axes, in units of |A|, so that diverging curves do not flatten the others.
Y_LIMIT = 4.5
# Old probability of the plotted token, for surrogates that measure the change of the probability itself.
OLD_PROBABILITY = 0.2
SHOWN = frozenset({"log_ratio", "old_logprobs", "advantages", "mask", "lengths", "max_tokens"})


def curves(objective: Objective, log_ratios: Tensor, advantage: float) -> tuple[Tensor, Tensor]:
    """Return the loss of a completion of one token, and its gradient with respect to log π.

    Only terms that depend on the log-ratio to the old policy are included: regularizers that need a
    reference, an entropy or the rest of the mini-batch are omitted, and token weights are 1. The token's
    probability under the old policy is ``OLD_PROBABILITY``; few surrogates depend on it.

    Args:
        objective: the composition.
        log_ratios: (X,).
        advantage: A.

    Returns:
        Loss (X,), gradient (X,).
    """
    log_ratio = log_ratios.double()[:, None].requires_grad_()
    available = {
        "log_ratio": log_ratio,
        "old_logprobs": torch.full_like(log_ratio, OLD_PROBABILITY).log(),
        "advantages": torch.full_like(log_ratio, advantage),
        "mask": torch.ones_like(log_ratio, dtype=torch.bool),
        "lengths": torch.ones(len(log_ratios), dtype=torch.float64),
        "max_tokens": 1,
    }
    if objective.surrogate.description.of_groups:
        # What a completion is compared with is known of whole groups alone; it stands where advantages do.
        available["prepared"] = available["advantages"]
    missing = set(objective.surrogate.inputs) - set(available)
    if missing:
        needs = ", ".join(sorted(missing))
        raise UserError(f"{objective.surrogate.where} cannot be plotted: it needs {needs}.")
    result = objective.surrogate(available)
    loss = -(result[0] if isinstance(result, tuple) else result)
    for part in objective.regularizers:
        if set(part.inputs) <= set(available):
            loss = loss + part(available)
    (gradient,) = torch.autograd.grad(loss.sum(), log_ratio)
    return loss.detach()[:, 0], gradient[:, 0]


def omitted_parts(objective: Objective) -> list[str]:
    """Return the names of the parts that a plot cannot show."""
    hidden = [part.name for part in objective.regularizers if not set(part.inputs) <= SHOWN]
    return hidden + [part.name for part in objective.token_weights]


def plot_objectives(path: Path, objectives: Mapping[str, Objective], max_log_ratio: float = 1.5) -> None:
    """Write the plot in the format of the file's suffix.

    Args:
        path: ends in .png, .svg or .pdf.
        objectives: name → composition; drawn in this order.
        max_log_ratio: largest |ℓ|.

    Raises:
        UserError: another suffix, or a folder that does not exist.
    """
    if path.suffix not in FORMATS:
        raise UserError(f"--plot {path}: the file must end in one of {', '.join(FORMATS)}")
    if not path.absolute().parent.is_dir():
        raise UserError(f"--plot {path}: there is no folder {path.absolute().parent}; create it first")
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(10, 7), layout="constrained")
        axes = figure.subplots(2, 2, sharex=True)
        for column, advantage in enumerate((1.0, -1.0)):
            _draw_column(axes[:, column], objectives, advantage, max_log_ratio)
        axes[0, 0].set_ylabel("loss of one token, −S + Ω")
        axes[1, 0].set_ylabel("gradient of the loss, times ∇log π")
        lines, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(lines, names, loc="outside upper center", ncols=min(len(names), 6))
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_column(
    axes: list[Axes], objectives: Mapping[str, Objective], advantage: float, max_log_ratio: float
) -> None:
    """Draw loss above and gradient below, for one sign of the advantage."""
    log_ratios = torch.linspace(-max_log_ratio, max_log_ratio, 601, dtype=torch.float64)
    for index, (name, objective) in enumerate(objectives.items()):
        style: Any = {"color": _COLORS[index % 6], "linestyle": _DASHES[index % 6]}
        for axis, values in zip(axes, curves(objective, log_ratios, advantage), strict=True):
            axis.plot(log_ratios.numpy(), values.numpy(), linewidth=2, label=name, **style)
    title = "A = +1: to be made likelier" if advantage > 0 else "A = −1: to be made less likely"
    axes[0].set_title(title)
    axes[1].set_xlabel("log-ratio ℓ = log π − log π_old")
    for axis in axes:
        axis.axvline(0, color="#888888", linewidth=0.8)
        axis.axhline(0, color="#888888", linewidth=0.8)
        low, high = axis.get_ylim()
        axis.set_ylim(max(low, -Y_LIMIT), min(high, Y_LIMIT))
