"""Curves of loss and gradient, and the files that a plot can be written to."""

import math

import pytest
import torch

from mm_cpgd.algorithms.plot import curves, plot_objectives
from mm_cpgd.cli.algorithms import load_objective
from mm_cpgd.config.recipes import recipe_names
from mm_cpgd.errors import UserError


def test_curves_of_cpgd_are_its_closed_form():
    points = torch.tensor([-1.0, 0.0, 0.1, 1.0])
    loss, gradient = curves(load_objective("cpgd"), points, 1.0)
    drift = [0.01 * (math.exp(x) - 1 - x) for x in points.tolist()]
    stopped = [-1.0, 0.0, 0.1, math.log(1.2)]
    assert loss.tolist() == pytest.approx([d - s for d, s in zip(drift, stopped, strict=True)], abs=1e-7)
    slopes = [0.01 * (math.exp(x) - 1) for x in points.tolist()]
    pushed = [1.0, 1.0, 1.0, 0.0]
    assert gradient.tolist() == pytest.approx([d - p for d, p in zip(slopes, pushed, strict=True)], abs=1e-7)


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_can_be_plotted(recipe):
    for advantage in (1.0, -1.0):
        loss, gradient = curves(load_objective(recipe), torch.linspace(-1, 1, 5), advantage)
        assert loss.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("file", "reason"),
    [("x.jpeg", "must end in one of .png, .svg, .pdf"), ("none/x.png", "there is no folder")],
)
def test_a_plot_that_cannot_be_written_is_a_user_error(tmp_path, file, reason):
    with pytest.raises(UserError, match=reason):
        plot_objectives(tmp_path / file, {"pg": load_objective("pg")})
