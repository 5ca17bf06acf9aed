"""Gates of an environment's scores, checked before anything is loaded."""

from __future__ import annotations

import pytest

from mm_cpgd.config.loading import load_config
from mm_cpgd.errors import UserError
from mm_cpgd.training.setup import build_run_objective, check_sampling

CHOSEN = [
    "rollout.environment.name=tools",
    "rollout.environment.options={tools: [zoom], scores: {crop_iou: {}}}",
    "rollout.environment.scores={crop_iou: 0.5}",
    "rollout.environment.gates={crop_iou: accuracy}",
]


def check(*overrides: str) -> None:
    config = load_config("quickstart", [*CHOSEN, *overrides])
    check_sampling(config, build_run_objective(config))


def test_a_rule_may_gate_a_score_of_the_environment() -> None:
    check()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("rollout.environment.gates={crop_iou: acuracy}", "did you mean 'accuracy'"),
        ("rollout.environment.gates={crop: accuracy}", "did you mean 'crop_iou'"),
        ("rollout.environment.returns=by_turn", "set returns=outcome"),
    ],
)
def test_a_gate_that_could_not_work_is_refused(override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check(override)
