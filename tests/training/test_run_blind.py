"""Runs that compare or noise pictures: resumed, on two processes, and refused where they make no sense."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_cpgd.errors import UserError
from tests.fakes import training_runs as trainer_jobs

Rows = Callable[[Path], list[dict[str, Any]]]
PLAIN = ["evaluation.after=false", "data.eval=null"]
MIXES = {
    "fixed": [
        *PLAIN,
        "algorithm.recipe=papo",
        # At the test's 1e-3 ratios reach 12, which enlarges the rounding of sums in another order.
        "training.learning_rate=1e-4",
        "algorithm.token_weights=[{name: vppo_tokens}, {name: vppo_completions}]",
        "algorithm.noisy={steps: 500, middle: 2}",
    ],
    "both": [*PLAIN, "algorithm.recipe=papo_both", "algorithm.blind={picture: shuffle}"],
    "measured": [*PLAIN, "tracking.visual_kl_every=2"],
}


def without_seconds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds/blind"} for row in rows]


@pytest.mark.parametrize("mix", MIXES)
def test_a_resumed_run_is_the_straight_one(mix: str, yaml: Path, tmp_path: Path, read_rows: Rows) -> None:
    options = MIXES[mix]
    trainer_jobs.run(yaml, [*options, f"output={tmp_path / 'one'}"])
    trainer_jobs.run(yaml, [*options, "training.iterations=1"])
    trainer_jobs.run(yaml, options, resume=True)
    rows = without_seconds(read_rows(tmp_path / "one"))
    assert without_seconds(read_rows(tmp_path / "run")) == rows
    measured = [row["policy/visual_kl"] for row in rows if "policy/visual_kl" in row]
    assert len(measured) == (2 if mix == "measured" else 3)
    assert all(value > 0 for value in measured)


@pytest.mark.slow
@pytest.mark.parametrize("mix", MIXES)
def test_two_processes_give_the_results_of_one(mix: str, yaml: Path, tmp_path: Path, read_rows: Rows) -> None:
    trainer_jobs.run(yaml, [*MIXES[mix], f"output={tmp_path / 'one'}"])
    assert trainer_jobs.in_two_processes(yaml, MIXES[mix]) == [0, 0]
    found, expected = (without_seconds(read_rows(tmp_path / name)) for name in ("run", "one"))
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("rollout.completions=3", "take an even number"),
        ("rollout.top_p=0.9", "leave them out"),
        ("rollout.engine=vllm", "use local"),
    ],
)
def test_noised_rollouts_are_refused_by_name(yaml: Path, option: str, words: str) -> None:
    with pytest.raises(UserError, match=r"algorithm\.noisy does not go together with") as raised:
        trainer_jobs.run(yaml, [*PLAIN, "algorithm.recipe=noisyrollout", option])
    assert words in str(raised.value)
