"""Runs whose parts use the extension points: resumed, and on two processes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_cpgd.checkpoint.serialization import load_state
from mm_cpgd.training.learner import Learner
from tests.fakes import training_runs as trainer_jobs

Rows = Callable[[Path], list[dict[str, Any]]]
QUIET = ["evaluation.after=false", "data.eval=null"]
TOKENS = [
    "algorithm.advantage={name: examples/parts/shortest_first.py:shortest_first}",
    "algorithm.completions=[{name: drop_truncated}]",
    "algorithm.token_advantages=[{name: entropy_shaped}, {name: conflict_tokens},"
    " {name: examples/parts/late_tokens.py:late_tokens}]",
    "algorithm.regularizers=[{name: policy_drift, alpha: {from: 0.1, to: 0.001, shape: cosine}}]",
    *QUIET,
]
# An untrained policy's steps differ by 0.02 nats, of which rounding is 1e-4, so that two processes differ by
# 2e-5 in the largest ratio. tests/algorithms/methods/test_steps.py bounds what rounding of entropies does.
STEPS = ["algorithm.recipe=empg", "training.learning_rate=1e-4", *QUIET]
TARGETS = [
    "algorithm.recipe=f_dpg",
    "algorithm.token_advantages=[{name: f_divergence, target: tilted, beta: 0.5}]",
    *QUIET,
]
# The default rules give up to 1.5.
MEMORY = ["algorithm.recipe=spo", "rollout.completions=1", *QUIET]
AVERAGE = ["algorithm.advantage={name: examples/parts/row_average.py:row_average, keep: 0.5}", *QUIET]
GROUPS = ["algorithm.recipe=copg", *QUIET]
IMPACT = ["algorithm.recipe=d3s", *QUIET]
AGREEMENT = ["algorithm.recipe=copo", *QUIET]
BUNDLES = ["algorithm.recipe=riskpo", "algorithm.advantage={name: riskpo, bundle: 2}", *QUIET]
# Accuracies of the default rule are shares of vowels; answers are short enough to be solutions.
TAUGHT = [
    "algorithm.recipe=hpt",
    "algorithm.demonstrations={gamma: 0.1, coefficient: {from: 1.0, to: 0.5}}",
    "sft.target_template=<{answer}>",
    *QUIET,
]
FRONT = ["algorithm.recipe=drw_hypervolume", *QUIET]
INFLUENCE = [
    "algorithm.recipe=drw_influence",
    "algorithm.reward_weights={name: advantage_influence, step: 2.0, every: 2}",
    *QUIET,
]
BUDGET = ["algorithm.recipe=knapsack", "data.train.limit=6", *QUIET]
# Of two and more successes at most two are replayed, from the second iteration on.
REPLAY = [
    "algorithm.recipe=spear",
    "algorithm.replay={credit: {name: spear, size: 2, fill: 0.5}, weight: {from: 0.5, to: 1.0}}",
    *QUIET,
]
# Half of the texts are right; the untrained policy's entropy is above 5 nats.
TEMPERED = [
    "algorithm.recipe=aepo",
    "algorithm.tempered={share: 0.5, temperature: {name: aepo, target: 5.0, most: 0.25}}",
    "rewards=[{rule: 'FOLDER/rules.py:odd'}]",
    *QUIET,
]
# Parts of one's own.
OWN = [
    "algorithm.replay={credit: {name: examples/parts/rare_rows.py:rare_rows, count: 3}}",
    "algorithm.tempered={temperature: {name: examples/parts/warm_start.py:warm_start}, share: 0.5}",
    *TEMPERED[2:],
]
CASES = {
    "replay": REPLAY,
    "tempered": TEMPERED,
    "both": OWN,
    "budget": BUDGET,
    "taught": TAUGHT,
    "front": FRONT,
    "influence": INFLUENCE,
    "impact": IMPACT,
    "agreement": AGREEMENT,
    "bundles": BUNDLES,
    "groups": GROUPS,
    "tokens": TOKENS,
    "targets": TARGETS,
    "memory": MEMORY,
    "average": AVERAGE,
}


def state(run: Path, iteration: int) -> dict[str, Any]:
    found: dict[str, Any] = load_state(run / "checkpoints" / f"step-{iteration}" / "run.safetensors")
    objective: dict[str, Any] = found["shared"]["objective"]
    return objective


def settings_of(case: list[str], folder: Path) -> list[str]:
    return [one.replace("FOLDER", str(folder)) for one in case]


@pytest.mark.parametrize("case", [*CASES, "steps"])
def test_a_resumed_run_gives_the_numbers_of_an_uninterrupted_one(
    yaml: Path, tmp_path: Path, read_rows: Rows, case: str
) -> None:
    settings = [
        *settings_of({**CASES, "steps": STEPS}[case], tmp_path),
        "checkpoint.every=1",
        "checkpoint.keep=9",
    ]
    trainer_jobs.run(yaml, [*settings, f"output={tmp_path / 'one'}"])
    rows = read_rows(tmp_path / "one")
    assert any(row.get("optimizer/grad_norm", 0) > 0 for row in rows)
    shutil.copytree(tmp_path / "one", tmp_path / "run")
    for later in (2, 3):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step-{later}")
    trainer_jobs.run(yaml, settings, resume=True)
    assert read_rows(tmp_path / "run") == rows
    kept, expected = (state(tmp_path / name, 3) for name in ("run", "one"))
    assert repr(kept) == repr(expected)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_results_of_one(
    yaml: Path, tmp_path: Path, read_rows: Rows, case: str
) -> None:
    settings = settings_of(CASES[case], tmp_path)
    trainer_jobs.run(yaml, [*settings, f"output={tmp_path / 'one'}"])
    assert trainer_jobs.in_two_processes(yaml, settings) == [0, 0]
    for found, expected in zip(read_rows(tmp_path / "run"), read_rows(tmp_path / "one"), strict=True):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(("case", "number"), [("replay", "replay/rows"), ("tempered", "tempered/imitated")])
def test_rows_from_elsewhere_are_learned_from(
    yaml: Path, tmp_path: Path, read_rows: Rows, case: str, number: str
) -> None:
    trainer_jobs.run(yaml, settings_of(CASES[case], tmp_path))
    rows = read_rows(tmp_path / "run")
    assert max(row[number] for row in rows) >= 2
    assert all(row[f"{case}/loss"] != 0 for row in rows if row[number])


@pytest.mark.parametrize(
    ("case", "off"), [("replay", "algorithm.replay.weight=0"), ("tempered", "algorithm.tempered.weight=0")]
)
def test_with_a_weight_of_zero_nothing_is_changed_to_the_last_digit(
    yaml: Path, tmp_path: Path, read_rows: Rows, case: str, off: str
) -> None:
    settings = settings_of(CASES[case], tmp_path)
    trainer_jobs.run(yaml, [*settings, off, f"output={tmp_path / 'off'}"])
    trainer_jobs.run(yaml, [*settings, f"algorithm.{case}=null"])
    found = [
        {name: value for name, value in row.items() if not name.startswith(case)}
        for row in read_rows(tmp_path / "off")
    ]
    assert found == read_rows(tmp_path / "run")


def test_groups_known_at_the_old_policy_are_not_evaluated_again(
    yaml: Path, tmp_path: Path, read_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*GROUPS, "algorithm.token_weights=[{name: forking_tokens, share: 0.5}]"]
    evaluate, prepare_step, passes = Learner._evaluate, Learner.prepare_step, [0]

    def counted(learner: Learner, *arguments: Any) -> Any:
        passes[-1] += 1
        return evaluate(learner, *arguments)

    def without_known(learner: Learner, experience: Any, mini_batch: int, iteration: int, _: Any) -> None:
        prepare_step(learner, experience, mini_batch, iteration)

    monkeypatch.setattr(Learner, "_evaluate", counted)
    trainer_jobs.run(yaml, settings)
    passes.append(0)
    monkeypatch.setattr(Learner, "prepare_step", without_known)
    trainer_jobs.run(yaml, [*settings, f"output={tmp_path / 'again'}"])
    assert read_rows(tmp_path / "run") == read_rows(tmp_path / "again")
    # One in each of three iterations.
    assert passes[1] - passes[0] == 3
