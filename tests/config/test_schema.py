"""Settings: each one that could change the distribution or the objective is dealt with in the documents."""

from __future__ import annotations

import re
from typing import get_args

from pydantic import BaseModel

from mm_cpgd.config.rollout import VllmConfig
from mm_cpgd.config.schema import RunConfig
from tests.paths import DOCS

SECTIONS = ("policy", "data", "rollout", "rewards", "algorithm", "training")
# Where the model comes from.
ORIGIN = {"policy.model", "policy.revision", "policy.trust_remote_code"}


def settings() -> set[str]:
    """Return ``section.key`` of each setting of the sections that make up sampling and objective."""
    found = set()
    for section in SECTIONS:
        annotation = RunConfig.model_fields[section].annotation
        model = next(kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type))
        assert issubclass(model, BaseModel)
        found |= {f"{section}.{key}" for key in model.model_fields}
    return found


def test_every_setting_that_could_change_the_objective_is_in_the_table() -> None:
    page = (DOCS / "training.md").read_text(encoding="utf-8")
    part = page.split("## What is sampled is what is trained")[1].split("\n## ")[0]
    named = set(re.findall(rf"`((?:{'|'.join(SECTIONS)})\.[a-z_.*]+)", part))
    whole = {name.removesuffix(".*") for name in named if name.endswith(".*")}
    for setting in settings() - ORIGIN:
        assert setting in named | whole or setting.split(".")[0] in whole, setting
    below = {f"rollout.vllm.{key}" for key in VllmConfig.model_fields}
    assert {name for name in named if not name.endswith(".*")} <= settings() | below
