"""``mm-cpgd algorithms``: lists, composed formulas, pictures, and a user's mistakes."""

import math

import pytest
import torch
from typer.testing import CliRunner

from mm_cpgd.algorithms.formulas import composed_formula, composition
from mm_cpgd.algorithms.parts import PARTS
from mm_cpgd.algorithms.plot import curves, draw, left_out
from mm_cpgd.cli.algorithms import objective_of
from mm_cpgd.cli.main import app
from mm_cpgd.config.recipes import recipe_names
from mm_cpgd.errors import UserError


@pytest.fixture
def say(monkeypatch):
    monkeypatch.setenv("COLUMNS", "240")

    def run(*arguments):
        result = CliRunner().invoke(app, ["algorithms", *map(str, arguments)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.output

    return run


def test_the_list_names_every_part_and_recipe(say):
    text = say()
    names = [name for kind in PARTS for name in PARTS[kind]] + recipe_names()
    assert [name for name in names if name not in text] == []
    assert "arXiv 2505.12504" in text


def test_show_prints_the_composed_formula_in_numbers(say):
    text = say("show", "cpgd")
    assert "J = Σ w·(S − Ω), the sum" in text
    assert "S = min(ℓ·A, clip(ℓ, ln(1 − 0.2), ln(1 + 0.2))·A)" in text
    assert "Ω = 0.01·(r − 1 − ln r), going on as its tangent beyond r = 1 + 2" in text
    assert "A = ω·(R − mean); ω = 1 / (std + 1e-06)" in text


@pytest.mark.parametrize(
    ("recipe", "formula"),
    [
        ("pg", "J = Σ w·S"),
        ("cpgd_forking", "J = Σ w·(m·S − Ω)"),
        ("cpgd_entropy", "J = Σ w·(S − Ω₁ − Ω₂)"),
        ("clip_cov", "J = Σ w·m·S"),
    ],
)
def test_the_composed_formula_has_a_letter_for_each_part(recipe, formula):
    assert composed_formula(objective_of(recipe)) == formula


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_is_written_out_without_a_hole(recipe):
    text = "\n".join(text for _, text in composition(objective_of(recipe)))
    assert "{" not in text
    assert "source: –" not in text


def test_a_part_is_shown_by_its_kind_and_name(say):
    text = say("show", "surrogate.cpgd")
    assert "epsilon_low (0.2), epsilon_high (0.2), ramp_start (1), ramp_tokens (128)" in text
    assert "Ω = −β·H" in say("show", "entropy_bonus")


def test_a_config_file_is_shown_with_its_own_numbers(say, tmp_path):
    config = tmp_path / "own.yaml"
    config.write_text(
        "policy: {model: embedded:tiny}\ndata: {train: {path: 'generated:clock'}}\n"
        "algorithm: {recipe: cpgd, surrogate: {epsilon_high: 0.35}}\n"
    )
    assert "ln(1 + 0.35)" in say("show", config)


def test_curves_of_cpgd_are_its_closed_form():
    points = torch.tensor([-1.0, 0.0, 0.1, 1.0])
    loss, gradient = curves(objective_of("cpgd"), points, 1.0)
    drift = [0.01 * (math.exp(x) - 1 - x) for x in points.tolist()]
    stopped = [-1.0, 0.0, 0.1, math.log(1.2)]
    assert loss.tolist() == pytest.approx([d - s for d, s in zip(drift, stopped, strict=True)], abs=1e-7)
    slopes = [0.01 * (math.exp(x) - 1) for x in points.tolist()]
    pushed = [1.0, 1.0, 1.0, 0.0]
    assert gradient.tolist() == pytest.approx([d - p for d, p in zip(slopes, pushed, strict=True)], abs=1e-7)


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_can_be_drawn(recipe):
    for advantage in (1.0, -1.0):
        loss, gradient = curves(objective_of(recipe), torch.linspace(-1, 1, 5), advantage)
        assert loss.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_picture_is_written(say, tmp_path, ending):
    file = tmp_path / f"cpgd.{ending}"
    assert f"picture: {file}" in say("show", "cpgd", "--plot", file, "--beside", "grpo")
    start = file.read_bytes()[:200]
    assert start.startswith(b"\x89PNG") if ending == "png" else b"<svg" in file.read_bytes()
    if ending == "svg":
        assert "log-ratio" in file.read_text(encoding="utf-8")
        assert "grpo" in file.read_text(encoding="utf-8")


def test_what_a_picture_cannot_show_is_named(say, tmp_path):
    text = say("show", "cpgd_forking", "--plot", tmp_path / "x.png", "--beside", "kl_cov")
    assert "cpgd_forking is drawn without forking_tokens" in text
    assert "kl_cov is drawn without kl_cov" in text
    assert left_out(objective_of("cpgd_entropy")) == ["entropy_bonus"]


@pytest.mark.parametrize(
    ("file", "says"),
    [("x.jpeg", "must end in one of .png, .svg, .pdf"), ("none/x.png", "there is no folder")],
)
def test_a_picture_that_cannot_be_written_is_a_users_error(tmp_path, file, says):
    with pytest.raises(UserError, match=says):
        draw(tmp_path / file, {"pg": objective_of("pg")})


def test_an_unknown_name_is_an_error_that_names_the_nearest(say):
    with pytest.raises(UserError, match="no recipe 'grop'; the nearest is 'grpo'"):
        say("show", "grop")
