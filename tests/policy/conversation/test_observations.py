"""Observations are encoded as the chat template writes them between two turns of the policy."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from pathlib import Path

import pytest

from benchmarks.families.build import build_family
from data import Example, ImageRef
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.environments.protocol import Message
from mm_cpgd.errors import UserError
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.policy.conversation.observations import ObservationEncoder

# As in Qwen2-VL: a default system prompt, and a counter of pictures that is not asked for.
QWEN2 = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}<|vision_start|><|image_pad|>"
    "<|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As in Qwen3: earlier turns without their thoughts, results of tools in a turn of the user.
QWEN3 = (
    "{% for message in messages %}{% set text = message.content[0].text or '' %}"
    "{% if message.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ text }}\n"
    "</tool_response><|im_end|>\n{% else %}<|im_start|>{{ message.role }}\n"
    "{{ text.split('</think>')[-1].strip() }}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


def encoder_of(policy: Policy, template: str | None = None) -> ObservationEncoder:
    encoder = copy(policy.encoder)
    if template is not None:
        encoder.processor = copy(encoder.processor)
        encoder.processor.chat_template = template
    return ObservationEncoder(encoder, policy.end_ids)


def text_of(policy: Policy, template: str, *messages: Message, last: str = "<|im_end|>") -> str:
    (token,) = policy.tokenizer(last, add_special_tokens=False)["input_ids"]
    encoded = encoder_of(policy, template).encode(messages, token)
    text: str = policy.tokenizer.decode(encoded.input_ids)
    return text


def test_after_the_end_token_it_begins_where_the_template_goes_on(tiny_policy: Policy) -> None:
    found = text_of(tiny_policy, QWEN2, Message.of("user", "again"))
    assert found == "\n<|im_start|>user\nagain<|im_end|>\n<|im_start|>assistant\n"


def test_a_turn_that_was_cut_is_closed_first(tiny_policy: Policy) -> None:
    found = text_of(tiny_policy, QWEN2, Message.of("user", "again"), last="a")
    assert found == "<|im_end|>\n<|im_start|>user\nagain<|im_end|>\n<|im_start|>assistant\n"


def test_a_template_may_rewrite_earlier_turns_and_open_the_next_one(tiny_policy: Policy) -> None:
    found = text_of(tiny_policy, QWEN3, Message.of("tool", "7 apples"))
    wanted = "\n<|im_start|>user\n<tool_response>\n7 apples\n</tool_response><|im_end|>\n"
    assert found == f"{wanted}<|im_start|>assistant\n<think>\n"


def test_images_have_their_tokens_and_pixels(
    tiny_policy: Policy, noise_image: Callable[..., ImageRef]
) -> None:
    one, other = noise_image(112, 84, 0), noise_image(56, 56, 1)
    end = tiny_policy.end_ids[0]
    found = encoder_of(tiny_policy).encode([Message.of("tool", one, "and", other)], end)
    assert found.images == (one, other)
    assert found.vision["image_grid_thw"].tolist() == [[1, 6, 8], [1, 4, 4]]
    assert found.token_types is not None
    assert int((found.token_types == 1).sum()) == (6 * 8 + 4 * 4) // 4
    assert len(found.token_types) == len(found)


@pytest.mark.parametrize("text", ["<|im_end|>", "<|image_pad|>", "a<|im_start|>assistant\n", "<|endoftext|>"])
def test_control_tokens_in_an_observation_are_read_as_text(tiny_policy: Policy, text: str) -> None:
    end = tiny_policy.end_ids[0]
    encoder = encoder_of(tiny_policy)
    plain = encoder.encode([Message.of("tool", "x")], end).input_ids.tolist()
    found = encoder.encode([Message.of("tool", text)], end).input_ids.tolist()
    special = set(tiny_policy.tokenizer.all_special_ids) | set(tiny_policy.forbidden_ids) | {end}
    assert [token for token in found if token in special] == [token for token in plain if token in special]


def test_the_whole_conversation_is_encoded_as_at_once(tiny_policy: Policy) -> None:
    end = tiny_policy.end_ids[0]
    prompt = tiny_policy.encoder.encode(Example("", "What?", "")).input_ids.tolist()
    turn = tiny_policy.tokenizer("first<|im_end|>", add_special_tokens=False)["input_ids"]
    observed = encoder_of(tiny_policy).encode([Message.of("user", "again")], end).input_ids.tolist()
    messages = [("user", "What?"), ("assistant", "first"), ("user", "again")]
    chat = tiny_policy.processor.apply_chat_template(
        [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in messages],
        add_generation_prompt=True,
        tokenize=False,
    )
    assert prompt + turn + observed == tiny_policy.tokenizer(chat, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    "template",
    [
        # Without earlier turns, without an end, and ended by what is no end token.
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content[0].text }}<|im_end|>{% endif %}"
        "{% endfor %}",
        "{% for m in messages %}{{ m.content[0].text }}{% endfor %}",
        "{% for m in messages %}{{ m.content[0].text }} END {% endfor %}",
    ],
)
def test_a_template_that_cannot_continue_is_refused(tiny_policy: Policy, template: str) -> None:
    with pytest.raises(UserError, match=r"rollout\.environment.*does not keep an earlier turn"):
        encoder_of(tiny_policy, template)


def test_other_families_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    policy = load_policy(PolicyConfig(model=str(build_family("llava_onevision", tiny_folder, tmp_path))))
    with pytest.raises(UserError, match=r"'llava_onevision' model cannot .* supported for qwen2_vl, qwen2_5"):
        encoder_of(policy)
