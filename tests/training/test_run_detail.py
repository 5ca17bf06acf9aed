"""The configs of the task ``detail``: cold start and environment agree, and one run follows the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data import Example, load_examples
from mm_cpgd.config.loading import load_config
from mm_cpgd.config.schema import RunConfig
from mm_cpgd.policy import Policy
from mm_cpgd.training.rollouts.build import load_environment
from mm_cpgd.training.rollouts.written import turn_tokens
from rewards import verify
from tests.fakes.training_runs import run

COLD, RUN = load_config("tiny_detail_sft"), load_config("tiny_detail")


def rows(config: RunConfig) -> list[Example]:
    source = config.data.train
    return load_examples(source.path, limit=200, seed=source.seed).examples


def test_the_cold_start_shows_and_says_what_the_run_will() -> None:
    assert COLD.rollout.environment == RUN.rollout.environment
    assert COLD.rollout.max_new_tokens == RUN.rollout.max_new_tokens
    assert COLD.policy.max_pixels == RUN.policy.max_pixels
    assert RUN.policy.model.endswith(f"{COLD.output}/final")
    asked = {row.question.split()[-2] for row in rows(COLD) if row.question.startswith("Which")}
    assert asked == {row.question.split()[-2] for row in rows(RUN)}
    assert not {row.id for row in rows(COLD)} & {row.id for row in rows(RUN)}


def test_the_careful_rows_are_conversations_with_the_runs_environment(tiny_policy: Policy) -> None:
    factory = load_environment(RUN)
    assert factory is not None
    careful = [row for row in rows(COLD) if "turns" in row.meta]
    assert 0.1 * 200 < len(careful) < 0.3 * 200
    for row in careful:
        call, answer = row.meta["turns"]
        environment = factory(0)
        environment.reset(row)
        reply = environment.step(call)
        (crop,) = [image for message in reply.messages for image in message.images]
        assert crop.open().size == (112, 112)
        assert reply.counts["malformed_calls"] == 0
        assert environment.step(answer).done
        assert verify(answer, row.answer).score == 1
        assert (
            max(len(turn_tokens(tiny_policy, turn)) for turn in (call, answer)) <= RUN.rollout.max_new_tokens
        )


def test_the_run_goes_on_from_the_cold_start_with_the_tool_and_without(
    tmp_path: Path, read_rows: Any
) -> None:
    few = ["data.train.limit=16", "sft={steps: 1, batch: 4}", f"output={tmp_path / 'sft'}"]
    run(Path("tiny_detail_sft"), few, imitate=True)
    sizes = ["data.train.limit=4", "data.eval=null", "rollout.prompts=2", "rollout.completions=2"]
    sizes += ["rollout.max_new_tokens=16", "training.iterations=1", "training.mini_batch_prompts=2"]
    for name, environment in (("tool", []), ("none", ["rollout.environment=null"])):
        paths = [f"policy.model={tmp_path / 'sft' / 'final'}", f"output={tmp_path / name}"]
        run(Path("tiny_detail"), [*sizes, *paths, *environment])
        (metrics,) = read_rows(tmp_path / name)
        assert ("conversation/turns" in metrics) is (name == "tool")
