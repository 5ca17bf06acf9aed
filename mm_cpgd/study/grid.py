"""Grid of a study: objectives × learning rates × updates per rollout batch × seeds, and each run's config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mm_cpgd.config.loading import load_config
from mm_cpgd.config.recipes import load_recipe
from mm_cpgd.config.schema import RunConfig
from mm_cpgd.errors import UserError
from mm_cpgd.study.conditions import condition_named

BASE = Path(__file__).with_name("run.yaml")
TRAIN_SEED_OFFSET = 10_000
"""Training rows of seed s are generated with this plus s; held-out rows are the same for all runs."""
PILOT_SEEDS = (101, 102, 103)
"""Seeds on which sizes and rates of the grid were chosen; they are not among the reported ones."""
MAX_ROUNDS = 3
"""Most batches that a recipe with dynamic sampling may sample per iteration."""


@dataclass(frozen=True)
class Method:
    """An objective of the study.

    Attributes:
        name: name in files and on the command line.
        label: name in tables and plots.
        recipe: recipe of the algorithm.
        changes: config overrides on top of the recipe.
        note: description of the changes, for the page.
    """

    name: str
    label: str
    recipe: str
    changes: tuple[str, ...] = ()
    note: str = ""


METHODS = (
    Method("pg", "PG", "pg"),
    Method(
        "pg_std",
        "PG, std weight",
        "pg",
        ("algorithm.advantage={name: cpgd, weight: std}",),
        "is CPGD's advantage without clip and drift, which CPG, PGD and CPGD have in common",
    ),
    Method("cpg", "CPG", "cpg"),
    Method("pgd", "PGD", "pgd"),
    Method("cpgd", "CPGD", "cpgd"),
    Method("cpgd_equal", "CPGD, equal weight", "cpgd_equal"),
    Method("cpgd_clip_filter", "CPGD, clip-filter weight", "cpgd_clip_filter"),
    Method("grpo", "GRPO", "grpo"),
    Method("grpo_dual_clip", "GRPO, dual clip", "grpo_dual_clip"),
    Method("rloo", "RLOO", "rloo"),
    Method("reinforce_pp", "REINFORCE++", "reinforce_pp"),
    Method("dr_grpo", "Dr. GRPO", "dr_grpo"),
    Method(
        "dapo",
        "DAPO",
        "dapo",
        ("algorithm.selection.0.max_rounds=3",),
        "samples up to 3 batches per iteration (its recipe: 10); the other objectives sample one",
    ),
)


def rate_text(rate: float) -> str:
    """Return a learning rate in short form: ``2e-5``."""
    digits, _, exponent = f"{rate:.6e}".partition("e")
    return f"{float(digits):g}e{int(exponent)}"


@dataclass(frozen=True)
class Stress:
    """Level of stress on a run's stability.

    Attributes:
        rate: learning rate.
        updates: optimizer steps per rollout batch: √updates inner epochs over √updates mini-batches.
    """

    rate: float
    updates: int

    @property
    def label(self) -> str:
        """Name in tables."""
        return f"{rate_text(self.rate)} × {self.updates}"


@dataclass(frozen=True)
class Trial:
    """One run of the grid, before it is run.

    Attributes:
        method: name of the objective.
        stress: learning rate and updates.
        seed: seed of prompts, their order and the sampled tokens.
    """

    method: str
    stress: Stress
    seed: int

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.method}-lr{rate_text(self.stress.rate)}-u{self.stress.updates}-s{self.seed}"


@dataclass(frozen=True)
class Grid:
    """All runs of a study.

    Attributes:
        methods: names that ``method_named`` knows.
        rates: learning rates, ascending.
        updates: optimizer steps per rollout batch, squares.
        seeds: seeds of prompts, their order and the sampled tokens.
        changes: config overrides for every run.
        quick: whether this is the small grid.
    """

    methods: tuple[str, ...] = tuple(method.name for method in METHODS)
    rates: tuple[float, ...] = (2e-5, 6e-5, 2e-4, 6e-4)
    updates: tuple[int, ...] = (1, 4, 16)
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    changes: tuple[str, ...] = ()
    quick: bool = False

    @property
    def stresses(self) -> list[Stress]:
        """All levels of stress, the lowest first."""
        return [Stress(rate, updates) for updates in self.updates for rate in self.rates]

    def trials(self) -> list[Trial]:
        """Return all runs, seed by seed: an interrupted study holds complete grids of fewer seeds."""
        return [
            Trial(method, stress, seed)
            for seed in self.seeds
            for stress in reversed(self.stresses)
            for method in self.methods
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the grid as plain data, for ``grid.json``."""
        return asdict(self)


QUICK = Grid(
    methods=("pg", "cpg", "pgd", "cpgd", "grpo", "rloo"),
    rates=(2e-5, 2e-4),
    updates=(4, 16),
    seeds=(1, 2, 3),
    quick=True,
)


def grid_from(values: dict[str, Any]) -> Grid:
    """Return the grid of ``Grid.as_dict``, also after a round trip through JSON."""
    plain: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }
    return Grid(**plain)


def seeds_of(text: str) -> tuple[int, ...]:
    """Parse seeds of the form ``1,2,7`` or ``1-8``.

    Raises:
        UserError: it is neither, or a seed is one of ``PILOT_SEEDS``.
    """
    try:
        seeds = [seed for piece in text.split(",") for seed in _span(piece)]
    except ValueError:
        raise UserError(f"--seeds {text!r} is neither of the form 1,2,7 nor 1-8; use one of them") from None
    if pilot := sorted(set(seeds) & set(PILOT_SEEDS)):
        raise UserError(f"--seeds: the grid was chosen on seed {pilot[0]}; report others, for instance 1-5")
    if not seeds:
        raise UserError(f"--seeds {text!r} names no seed; name at least one")
    return tuple(dict.fromkeys(seeds))


def rates_of(text: str) -> tuple[float, ...]:
    """Parse learning rates of the form ``2e-5,6e-5``; return them ascending.

    Raises:
        UserError: one is not a positive number.
    """
    try:
        rates = sorted({float(piece) for piece in text.split(",")})
    except ValueError:
        rates = [0.0]
    if not 0 < rates[0] <= rates[-1] < float("inf"):
        raise UserError(f"--rates {text!r} is not a list of positive numbers; write them as 2e-5,6e-5")
    return tuple(rates)


def _span(text: str) -> Sequence[int]:
    first, dash, last = text.strip().partition("-")
    return range(int(first), int(last) + 1) if dash else [int(first)]


def method_named(name: str) -> Method:
    """Return the method of this name: one of ``METHODS``, or a recipe; ``recipe@condition`` changes it.

    A recipe's dynamic sampling gets ``MAX_ROUNDS`` batches at most, as DAPO's does.

    Raises:
        UserError: there is no such recipe or condition; the nearest is named.
    """
    base, at, condition = name.partition("@")
    method = next((one for one in METHODS if one.name == base), None) or _of_recipe(base)
    if not at:
        return method
    found = condition_named(condition)
    return Method(name, f"{method.label}, {found.label}", method.recipe, method.changes + found.changes)


def _of_recipe(name: str) -> Method:
    selection = load_recipe(name).get("selection", [])
    changes = tuple(
        f"algorithm.selection.{place}.max_rounds={MAX_ROUNDS}"
        for place, part in enumerate(selection)
        if part.get("max_rounds", 1) > MAX_ROUNDS
    )
    return Method(name, name, name, changes)


def config_of(trial: Trial, output: Path, changes: Sequence[str] = ()) -> RunConfig:
    """Return the complete config of a run.

    Args:
        trial: the run.
        output: its run folder.
        changes: overrides that are applied last.

    Raises:
        UserError: a change is not valid.
    """
    method, updates = method_named(trial.method), trial.stress.updates
    epochs = round(updates**0.5)
    if epochs**2 != updates:
        raise UserError(
            f"{updates} updates per rollout batch: must be a square, inner epochs × as many mini-batches"
        )
    config = load_config(
        BASE,
        [
            f"algorithm.recipe={method.recipe}",
            *method.changes,
            f"seed={trial.seed}",
            f"data.train.seed={TRAIN_SEED_OFFSET + trial.seed}",
            f"training.learning_rate={trial.stress.rate:g}",
            f"training.inner_epochs={epochs}",
            f"output={output}",
            *changes,
        ],
    )
    prompts = config.rollout.prompts
    if prompts % epochs:
        raise UserError(f"rollout.prompts={prompts} must be a multiple of the {epochs} mini-batches")
    config.training.mini_batch_prompts = prompts // epochs
    return config
