"""Rules with the call signatures of TRL and verl; one test trains with the real TRL trainer."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from rewards import Component, RewardSum, RuleError
from rewards.adapters import completion_text, to_trl, to_verl

TAGGED = "<think>2+2</think><answer>4</answer>"


def composed() -> RewardSum:
    return RewardSum([Component("accuracy"), Component("format", 0.5)])


def test_trl_gets_one_score_per_completion_with_the_columns_of_the_data_set() -> None:
    reward = to_trl("accuracy", answer="solution")
    assert reward(prompts=["?"] * 3, completions=["4", "5", "B"], solution=["4", "4", "4"]) == [1.0, 0.0, 0.0]
    with_options = reward(completions=["B", "A"], solution=["yes", "yes"], choices=[["no", "yes"]] * 2)
    assert with_options == [1.0, 0.0]


def test_trl_gets_the_weighted_sum_of_a_composition() -> None:
    assert to_trl(composed())(completions=[TAGGED, "4"], answer=["4", "4"]) == [1.5, 1.0]


def test_trl_gets_none_for_an_unscorable_gold_and_for_a_row_without_one() -> None:
    golds = ["any (not unique)", None, 4]
    assert to_trl("accuracy")(completions=["4", "4", "4"], answer=golds) == [None, None, 1.0]


def test_trl_names_the_reward_after_its_rules() -> None:
    assert to_trl("accuracy").__name__ == "accuracy"
    assert to_trl(composed()).__name__ == "accuracy_and_format"
    assert to_trl(composed(), name="mine").__name__ == "mine"


def test_the_mean_of_each_component_is_logged_to_trl() -> None:
    logged: dict[str, float] = {}
    golds = ["4", "4", "(not unique)"]
    to_trl(composed())(completions=[TAGGED, "5", "4"], answer=golds, log_metric=logged.__setitem__)
    assert logged == {
        "accuracy_and_format/unscored": pytest.approx(1 / 3),
        "accuracy_and_format/accuracy": 0.5,
        "accuracy_and_format/format": pytest.approx(1 / 3),
    }


def test_a_missing_column_of_gold_answers_is_named_with_the_existing_columns() -> None:
    with pytest.raises(RuleError, match=r"no column 'answer' .* it has \['solution'\]; name it"):
        to_trl("accuracy")(completions=["4"], solution=["4"], trainer_state=object())


def test_a_gold_answer_that_is_no_text_is_refused() -> None:
    with pytest.raises(RuleError, match=r"column 'answer' is .* \(list\): .*; a gold answer must be"):
        to_trl("accuracy")(completions=["4"], answer=[["4", "5"]])


def test_options_that_are_one_text_are_refused() -> None:
    with pytest.raises(RuleError, match="options must be a list of texts"):
        to_trl("accuracy")(completions=["4"], answer=["4"], choices=["A. yes B. no"])


def test_an_adapted_reward_can_be_pickled() -> None:
    reward = pickle.loads(pickle.dumps(to_trl(composed(), answer="gold")))
    assert reward(completions=[TAGGED], gold=["4"]) == [1.5]
    assert pickle.loads(pickle.dumps(to_verl(composed())))("k12", TAGGED, "4")["score"] == 1.5


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("4", "4"),
        ([{"role": "assistant", "content": "4"}], "4"),
        (
            [
                {
                    "role": "assistant",
                    "content": [{"type": "text", "text": "4"}, {"type": "text", "text": "2"}],
                }
            ],
            "42",
        ),
        ([{"role": "assistant", "content": "3"}, {"role": "tool", "content": "x"}], "3"),
        ([{"role": "assistant", "content": "3"}, {"role": "assistant", "content": "4"}], "4"),
        ([{"role": "assistant", "reasoning_content": "2+2", "content": "4"}], "<think>2+2</think>4"),
        ([{"role": "assistant", "content": None}], ""),
        ([], ""),
    ],
)
def test_the_completion_is_read_from_texts_and_from_messages(completion: Any, text: str) -> None:
    assert completion_text(completion) == text


def test_verl_gets_a_score_and_each_component_under_the_same_keys_always() -> None:
    compute_score = to_verl(composed())
    right = compute_score(data_source="k12", solution_str=TAGGED, ground_truth="4", extra_info=None)
    assert right == {"accuracy": 1.0, "format": 1.0, "score": 1.5, "scored": 1.0}
    unscorable = compute_score("k12", TAGGED, "(not unique)", {"index": 3}, reward_router_address=None)
    assert unscorable == {"accuracy": 0.0, "format": 1.0, "score": 0.0, "scored": 0.0}
    assert list(unscorable) == list(right)


def test_verl_passes_options_and_all_else_in_extra_info(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def level(completion, example): return example.meta['level']\n")
    assert to_verl("accuracy")("k12", "B", "yes", {"choices": ["no", "yes"]})["score"] == 1.0
    assert to_verl(f"{tmp_path / 'mine.py'}:level")("k12", "x", "y", {"level": 3})["score"] == 3.0


def test_verl_scores_the_unscorable_as_the_caller_requests() -> None:
    assert to_verl("accuracy", unscored=-1.0)("k12", "4", "(not unique)")["score"] == -1.0


def test_options_beside_a_composition_are_refused() -> None:
    with pytest.raises(RuleError, match="options are for a rule given by name"):
        to_trl(composed(), options={"timeout": 1})


@pytest.mark.slow
def test_the_trl_trainer_trains_with_an_adapted_reward(tiny_folder: Path, tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder, padding_side="left")
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=1, **sizes))
    questions = [[{"role": "user", "content": f"What is {n} + {n}?"}] for n in range(4)]
    golds = ["0", "2", None, "(not unique)"]
    chars = tmp_path / "chars.py"
    chars.write_text("def chars(completion, example): return len(completion)\n")
    rewards = RewardSum([Component("accuracy"), Component(f"{chars}:chars", 0.01, name="chars")])
    arguments = GRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=8, num_generations=2, max_completion_length=8,
        max_steps=2, logging_steps=1, report_to=[], use_cpu=True, save_strategy="no", bf16=False,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=model, args=arguments, processing_class=tokenizer, reward_funcs=to_trl(rewards, name="mine"),
        train_dataset=Dataset.from_dict({"prompt": questions, "answer": golds}),
    )  # fmt: skip
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "rewards/mine/mean" in entry]
    assert len(logged) == 2
    # Of four prompts, one has no gold and never reaches the rule; of the other three, one cannot be scored.
    assert all(entry["mine/unscored"] == pytest.approx(1 / 3) for entry in logged)
    assert all(entry["reward"] == pytest.approx(entry["rewards/mine/mean"]) for entry in logged)
    assert all(entry["reward"] > 0 for entry in logged)
