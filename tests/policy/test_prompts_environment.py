"""Prompts that an environment writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

import pytest

from data import DataError, Example, ImageRef
from mm_cpgd.environments.protocol import Message, Observation, PlainEnvironment
from mm_cpgd.policy import Policy, PromptEncoder


class Assistant:
    """Environment that shows a picture of its own before the question."""

    def __init__(self, seed: int, picture: ImageRef, text: str = "Look, then answer.") -> None:
        self.picture, self.text = picture, text

    def reset(self, example: Example) -> Sequence[Message]:
        return [
            Message.of("system", self.text),
            Message.of("user", "First: ", self.picture),
            Message.of("user", *example.images, example.question),
        ]

    def step(self, completion: str) -> Observation:
        return Observation(done=True)


def encoder_of(policy: Policy, **options: object) -> PromptEncoder:
    encoder = copy(policy.encoder)
    encoder.environment = lambda seed: Assistant(seed, **options)  # type: ignore[arg-type]
    return encoder


def test_the_prompt_is_the_environments_messages(
    tiny_policy: Policy, noise_image: Callable[..., ImageRef]
) -> None:
    own = noise_image(56, 56, 1)
    example = Example("1", "How many?", "3", images=(noise_image(112, 84, 0),))
    encoder = encoder_of(tiny_policy, picture=own)
    pad = "<|vision_start|><|image_pad|><|vision_end|>"
    assert encoder.chat(example) == (
        f"<|im_start|>system\nLook, then answer.<|im_end|>\n<|im_start|>user\nFirst: {pad}<|im_end|>\n"
        f"<|im_start|>user\n{pad}How many?<|im_end|>\n<|im_start|>assistant\n"
    )
    prompt = encoder.encode(example)
    assert len(prompt) == encoder.length(example)
    assert prompt.vision["image_grid_thw"].tolist() == [[1, 4, 4], [1, 6, 8]]
    assert prompt.conversation is not None
    assert prompt.conversation.images == (own, *example.images)


def test_the_plain_environment_writes_what_is_written_without_one(
    tiny_policy: Policy, noise_image: Callable[..., ImageRef]
) -> None:
    example = Example("1", "Is <image> a B?", "A", images=(noise_image(112, 84, 0),), choices=("yes", "no"))
    encoder = copy(tiny_policy.encoder)
    encoder.environment = PlainEnvironment
    assert encoder.chat(example) == tiny_policy.encoder.chat(example)


def test_control_tokens_in_the_messages_are_refused(
    tiny_policy: Policy, noise_image: Callable[..., ImageRef]
) -> None:
    encoder = encoder_of(tiny_policy, picture=noise_image(56, 56), text="<|im_end|>")
    with pytest.raises(DataError, match="control token"):
        encoder.chat(Example("1", "?", ""))


def test_the_configs_system_prompt_comes_first_where_there_is_no_other(tiny_policy: Policy) -> None:
    encoder = copy(tiny_policy.encoder)
    encoder.system_prompt = "Given."
    found = encoder.conversation_of([Message.of("user", "Hello")])
    assert [(turn["role"], turn["content"][0]["text"]) for turn in found.messages] == [
        ("system", "Given."),
        ("user", "Hello"),
    ]
    own = encoder.conversation_of([Message.of("system", "Own."), Message.of("user", "Hello")])
    assert own.messages[0]["content"][0]["text"] == "Own."
    assert len(own.messages) == 2


class Counted(Assistant):
    """The same, which counts how often it is asked for a prompt."""

    resets = 0

    def reset(self, example: Example) -> Sequence[Message]:
        Counted.resets += 1
        return super().reset(example)


def test_a_prompt_is_written_once_to_be_encoded(
    tiny_policy: Policy, noise_image: Callable[..., ImageRef]
) -> None:
    encoder = copy(tiny_policy.encoder)
    encoder.environment = lambda seed: Counted(seed, noise_image(56, 56))  # type: ignore[assignment]
    examples = [Example(name, name, "3", images=(noise_image(112, 84, 0),)) for name in "ab"]
    Counted.resets = 0
    length = encoder.length(examples[0])
    first = encoder.encode(examples[0], "It is")
    assert Counted.resets == 1
    assert len(encoder.encode(examples[0])) == length < len(first)
    assert "b" in encoder.chat(examples[1])
    assert Counted.resets == 2


def test_another_environment_or_system_prompt_writes_again(
    tiny_policy: Policy, noise_image: Callable[..., ImageRef]
) -> None:
    example = Example("1", "How many?", "3", system="Of the row.")
    encoder = copy(tiny_policy.encoder)
    encoder.environment = PlainEnvironment
    assert "Of the row." in encoder.chat(example)
    encoder.system_turns = "config"
    assert "Of the row." not in encoder.chat(example)
    encoder.system_prompt = "Given."
    assert "Given." in encoder.chat(example)
    encoder.environment = lambda seed: Assistant(seed, noise_image(56, 56))
    assert "Look, then answer." in encoder.chat(example)
