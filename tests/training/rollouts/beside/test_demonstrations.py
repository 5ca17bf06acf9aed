"""Solutions of rows in the experience: which, where, with what weights, and the gradient that follows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate import Accelerator as RealAccelerator
from torch import Tensor

from data import Example, PromptSampler
from data.generated import generate
from mm_cpgd.algorithms.composition import build_objective
from mm_cpgd.checkpoint.serialization import load_state, save_state
from mm_cpgd.config.loading import load_config
from mm_cpgd.config.recipes import load_recipe
from mm_cpgd.config.rollout import RolloutConfig
from mm_cpgd.config.schema import AlgorithmConfig, PartConfig, SftConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import Policy
from mm_cpgd.training.collector import Collector
from mm_cpgd.training.experience import Experience
from mm_cpgd.training.rollouts.beside.demonstrations import (
    Demonstrations,
    build_demonstrations,
    demonstration_source,
)
from mm_cpgd.training.sft import SftSource
from rewards import RewardSum
from tests.fakes.collecting import Accelerator, Engine, collector, drawn, in_turn, together
from tests.fakes.learning import assert_same, learner

HPT = PartConfig(name="hpt")
SCRIPT = ("0 0", "0 1", "0 0", "1 1")


class Letters:
    """A tokenizer whose tokens are letters."""

    eos_token_id = 99

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": list(text.encode())}


def teaching(
    *script: str,
    part: PartConfig = HPT,
    solutions: dict[int, str | None] | None = None,
    process: Accelerator | None = None,
    **options: Any,
) -> Collector:
    """A collector whose row i has the solution of its own number, or another one by the order of drawing."""
    made = collector(in_turn(*script), process=process, demonstrations=part, **options)
    texts = {i: f"s{i}" for i in range(100)} | {drawn(4)[k]: text for k, text in (solutions or {}).items()}
    made.examples = [Example(str(i), "?", "0", solution=texts[i]) for i in range(100)]
    policy: Any = SimpleNamespace(tokenizer=Letters())
    made.demonstrations = Demonstrations(made.objective, policy, made.examples, "{solution}", 8)
    return made


def texts(experience: Experience) -> list[str]:
    """The solutions among the rows, as text, without their end tokens."""
    assert experience.source is not None
    rows = (experience.source == 1).nonzero().squeeze(1).tolist()
    return [bytes(experience.tokens[row][experience.mask[row]].tolist()[:-1]).decode() for row in rows]


def test_a_prompt_that_is_never_solved_learns_its_solution_in_place_of_its_rollouts() -> None:
    found = teaching(*SCRIPT, mini_batch_prompts=3).collect(1)
    experience, order = found.experience, drawn(4)
    assert experience.source is not None
    assert texts(experience) == [f"s{order[0]}", f"s{order[2]}"]
    assert experience.source.tolist() == [1, 0, 0, 1, 0, 0]
    assert experience.advantages.tolist() == [1, -0.5, 0.5, 1, 0, 0]
    assert [part.tolist() for part in experience.lengths] == [[1, 2], [1, 2]]
    taught = [len(f"s{order[k]}") + 1 for k in (0, 2)]
    assert [[part.tolist() for part in own] for own in experience.other_lengths] == [[taught], [[]]]
    assert experience.mini_batch.tolist() == [0, 0, 0, 0, 1, 1]
    assert found.metrics["demonstrations/taught"] == 0.5
    logged = [[one.advantage for one in prompt.completions] for prompt in found.rollouts]
    assert logged == [[None, None], [-0.5, 0.5], [None, None], [0, 0]]


def test_rows_without_a_solution_or_with_a_long_one_learn_from_their_rollouts() -> None:
    found = teaching(*SCRIPT, solutions={0: " ", 2: "12345678"}).collect(1)
    assert found.experience.source is None
    assert (found.experience.other_lengths, found.experience.given_logprobs) == ([[]], None)
    assert found.experience.advantages.tolist() == [0, 0, -0.5, 0.5, 0, 0, 0, 0]
    assert found.metrics["demonstrations/teachable"] == 0.5


def test_where_nothing_could_be_scored_nothing_is_taught() -> None:
    experience = teaching("? ?", "0 ?", "0 1", "1 1").collect(1).experience
    assert texts(experience) == [f"s{drawn(4)[1]}"]
    assert experience.examples == drawn(4)[1:]


def test_weights_multiply_the_advantages_of_both() -> None:
    both = PartConfig(name="always", rollouts=0.5, coefficient=0.25)
    experience = teaching(*SCRIPT, part=both).collect(1).experience
    assert experience.advantages.tolist() == [0, 0, 0.25, -0.25, 0.25, 0.25, 0, 0, 0.25, 0, 0, 0.25]
    assert experience.facts is not None
    assert experience.facts["completion_of"].tolist() == [0, 1, 2] * 4
    assert experience.facts["rewards"][2::3].isnan().all()


def test_statistics_over_the_batch_are_of_what_learns_by_reward() -> None:
    whitened = PartConfig(name="reinforce_pp", baseline="none")
    found = teaching("0 0", "0 1", "0 0", "0 0", advantage=whitened).collect(1)
    assert found.experience.source is not None
    own = found.experience.advantages[found.experience.source == 0]
    assert own.tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5], rel=1e-5)


def test_a_threshold_below_zero_gives_the_experience_of_the_rollouts_alone() -> None:
    found = teaching(*SCRIPT, part=PartConfig(name="hpt", gamma=-1.0)).collect(1)
    alone = collector(in_turn(*SCRIPT)).collect(1)
    expected = alone.experience.state()
    for name, value in found.experience.state().items():
        assert str(value) == str(expected[name]), name


@pytest.mark.parametrize("workers", [2, 4])
def test_several_processes_hold_together_what_one_holds(workers: int) -> None:
    whole = teaching(*SCRIPT, mini_batch_prompts=2).collect(2)
    parts = together(lambda one: teaching(*SCRIPT, process=one, mini_batch_prompts=2), workers)
    for part in parts:
        assert str(part.experience.lengths) == str(whole.experience.lengths)
        assert str(part.experience.other_lengths) == str(whole.experience.other_lengths)
        assert part.experience.source is not None
        assert {k: v for k, v in part.metrics.items() if not k.startswith("seconds/")} == {
            k: v for k, v in whole.metrics.items() if not k.startswith("seconds/")
        }
    assert sorted(text for part in parts for text in texts(part.experience)) == sorted(
        texts(whole.experience)
    )


def test_a_checkpoint_keeps_which_rows_are_solutions(tmp_path: Path) -> None:
    experience = teaching(*SCRIPT).collect(1).experience
    save_state(tmp_path / "state.safetensors", experience.state())
    back = Experience.from_state(load_state(tmp_path / "state.safetensors"), experience.prompts)
    assert str(vars(back)) == str(vars(experience))


def test_a_run_whose_rows_have_no_solutions_is_refused(policy: Policy) -> None:
    config = load_config("quickstart", ["algorithm.recipe=hpt"])
    objective = build_objective(config.algorithm, completions=8, max_new_tokens=48)
    with pytest.raises(UserError, match=r"demonstrations: hpt teaches solutions, .*data\.train\.columns"):
        build_demonstrations(config, objective, policy, [Example("0", "?", "0")])
    plain = build_objective(AlgorithmConfig(**load_recipe("grpo")), completions=8, max_new_tokens=48)
    assert build_demonstrations(config, plain, policy, []) is None


@pytest.mark.parametrize("coefficient", [1.0, 0.3])
def test_with_everything_taught_the_gradient_is_that_of_sft_on_the_same_rows(
    policy: Policy, coefficient: float
) -> None:
    examples = generate(("shapes", "clock", "table"), 9, seed=5)
    accelerator: Any = RealAccelerator(cpu=True)
    part = PartConfig(name="hpt", gamma=1.0, coefficient=coefficient)
    algorithm = AlgorithmConfig(**{**load_recipe("hpt"), "demonstrations": part})
    objective = build_objective(algorithm, completions=2, max_new_tokens=100)
    engine: Any = Engine(lambda _: ["0", "1"])
    collecting = Collector(
        RolloutConfig(prompts=6, completions=2, max_new_tokens=100),
        accelerator,
        policy,
        engine,
        RewardSum([("collection_test_number", 1.0, {})]),
        objective,
        examples,
        PromptSampler(9, 0),
        mini_batch_prompts=6,
        seed=7,
        demonstrations=Demonstrations(objective, policy, examples, "{solution}", 100),
    )
    source = SftSource(SftConfig(batch=6), accelerator, policy, examples, PromptSampler(9, 0))
    taught, _ = one_step(policy, collecting.collect(1).experience)
    expected, metrics = one_step(policy, source.collect(1).experience)
    assert_same(taught, {name: coefficient * value for name, value in expected.items()})
    assert metrics["objective/loss"] > 1


def one_step(policy: Policy, experience: Experience) -> tuple[dict[str, Tensor], dict[str, float]]:
    made, recorder = learner(policy, "pg", tokens=500)
    made.sources = [demonstration_source(100)]
    (metrics,) = made.update(experience, 1)
    return recorder.steps[0], metrics
