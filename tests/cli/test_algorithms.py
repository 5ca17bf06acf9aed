"""``mm-cpgd algorithms``: lists, composed formulas, plots, and user errors."""

import pytest
from typer.testing import CliRunner

from mm_cpgd.algorithms.parts import PARTS
from mm_cpgd.algorithms.plot import omitted_parts
from mm_cpgd.cli.algorithms import load_objective
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
    assert "Ω = 0.01·(r − 1 − ln r), continued by its tangent beyond r = 1 + 2" in text
    assert "A = ω·(R − mean); ω = 1 / (std + 1e-06)" in text


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


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_plot_is_written(say, tmp_path, ending):
    file = tmp_path / f"cpgd.{ending}"
    assert f"plot: {file}" in say("show", "cpgd", "--plot", file, "--beside", "grpo")
    start = file.read_bytes()[:200]
    assert start.startswith(b"\x89PNG") if ending == "png" else b"<svg" in file.read_bytes()
    if ending == "svg":
        assert "log-ratio" in file.read_text(encoding="utf-8")
        assert "grpo" in file.read_text(encoding="utf-8")


def test_parts_that_a_plot_cannot_show_are_named(say, tmp_path):
    text = say("show", "cpgd_forking", "--plot", tmp_path / "x.png", "--beside", "kl_cov")
    assert "cpgd_forking is plotted without forking_tokens" in text
    assert "kl_cov is plotted without kl_cov" in text
    assert omitted_parts(load_objective("cpgd_entropy")) == ["entropy_bonus"]


def test_an_unknown_name_is_an_error_that_names_the_nearest(say):
    with pytest.raises(UserError, match="no recipe 'grop'; the nearest is 'grpo'"):
        say("show", "grop")
