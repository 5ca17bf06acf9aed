"""Encoding of examples as tokens, pixels and positions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from data import DataError, Example, ImageRef
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import Policy, PromptEncoder, load_processor
from mm_cpgd.policy.families import stop_time_in_images
from tests.paths import DATASETS

K12 = DATASETS / "k12"


def text_of(policy: Policy, encoder: PromptEncoder, example: Example) -> str:
    """Return the prompt as text, every image as one ``<image>``."""
    ids = encoder.encode(example).input_ids.tolist()
    pad = policy.model.config.image_token_id
    once = [token for place, token in enumerate(ids) if token != pad or ids[place - 1] != pad]
    text: str = policy.tokenizer.decode(once)
    return text.replace("<|vision_start|><|image_pad|><|vision_end|>", "<image>")


def plain(colour: str, width: int, height: int) -> ImageRef:
    return ImageRef(colour, lambda: Image.new("RGB", (width, height), colour))


def test_the_prompt_ends_where_the_answer_begins(tiny_policy: Policy) -> None:
    example = Example("a", "How many?", "3", images=(plain("red", 56, 56),))
    assert text_of(tiny_policy, tiny_policy.encoder, example) == (
        "<|im_start|>user\n<image>How many?<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("options", "own", "expected"),
    [
        ({}, "Be brief.", "Be brief."),
        ({"system_prompt": "Think."}, "Be brief.", "Be brief."),
        ({"system_prompt": "Think."}, None, "Think."),
        ({"system_prompt": "Think.", "system_turns": "config"}, "Be brief.", "Think."),
    ],
)
def test_a_rows_own_system_turn_is_the_system_message(
    tiny_policy: Policy, options: dict[str, Any], own: str | None, expected: str
) -> None:
    encoder = PromptEncoder(tiny_policy.processor, **options)
    example = Example("1", "Why?", "4", system=own)
    text = tiny_policy.tokenizer.decode(encoder.encode(example).input_ids)
    assert f"system\n{expected}<|im_end|>" in text
    assert ("Think." in text) + ("Be brief." in text) == 1
    conversation = encoder.encode(example).conversation
    assert conversation is not None
    assert conversation.messages[0]["content"][0]["text"] == expected
    assert encoder.length(example) == len(encoder.encode(example))


def test_a_rows_system_turn_can_be_left_to_the_template(tiny_policy: Policy) -> None:
    encoder = PromptEncoder(tiny_policy.processor, system_turns="config")
    own, plain = (encoder.chat(Example("1", "Why?", "4", system=text)) for text in ("Be brief.", None))
    assert own == plain


def test_control_tokens_in_a_system_turn_are_refused(tiny_policy: Policy) -> None:
    example = Example("1", "Why?", "4", system="<|im_end|>")
    with pytest.raises(DataError, match="control token"):
        PromptEncoder(tiny_policy.processor).encode(example)


def test_the_system_prompt_comes_first(tiny_policy: Policy) -> None:
    encoder = PromptEncoder(tiny_policy.processor, system_prompt="Think.")
    assert text_of(tiny_policy, encoder, Example("a", "Why?", "3")).startswith(
        "<|im_start|>system\nThink.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>"
    )


def test_question_and_choices_fill_the_template(tiny_policy: Policy) -> None:
    encoder = PromptEncoder(tiny_policy.processor, template="{choices} then {question} and boxed{1}")
    example = Example("a", "Q?", "x", choices=("one", "two"))
    assert "user\n(A) one\n(B) two then Q? and boxed{1}<|im_end|>" in text_of(tiny_policy, encoder, example)


def test_choices_follow_the_question_if_the_template_lacks_them(tiny_policy: Policy) -> None:
    encoder = PromptEncoder(tiny_policy.processor, template="{question} Be brief.")
    example = Example("a", "Q?", "x", choices=("one", "two"))
    assert "user\nQ?\n(A) one\n(B) two Be brief.<|im_end|>" in text_of(tiny_policy, encoder, example)


def test_placeholders_in_a_row_are_not_filled_in(tiny_policy: Policy) -> None:
    encoder = PromptEncoder(tiny_policy.processor, template="{question}|{choices}")
    example = Example("a", "{choices}", "x", choices=("{question}",))
    assert "user\n{choices}|(A) {question}<|im_end|>" in text_of(tiny_policy, encoder, example)


def test_images_are_at_their_markers(tiny_policy: Policy) -> None:
    images = (plain("red", 56, 28), plain("blue", 28, 84))
    example = Example("a", "Is <image2> or <image1> bigger?", "3", images=images)
    assert "user\nIs <image> or <image> bigger?" in text_of(tiny_policy, tiny_policy.encoder, example)
    prompt = tiny_policy.encoder.encode(example)
    # Blue first: higher than wide, and its patches are constant, each channel in one run of a patch.
    (blue, red) = prompt.vision["image_grid_thw"].tolist()
    assert blue[1] > blue[2]
    assert red[1] < red[2]
    first = prompt.vision["pixel_values"][0].unflatten(0, (3, -1)).mean(1)
    assert first.argmax() == 2


def test_image_tokens_are_one_for_four_patches(tiny_policy: Policy) -> None:
    example = Example("a", "?", "3", images=(plain("red", 112, 112), plain("red", 56, 84)))
    prompt = tiny_policy.encoder.encode(example)
    assert int((prompt.input_ids == tiny_policy.model.config.image_token_id).sum()) == 16 + 6
    assert prompt.vision["pixel_values"].shape[0] == 4 * (16 + 6)


def test_positions_are_those_that_the_model_computes_itself(
    tiny_policy: Policy, examples: list[Example]
) -> None:
    received: list[torch.Tensor] = []
    handle = tiny_policy.model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: received.append(kwargs["position_ids"]), with_kwargs=True
    )
    for example in examples[:3]:
        prompt = tiny_policy.encoder.encode(example)
        types = {} if prompt.token_types is None else {"mm_token_type_ids": prompt.token_types.unsqueeze(0)}
        with torch.no_grad():
            tiny_policy.model(input_ids=prompt.input_ids.unsqueeze(0), **types, **prompt.vision)
        assert torch.equal(received.pop()[:, 0], prompt.positions)
    handle.remove()


def test_positions_of_an_image_are_a_grid(tiny_policy: Policy) -> None:
    example = Example("a", "?", "3", images=(plain("red", 84, 56),))  # 3 x 2 visual tokens
    prompt = tiny_policy.encoder.encode(example)
    inside = prompt.input_ids == tiny_policy.model.config.image_token_id
    start = int(inside.nonzero()[0])
    time, height, width = (prompt.positions[:, inside] - start).tolist()
    assert time == [0] * 6
    assert height == [0, 0, 0, 1, 1, 1]
    assert width == [0, 1, 2, 0, 1, 2]
    # Text continues after the longest side.
    assert prompt.positions[:, inside.nonzero()[-1] + 1].unique().tolist() == [start + 3]
    assert prompt.next_position == int(prompt.positions[0, -1]) + 1


def test_text_positions_count_up(tiny_policy: Policy) -> None:
    prompt = tiny_policy.encoder.encode(Example("a", "Why?", "3"))
    assert torch.equal(prompt.positions, torch.arange(len(prompt)).expand(3, -1))
    assert prompt.next_position == len(prompt)


def test_length_equals_the_number_of_encoded_tokens(
    tiny_policy: Policy, noise_image: Callable[..., ImageRef]
) -> None:
    sizes = [(28, 28), (29, 500), (112, 112), (640, 480), (33, 1000), (1500, 40)]
    rows = [Example("t", "只有文字 only", "3")]
    rows += [Example("i", "one <image> ?", "3", images=(noise_image(*size),)) for size in sizes]
    rows.append(Example("m", "<image2> and <image1>", "3", images=tuple(noise_image(*s) for s in sizes[:3])))
    for row in rows:
        assert tiny_policy.encoder.length(row) == len(tiny_policy.encoder.encode(row))


def test_length_opens_no_image_with_a_header(tiny_policy: Policy, tmp_path: Path) -> None:
    from data.images import image_ref

    file = tmp_path / "red.png"
    Image.new("RGB", (320, 200), "red").save(file)
    whole = file.read_bytes()
    example = Example("a", "?", "3", images=(image_ref(file),))
    expected = len(tiny_policy.encoder.encode(example))
    file.write_bytes(whole[: len(whole) // 2])
    assert tiny_policy.encoder.length(example) == expected
    with pytest.raises(DataError):
        tiny_policy.encoder.encode(example)


@pytest.mark.parametrize("token", ["<|image_pad|>", "<|video_pad|>", "<|im_end|>", "<|vision_start|>"])
@pytest.mark.parametrize("method", ["encode", "length"])
def test_a_control_token_in_the_text_is_refused(tiny_policy: Policy, token: str, method: str) -> None:
    ask = getattr(tiny_policy.encoder, method)
    for example in (
        Example("a", f"Now {token} see", "3", images=(plain("red", 56, 56),)),
        Example("b", f"Now {token} see", "3"),
        Example("c", "Which?", "3", choices=("one", token)),
    ):
        with pytest.raises(DataError, match="control token") as caught:
            ask(example)
        assert token in str(caught.value)


def test_a_marker_without_image_is_refused(tiny_policy: Policy) -> None:
    with pytest.raises(DataError, match="<image2>"):
        tiny_policy.encoder.encode(Example("a", "<image2>", "3", images=(plain("red", 56, 56),)))


def test_a_long_prompt_is_never_cut(tiny_policy: Policy) -> None:
    words = " ".join(f"word{i}" for i in range(3000))
    images = tuple(plain("red", 112, 112) for _ in range(3))
    example = Example("a", words + " <image><image><image>", "3", images=images)
    prompt = tiny_policy.encoder.encode(example)
    assert len(prompt) == tiny_policy.encoder.length(example) > 6000
    assert int((prompt.input_ids == tiny_policy.model.config.image_token_id).sum()) == 3 * 16


def test_the_beginning_token_of_a_template_is_not_doubled(tiny_folder: Path) -> None:
    processor = load_processor(PolicyConfig(model=str(tiny_folder)))
    processor.tokenizer.bos_token = "<|im_start|>"
    wanted = []
    for template in (processor.chat_template, "no such token here"):
        processor.chat_template = template
        encoder = PromptEncoder(processor)
        wanted.append(encoder._needs_special_tokens(encoder.chat(Example("1", "Why?", ""))))
    assert wanted == [False, True]


@pytest.mark.shared
def test_length_equals_the_number_of_encoded_tokens_of_real_images(tiny_policy: Policy) -> None:
    if not K12.is_dir():
        pytest.skip("the real data is not beside the project (../shared/datasets/k12)")
    from data import load_examples

    rows = load_examples(str(K12 / "k12.json"), limit=14, offset=40, check_images="header").examples
    assert len(rows) >= 12
    for row in rows:
        prompt = tiny_policy.encoder.encode(row)
        assert tiny_policy.encoder.length(row) == len(prompt)
        visual = int((prompt.input_ids == tiny_policy.model.config.image_token_id).sum())
        assert 4 * visual == prompt.vision["pixel_values"].shape[0]


def test_an_image_has_one_position_in_time() -> None:
    # Two images of 2 x 2 and 1 x 2 tokens; the second's time is multiplied, as in transformers 5.4.
    types = torch.tensor([0, 1, 1, 1, 1, 0, 1, 1, 0])
    time, height, width = (
        [0, 1, 1, 1, 1, 3, 4, 4, 6],
        [0, 1, 1, 2, 2, 3, 4, 4, 6],
        [0, 1, 2, 1, 2, 3, 4, 5, 6],
    )
    wanted = torch.tensor([time, height, width])
    positions = wanted.clone()
    stop_time_in_images(positions, types)
    assert torch.equal(positions, wanted)
    positions[0, 6:8] *= 4
    stop_time_in_images(positions, types)
    assert torch.equal(positions, wanted)
