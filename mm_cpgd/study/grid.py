"""What is run: objectives × learning rates × updates a rollout batch × seeds, and the config of each run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mm_cpgd.config.loading import load_config
from mm_cpgd.config.schema import RunConfig
from mm_cpgd.errors import UserError

BASE = Path(__file__).with_name("run.yaml")
# Training rows of seed s are drawn with this plus s; held-out pictures are the same for all runs.
FIRST_ROWS = 10_000
# Seeds that the sizes and rates of the grid were tried out on; they are not among the reported ones.
TRIED_SEEDS = (101, 102, 103)


@dataclass(frozen=True)
class Method:
    """An objective that takes part.

    Attributes:
        name: in files and on the command line.
        label: in tables and pictures.
        recipe: of the algorithm.
        changes: config overrides on top of the recipe.
        note: what the changes are, for the page.
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
        "CPGD's advantage without clip and drift: the common ground of CPG, PGD and CPGD",
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
        "samples up to 3 batches an iteration (its recipe: 10), which the other objectives do not",
    ),
)


def rate_text(rate: float) -> str:
    """Return a learning rate as people write it: ``2e-5``."""
    digits, _, exponent = f"{rate:.6e}".partition("e")
    return f"{float(digits):g}e{int(exponent)}"


@dataclass(frozen=True)
class Stress:
    """How hard a run is pushed.

    Attributes:
        rate: learning rate.
        updates: optimizer steps a rollout batch; √updates passes over √updates mini-batches.
    """

    rate: float
    updates: int

    @property
    def label(self) -> str:
        """For tables."""
        return f"{rate_text(self.rate)} × {self.updates}"


@dataclass(frozen=True)
class Trial:
    """One run."""

    method: str
    stress: Stress
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.method}-lr{rate_text(self.stress.rate)}-u{self.stress.updates}-s{self.seed}"


@dataclass(frozen=True)
class Grid:
    """All runs of a study.

    Attributes:
        methods: names out of ``METHODS``.
        rates: learning rates, ascending.
        updates: optimizer steps a rollout batch, squares.
        seeds: of prompts, their order and the sampled tokens.
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
        """All levels, calm ones first."""
        return [Stress(rate, updates) for updates in self.updates for rate in self.rates]

    def trials(self) -> list[Trial]:
        """All runs, seed after seed: a study that is broken off has whole grids of fewer seeds."""
        return [
            Trial(method, stress, seed)
            for seed in self.seeds
            for stress in reversed(self.stresses)
            for method in self.methods
        ]

    def as_dict(self) -> dict[str, Any]:
        """For ``grid.json``."""
        return asdict(self)


QUICK = Grid(
    methods=("pg", "cpg", "pgd", "cpgd", "grpo", "rloo"),
    rates=(2e-5, 2e-4),
    updates=(4, 16),
    seeds=(1, 2, 3),
    quick=True,
)


def grid_from(values: dict[str, Any]) -> Grid:
    """The inverse of ``Grid.as_dict``, also after JSON."""
    plain: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }
    return Grid(**plain)


def seeds_of(text: str) -> tuple[int, ...]:
    """Return the seeds of ``1,2,7`` or ``1-8``.

    Raises:
        UserError: it is neither, or a seed is one of ``TRIED_SEEDS``.
    """
    try:
        seeds = [seed for part in text.split(",") for seed in _span(part)]
    except ValueError:
        raise UserError(f"--seeds {text!r} is neither of the form 1,2,7 nor 1-8; write one of them") from None
    if tried := sorted(set(seeds) & set(TRIED_SEEDS)):
        raise UserError(f"--seeds: the grid was sized on seed {tried[0]}; report others, for instance 1-5")
    if not seeds:
        raise UserError(f"--seeds {text!r} names no seed; give at least one")
    return tuple(dict.fromkeys(seeds))


def _span(text: str) -> Sequence[int]:
    first, dash, last = text.strip().partition("-")
    return range(int(first), int(last) + 1) if dash else [int(first)]


def method_named(name: str) -> Method:
    """Return the method of this name, which a ``Grid`` holds."""
    return next(method for method in METHODS if method.name == name)


def config_of(trial: Trial, output: Path, changes: Sequence[str] = ()) -> RunConfig:
    """Return the complete config of a run.

    Args:
        trial: the run.
        output: its folder.
        changes: overrides, over all else.

    Raises:
        UserError: a change is not possible.
    """
    method, updates = method_named(trial.method), trial.stress.updates
    passes = round(updates**0.5)
    if passes**2 != updates:
        raise UserError(f"{updates} updates a rollout batch: must be a square, passes × as many mini-batches")
    config = load_config(
        BASE,
        [
            f"algorithm.recipe={method.recipe}",
            *method.changes,
            f"seed={trial.seed}",
            f"data.train.seed={FIRST_ROWS + trial.seed}",
            f"training.learning_rate={trial.stress.rate:g}",
            f"training.inner_epochs={passes}",
            f"output={output}",
            *changes,
        ],
    )
    prompts = config.rollout.prompts
    if prompts % passes:
        raise UserError(f"rollout.prompts={prompts} must be a multiple of the {passes} mini-batches")
    config.training.mini_batch_prompts = prompts // passes
    return config
