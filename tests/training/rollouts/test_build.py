"""Environments that a config names, with the policy's prompt texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.generated import generate
from mm_cpgd.config.loading import load_config
from mm_cpgd.errors import UserError
from mm_cpgd.training.rollouts.build import load_environment

EXAMPLE = replace(generate(("detail",), 1)[0], system="Of the row.")
ENVIRONMENT = """
from mm_cpgd.environments import Observation, prompt_messages

class Own:
    def __init__(self, seed, {options}):
        pass

    def reset(self, example):
        return prompt_messages(example)

    def step(self, completion):
        return Observation(done=True)
"""


@pytest.fixture
def texts() -> Callable[..., list[tuple[str, str]]]:
    def of(*overrides: str, system: str | None = None) -> list[tuple[str, str]]:
        factory = load_environment(load_config("quickstart", overrides))
        assert factory is not None
        return [(turn.role, turn.text) for turn in factory(0).reset(replace(EXAMPLE, system=system))]

    return of


PROMPT = ["policy.prompt_template=Look. {question}", "policy.system_prompt=Think first."]


@pytest.mark.parametrize("name", ["plain", "tools"])
def test_the_policys_texts_are_the_prompt_of_an_environment_without_its_own(
    name: str, texts: Callable[..., Any]
) -> None:
    chosen = [f"rollout.environment.name={name}"]
    if name == "tools":
        chosen.append("rollout.environment.options={tools: [zoom]}")
    (role, system), (_, question) = texts(*chosen, *PROMPT)
    assert role == "system"
    assert system.startswith("Think first.")
    assert question == f"Look. {EXAMPLE.question}"
    assert texts(*chosen, *PROMPT, system="Of the row.")[0][1].startswith("Of the row.")


def test_an_environments_own_texts_stay(texts: Callable[..., Any]) -> None:
    own = "{tools: [zoom], describe: nobody, template: 'Own {question}', system_prompt: S}"
    found = texts("rollout.environment.name=tools", f"rollout.environment.options={own}", *PROMPT)
    assert found == [("system", "S"), ("user", f"Own {EXAMPLE.question}")]


def test_a_template_without_effect_is_refused(tmp_path: Path, texts: Callable[..., Any]) -> None:
    file = tmp_path / "own.py"
    file.write_text(ENVIRONMENT.format(options="price=0.1, **others"))
    name = f"rollout.environment.name={file}:Own"
    with pytest.raises(
        UserError, match=r"policy\.prompt_template='Look\. \{question\}' has no part in prompts"
    ):
        texts(name, *PROMPT)
    assert texts(name, PROMPT[1]) == [("user", EXAMPLE.question)]
