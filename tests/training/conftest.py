"""Fixtures of the training tests; each test runs on the CPU with a fresh accelerate state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from data.generated import generate
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.policy.prompt_workers import PromptWorkers
from mm_cpgd.training.experience import Experience, pad_tokens
from tests.fakes.learning import ADVANTAGES, LENGTHS


@pytest.fixture(autouse=True)
def _on_cpu(on_cpu: None) -> None:
    pass


@pytest.fixture
def ready_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run with ``data.workers`` wait until they can be used, so that they are from the start."""

    class Ready(PromptWorkers):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.wait()

    monkeypatch.setattr("mm_cpgd.training.ahead.prefetch.PromptWorkers", Ready)


@pytest.fixture(scope="module")
def policy(tiny_folder: Path) -> Policy:
    return load_policy(PolicyConfig(model=str(tiny_folder))).train()


@pytest.fixture(scope="module")
def whole(policy: Policy) -> Experience:
    """Eight completions of very different lengths for four prompts, with and without an image."""
    examples = generate(("shapes", "clock", "table", "lengths"), 4, seed=5)
    generator = torch.Generator().manual_seed(0)
    completions = [torch.randint(20, 300, (length,), generator=generator) for length in LENGTHS]
    tokens, mask = pad_tokens(completions)
    return Experience(
        examples=[0, 1, 2, 3],
        prompts=[policy.encoder.encode(example) for example in examples],
        prompt_of=torch.arange(8) // 2,
        tokens=tokens,
        mask=mask,
        advantages=torch.tensor(ADVANTAGES),
        mini_batch=torch.zeros(8, dtype=torch.long),
        lengths=[torch.tensor(LENGTHS).float()],
    )
