"""Shipped configs for published data: a file in the published layout is planned, played and trained on.

The rows are invented; the columns are those of the code that the configs cite.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from rich.console import Console

from data import load_examples
from mm_cpgd.config.loading import load_config
from mm_cpgd.config.schema import RunConfig
from mm_cpgd.environments.call_formats import write_call
from mm_cpgd.preflight.plan import print_plan
from mm_cpgd.training.rollouts.build import load_environment
from mm_cpgd.training.setup import build_rewards
from rewards import Verdict

Rows = Callable[[Path], list[dict[str, Any]]]
SIZE = (400, 200)
# Of the red square, as fractions: pixels 100 to 140 and 50 to 70.
BOX = [0.25, 0.25, 0.35, 0.35]
TOOL = "You may call image_zoom_in_tool with bbox_2d."
INSTRUCTION = "\nThink first, call **image_zoom_in_tool** if needed, then answer."


def picture(kind: str = "PNG") -> bytes:
    image = Image.new("RGB", SIZE, "white")
    ImageDraw.Draw(image).rectangle((100, 50, 139, 69), fill="red")
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def write_parquet(file: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file)


def deepeyes(folder: Path) -> Path:
    rows = [
        {
            "data_source": "vstar",
            "prompt": [
                {"role": "system", "content": TOOL},
                {"role": "user", "content": f"<image>\nWhat colour has square {number}?{INSTRUCTION}"},
            ],
            "images": [{"bytes": picture("JPEG"), "path": None}],
            "ability": "vl_agent",
            "env_name": "visual_toolbox_v2",
            "reward_model": {"ground_truth": "red", "style": "model"},
            "extra_info": {"answer": "red", "index": 0, "question": "What colour?", "split": "train"},
        }
        for number in range(12)
    ]
    write_parquet(folder / "rows.parquet", rows)
    return folder / "rows.parquet"


def chain_of_focus(folder: Path) -> Path:
    (folder / "images").mkdir(parents=True)
    (folder / "images/a.png").write_bytes(picture())
    rows = [
        {
            "question": f"What colour has square {number}?",
            "groundtruth": "red",
            "image_name": "a.png",
            "data_source": "rl_multiresolution",
        }
        for number in range(12)
    ]
    (folder / "train.json").write_text(json.dumps(rows))
    return folder / "train.json"


def gui_grounding(folder: Path) -> Path:
    rows = [
        {
            "id": f"web_{number}",
            "image": {"bytes": picture(), "path": "a.png"},
            "instruction": f"open square {number}",
            "gt_bbox": BOX,
            "gt_action": "click",
            "gt_input_text": "no input text",
            "history": "None",
            "task_type": "low",
        }
        for number in range(12)
    ]
    write_parquet(folder / "train.parquet", rows)
    return folder / "train.parquet"


def screenspot(folder: Path) -> Path:
    rows = [
        {
            "file_name": "web_a.png",
            "bbox": BOX,
            "instruction": f"open square {number}",
            "data_type": "icon",
            "data_source": "gitlab",
            "image": {"bytes": picture(), "path": "web_a.png"},
        }
        for number in range(12)
    ]
    write_parquet(folder / "test.parquet", rows)
    return folder / "test.parquet"


Written = Mapping[str, Callable[[Path], Path]]
TRAIN: Written = {"deepeyes": deepeyes, "chain_of_focus": chain_of_focus, "gui_grounding": gui_grounding}
EVAL: Written = {**TRAIN, "gui_grounding": screenspot}


def overrides(name: str, folder: Path, *more: str) -> list[str]:
    train = TRAIN[name](folder / "train")
    held_out = EVAL[name](folder / "eval")
    return [
        *(f"data.train.path={train}", "data.train.offset=0", f"data.eval.path={held_out}"),
        *("data.eval.split=null", "data.eval.limit=2", *more),
    ]


def example_of(config: RunConfig, source: str = "train") -> Any:
    chosen = getattr(config.data, source)
    return load_examples(chosen.path, columns=chosen.columns, max_bad_share=0).examples[0]


@pytest.mark.parametrize("name", TRAIN)
def test_a_file_in_the_published_layout_is_planned(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    config = load_config(name, overrides(name, tmp_path, f"policy.model={tiny_folder}"))
    stream = io.StringIO()
    print_plan(config, Console(file=stream, width=200), with_processor=True)
    assert "12 used, 0 unusable, 12 in all" in stream.getvalue()
    assert "2 used, 0 unusable, 2 in all" in stream.getvalue()


def turns_of(name: str, answer: str) -> list[str]:
    box = {"deepeyes": "bbox_2d", "chain_of_focus": "bbox_2d", "gui_grounding": "box"}[name]
    tool = "zoom" if name == "gui_grounding" else "image_zoom_in_tool"
    look = f"<think>It is small.</think>{write_call(tool, {box: [100, 50, 140, 70]})}"
    return [look, f"<think>Now I see it.</think><answer>{answer}</answer>"]


def reward_of(config: RunConfig, turns: list[str], source: str = "train") -> tuple[float, dict[str, float]]:
    """Return the reward of a conversation, rules and environment, and the environment's scores."""
    chosen, factory = config.rollout.environment, load_environment(config)
    assert chosen is not None
    assert factory is not None
    example, made = example_of(config, source), factory(0)
    made.reset(example)
    seen: dict[str, float] = {}
    for turn in turns:
        for score, given in made.step(turn).scores.items():
            value = given.score if isinstance(given, Verdict) else given
            assert value is not None
            seen[score] = seen.get(score, 0.0) + value
    total = build_rewards(config).score_one(turns[-1], example).total
    assert total is not None
    return total + sum(weight * seen.get(score, 0.0) for score, weight in chosen.scores.items()), seen


@pytest.mark.parametrize(
    ("answer", "look", "reward"),
    [("red", True, 0.8 + 0.2 + 1.2), ("red", False, 0.8 + 0.2), ("blue", True, 0.2), ("blue", False, 0.2)],
)
def test_deepeyes_pays_for_a_look_only_if_the_answer_is_right(
    answer: str, look: bool, reward: float, tmp_path: Path
) -> None:
    config = load_config("deepeyes", overrides("deepeyes", tmp_path))
    turns = turns_of("deepeyes", answer)
    assert reward_of(config, turns if look else turns[1:])[0] == pytest.approx(reward)


def test_deepeyes_keeps_the_description_of_the_tool_that_the_row_has(tmp_path: Path) -> None:
    config = load_config("deepeyes", overrides("deepeyes", tmp_path))
    factory = load_environment(config)
    assert factory is not None
    made = factory(0)
    system, user = made.reset(example_of(config))
    assert system.text == TOOL
    assert user.text.endswith(INSTRUCTION)
    assert len(user.images) == 1
    reply = made.step(turns_of("deepeyes", "red")[0])
    (message,) = reply.messages
    assert message.role == "user"
    assert "<tool_response>" in message.text
    # The crop is red alone: coordinates are those of the picture as the model sees it, 392 × 196 pixels.
    assert message.images[0].open().resize((1, 1)).getpixel((0, 0))[1] < 60


@pytest.mark.parametrize(("answer", "reward"), [("red", 1.0), ("blue", 0.1)])
def test_chain_of_focus_pays_for_answer_and_form_alone(answer: str, reward: float, tmp_path: Path) -> None:
    config = load_config("chain_of_focus", overrides("chain_of_focus", tmp_path))
    turns = turns_of("chain_of_focus", answer)
    for played in (turns, turns[1:]):
        assert reward_of(config, played)[0] == pytest.approx(reward)


def test_chain_of_focus_describes_the_tool_after_the_policys_system_prompt(tmp_path: Path) -> None:
    config = load_config("chain_of_focus", overrides("chain_of_focus", tmp_path))
    factory = load_environment(config)
    assert factory is not None
    system, _ = factory(0).reset(example_of(config))
    assert system.text.startswith("Think first")
    assert '"image_zoom_in_tool"' in system.text


@pytest.mark.parametrize("source", ["train", "eval"])
@pytest.mark.parametrize(
    ("point", "reward"), [("[118, 59]", 1.0), ("[150, 59]", 0.2), ("[0.3, 0.3]", 0.2), ("here", 0.2)]
)
def test_gui_grounding_pays_for_a_point_in_the_element(
    source: str, point: str, reward: float, tmp_path: Path
) -> None:
    config = load_config("gui_grounding", overrides("gui_grounding", tmp_path))
    look, answer = turns_of("gui_grounding", point)
    assert reward_of(config, [look, answer], source)[0] == pytest.approx(reward)
    # The third look is the first that costs.
    total, seen = reward_of(config, [look, look, look, answer], source)
    assert total == pytest.approx(reward - 0.05)
    assert (seen["call_cost"], seen["answered"]) == (-1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAIN)
def test_a_step_is_trained_through_the_shipped_config(
    name: str, wordy_folder: Path, tmp_path: Path, on_cpu: None, read_rows: Rows
) -> None:
    from mm_cpgd.training.run import train

    small = [
        *(f"policy.model={wordy_folder}", "policy.dtype=float32", f"output={tmp_path}/run"),
        *("policy.max_pixels=12544", "policy.gradient_checkpointing=false", "policy.lora=null"),
        *("rollout.prompts=2", "rollout.completions=2", "rollout.max_new_tokens=8"),
        *("training.iterations=1", "training.mini_batch_prompts=2", "training.threads=1"),
        *("training.mixed_precision=no", "distributed.strategy=auto", "algorithm.selection=[]"),
    ]
    config = load_config(name, overrides(name, tmp_path, *small))
    train(config)
    before, step, *_ = read_rows(tmp_path / "run")
    assert 1 <= step["conversation/turns"] <= 4
    assert step["conversation/failed"] == step["reward/unscored"] == step["optimizer/skipped"] == 0
    assert before["eval/turns"] >= 1
