"""Environments of this project in TRL's form: the schema that it makes, and a step of its trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import get_json_schema

from data.generated import generate
from mm_cpgd.environments import PlainEnvironment, ToolEnvironment
from mm_cpgd.environments.adapters.from_trl import TrlEnvironment
from mm_cpgd.environments.adapters.to_trl import to_trl
from mm_cpgd.environments.call_formats import write_call
from mm_cpgd.environments.tools import TOOLS
from mm_cpgd.errors import UserError
from mm_cpgd.policy.model import EMBEDDED

OPTIONS = {"tools": list(TOOLS), "image_pixels": 12_544, "scores": {"crop_iou": {}, "call_cost": {}}}
WEIGHTS = {"crop_iou": 1.0, "call_cost": 0.1}


def row() -> dict[str, Any]:
    example = generate(("detail",), 1, seed=4)[0]
    image = example.images[0].open()
    box = [1000 * edge / 896 for edge in example.meta["box"]]
    prompt = [{"role": "user", "content": example.question}]
    return {"prompt": prompt, "images": [image], "answer": example.answer, "asked": box, **example.meta}


def types_of(schema: dict[str, Any]) -> set[str]:
    """The JSON types that an argument may have; ``nullable`` is another way to allow null."""
    found = {one["type"] for one in schema.get("anyOf", [schema])}
    return found | {"null"} if schema.get("nullable") else found


@pytest.mark.parametrize("name", TOOLS)
def test_the_schema_that_trl_makes_is_the_tools_own(name: str) -> None:
    made = to_trl("tools", OPTIONS)()
    theirs = get_json_schema(getattr(made, name))["function"]
    view = ToolEnvironment(0, ["zoom"]).view
    ours = TOOLS[name].schema(view)["function"]
    assert (theirs["name"], theirs["description"]) == (name, ours["description"])
    assert set(theirs["parameters"]["properties"]) == set(ours["parameters"]["properties"])
    assert theirs["parameters"].get("required", []) == ours["parameters"]["required"]
    for key, schema in theirs["parameters"]["properties"].items():
        assert types_of(schema) == types_of(ours["parameters"]["properties"][key])
        assert schema["description"] == ours["parameters"]["properties"][key]["description"]


def test_calls_are_run_checked_and_scored() -> None:
    made = to_trl("tools", OPTIONS, weights=WEIGHTS)()
    columns = row()
    made.reset(**columns)
    label, block = made.zoom(box=columns["asked"])
    assert label == {"type": "text", "text": "Image 2: "}
    assert block["image"].size == (112, 112)
    assert made.get_reward() == pytest.approx(1 - 0.1)
    assert made.calculator(expression="2+2") == "4"
    assert made.zoom(box=[1, 2]).startswith("Error: zoom: argument 'box'")
    assert made.get_reward() == pytest.approx(1 - 0.3)
    made.reset(**columns)
    assert made.get_reward() == 0
    assert not hasattr(to_trl("tools", OPTIONS)(), "get_reward")


def test_there_and_back_again_the_conversation_is_the_same() -> None:
    example = generate(("detail",), 1, seed=4)[0]
    box = [1000 * edge / 896 for edge in example.meta["box"]]
    turns = [write_call("zoom", {"box": box}), write_call("calculator", {"expression": "1/4"})]
    back = TrlEnvironment(0, to_trl("tools", OPTIONS, weights=WEIGHTS), image_pixels=12_544)
    ours = ToolEnvironment(0, **OPTIONS)
    assert back.reset(example)[-1] == ours.reset(example)[-1]
    for turn in turns:
        theirs, own = back.step(turn), ours.step(turn)
        assert [one.text for one in theirs.messages][-1].endswith([one.text for one in own.messages][-1])
        pixels = [[image.open().tobytes() for image in one.messages[0].images] for one in (theirs, own)]
        assert pixels[0] == pixels[1]
    assert back.step("done").scores["reward"] == pytest.approx(1 - 0.2)


def test_only_tools_can_be_given_to_trl() -> None:
    with pytest.raises(UserError, match="PlainEnvironment has no tools"):
        to_trl(PlainEnvironment)

    def reset() -> str:
        """Reset."""

    with pytest.raises(UserError, match="a tool has the name 'reset'"):
        to_trl(lambda seed: ToolEnvironment(seed, [reset]))


@pytest.mark.slow
def test_a_step_of_trls_trainer_runs_our_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trl = pytest.importorskip("trl", minversion="1.16", reason="TRL is not installed")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    processor = AutoProcessor.from_pretrained(EMBEDDED["embedded:tiny"])
    # One that TRL knows how to parse, for the same turn markers.
    template = Path(trl.__file__).parent / "chat_templates" / "qwen3_vl.jinja"
    processor.chat_template = processor.tokenizer.chat_template = template.read_text()
    model = AutoModelForImageTextToText.from_pretrained(EMBEDDED["embedded:tiny"], dtype=torch.float32)
    columns = row()
    turns = iter([write_call("zoom", {"box": columns["asked"]}), f"<answer>{columns['answer']}</answer>"])
    seen: list[Any] = []

    def scripted(self: Any, prompt_ids: Any, images: Any, fields: Any, num_generations: int, **_: Any) -> Any:
        turn = next(turns)
        seen.append((len(prompt_ids), images))
        ids = processor.tokenizer(turn + "<|im_end|>")["input_ids"]
        return [list(ids) for _ in prompt_ids], None

    monkeypatch.setattr(trl.GRPOTrainer, "_generate_single_turn", scripted)
    answers: list[str] = []

    def accuracy(completions: Any, answer: Any, **_: Any) -> list[float]:
        answers.extend(completion[-1]["content"] for completion in completions)
        return [1.0 for _ in completions]

    trainer = trl.GRPOTrainer(
        model=model,
        processing_class=processor,
        reward_funcs=[accuracy],
        environment_factory=to_trl("tools", OPTIONS, weights=WEIGHTS),
        train_dataset=datasets.Dataset.from_list([columns]),
        args=trl.GRPOConfig(
            output_dir=str(tmp_path),
            max_steps=1,
            per_device_train_batch_size=2,
            num_generations=2,
            max_completion_length=400,
            logging_steps=1,
            report_to=[],
            use_cpu=True,
            bf16=False,
        ),
    )
    trainer.train()
    logged = next(entry for entry in trainer.state.log_history if "rewards/ToolConversation/mean" in entry)
    assert logged["rewards/ToolConversation/mean"] == pytest.approx(1 - 0.1)
    assert logged["tools/call_frequency"] == 1
    assert logged["tools/failure_frequency"] == 0
    assert all(columns["answer"] in answer for answer in answers)
    # The second turn was sampled with the crop beside the picture.
    assert [len(images) for images in seen[1][1]] == [2, 2]
