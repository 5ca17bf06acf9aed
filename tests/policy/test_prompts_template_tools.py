"""Tools that a chat template describes itself, with templates of the forms of Qwen3-VL and Qwen2.5-VL."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import copy, deepcopy

import pytest

from data import Example, ImageRef
from mm_cpgd.environments import ToolEnvironment
from mm_cpgd.errors import UserError
from mm_cpgd.policy import Policy, PromptEncoder

# Written for this test. As Qwen3-VL's: tools in the system turn, results in the turn of a user.
CONTENT = (
    "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}{% if c.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}"
)
END = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
WITH_TOOLS = (
    "{% if tools %}<|im_start|>system\n{% if messages[0].role == 'system' %}"
    "{% for c in messages[0].content %}{{ c.text }}{% endfor %}\n\n{% endif %}"
    "<tools>{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}\n</tools><|im_end|>\n{% endif %}"
    "{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n" + CONTENT + "\n"
    "</tool_response><|im_end|>\n{% elif not (tools and loop.first and m.role == 'system') %}"
    "<|im_start|>{{ m.role }}\n" + CONTENT + "<|im_end|>\n{% endif %}{% endfor %}" + END
)
# As Qwen2.5-VL's: no tools, and any role as it is.
WITHOUT_TOOLS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n" + CONTENT + "<|im_end|>\n{% endfor %}" + END
)


def encoder_of(policy: Policy, template: str, describe: str) -> PromptEncoder:
    encoder = copy(policy.encoder)
    encoder.processor = deepcopy(policy.encoder.processor)
    encoder.processor.chat_template = template
    encoder.environment = lambda seed: ToolEnvironment(
        seed,
        ["zoom"],
        describe=describe,  # type: ignore[arg-type]
        system_prompt="Look closely.",
    )
    return encoder


@pytest.fixture
def example(noise_image: Callable[..., ImageRef]) -> Example:
    return Example("1", "How many?", "3", images=(noise_image(112, 84, 0),))


def test_a_template_with_tools_describes_them_once(tiny_policy: Policy, example: Example) -> None:
    encoder = encoder_of(tiny_policy, WITH_TOOLS, "template")
    chat = encoder.chat(example)
    (schema,) = ToolEnvironment(0, ["zoom"]).schemas
    told = chat.partition("<tools>")[2].partition("</tools>")[0]
    assert json.loads(told) == schema
    assert chat.startswith("<|im_start|>system\nLook closely.")
    assert chat.count('"zoom"') == 1
    assert len(encoder.encode(example)) == encoder.length(example)


@pytest.mark.parametrize("template", [WITH_TOOLS, WITHOUT_TOOLS])
def test_the_environments_own_description_is_the_same_with_both(
    template: str, tiny_policy: Policy, example: Example
) -> None:
    chat = encoder_of(tiny_policy, template, "system").chat(example)
    assert chat.count('"zoom"') == 1
    assert chat.startswith("<|im_start|>system\nLook closely.\n\n# Tools")


def test_a_template_without_tools_cannot_describe_them(tiny_policy: Policy, example: Example) -> None:
    encoder = encoder_of(tiny_policy, WITHOUT_TOOLS, "template")
    with pytest.raises(UserError, match="no place for tools; set describe: system"):
        encoder.chat(example)
