"""A tiny model of a family under test: its folder, policy, and prompts with images of different shapes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.families.build import build_family
from data import Example, ImageRef
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import EncodedPrompt, Policy, load_policy
from mm_cpgd.rollout import LocalEngine, Sampling

# Rows of ``completions``: lengths of a batch, in which every row but one is padded.
LENGTHS = (7, 2, 5, 6)


class Subject:
    """A family's tiny model.

    Args:
        name: key of ``FAMILIES``.
        tiny_folder: as ``mm_cpgd.tiny.build.build_tiny`` writes it.
        place: an empty folder for the model and for what the checks write.
    """

    def __init__(self, name: str, tiny_folder: Path, place: Path) -> None:
        self.name = name
        self.place = place
        place.mkdir(parents=True, exist_ok=True)
        self.folder = build_family(name, tiny_folder, place / "model")

    def load(self, **options: Any) -> Policy:
        """Load the model with these keys of the config's policy section, with adapters as after training."""
        torch.manual_seed(0)
        policy = load_policy(PolicyConfig.model_validate({"model": str(self.folder), **options}))
        for name, parameter in policy.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter, std=0.1)
        return policy

    def new_folder(self) -> Path:
        """Return an empty folder."""
        return Path(tempfile.mkdtemp(dir=self.place))

    @cached_property
    def policy(self) -> Policy:
        """The policy as loaded; do not change it."""
        return self.load()

    @cached_property
    def examples(self) -> list[Example]:
        """A square image, a wide one, two in one prompt, and none."""
        two = (noise_image(140, 80, 2), noise_image(60, 170, 3))
        return [
            Example("square", "How many?", "3", images=(noise_image(112, 112, 0),)),
            Example("wide", "What is this?", "3", images=(noise_image(300, 64, 1),)),
            Example("two", "Is <image2> higher than <image1>, or not?", "3", images=two),
            Example("text", "How much is 1 + 2?", "3"),
        ]

    @cached_property
    def prompts(self) -> list[EncodedPrompt]:
        """The encoded examples."""
        return [self.policy.encoder.encode(example) for example in self.examples]

    @cached_property
    def logprobs(self) -> Tensor:
        """``logprobs_of`` the policy as loaded."""
        return self.logprobs_of(self.policy)

    def logprobs_of(self, policy: Policy) -> Tensor:
        """Return the log-probabilities (4, 7) of arbitrary completions, without gradient."""
        with torch.no_grad():
            return policy(self.prompts, *completions())[0]

    def greedy(self, policy: Policy, count: int) -> list[list[int]]:
        """Return the most probable tokens after each prompt, as the local engine finds them in one batch."""
        groups = LocalEngine(policy).generate(self.prompts, Sampling(count, temperature=0), [[0]] * 4)
        return [completion.tokens.tolist() for (completion,) in groups]

    def greedy_by_transformers(self, policy: Policy, count: int) -> list[list[int] | None]:
        """Return the same from transformers' ``generate``, prompt by prompt.

        Of prompts whose images transformers places wrongly (see ``stop_time_in_images``) the tokens are None.
        """
        return [_generate(policy, one, count) if _is_placed(policy, one) else None for one in self.prompts]


def completions() -> tuple[Tensor, Tensor]:
    """Return tokens (4, 7) and their mask, rows of the lengths ``LENGTHS``."""
    tokens = torch.arange(30, 30 + 4 * 7).view(4, 7)
    return tokens, torch.arange(7) < torch.tensor(LENGTHS).unsqueeze(1)


def noise_image(width: int, height: int, seed: int) -> ImageRef:
    """Return a reference to an image of coloured noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return ImageRef(f"noise {width} x {height} #{seed}", lambda: Image.fromarray(pixels))


def expect(condition: object, text: str | Callable[[], str]) -> None:
    """Raise an AssertionError with this text unless the condition holds."""
    if not condition:
        raise AssertionError(text if isinstance(text, str) else text())


def same(found: Sequence[Any], wanted: Sequence[Any], what: str) -> None:
    """Raise an AssertionError that names the first difference of two sequences."""
    for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
        expect(one == other, f"{what} {number}: {one}, not {other}")


def _is_placed(policy: Policy, prompt: EncodedPrompt) -> bool:
    """Return whether transformers' own positions of the prompt's images are the prompt's."""
    base = policy.model.model
    if prompt.token_types is None or "image_grid_thw" not in prompt.vision:
        return True
    if not hasattr(base, "get_rope_index"):
        return True
    own, _ = base.get_rope_index(
        prompt.input_ids.unsqueeze(0),
        mm_token_type_ids=prompt.token_types.unsqueeze(0),
        image_grid_thw=prompt.vision["image_grid_thw"],
    )
    return torch.equal(own[:, 0], prompt.positions)


def _generate(policy: Policy, prompt: EncodedPrompt, count: int) -> list[int]:
    ids = prompt.input_ids.unsqueeze(0)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **prompt.vision}
    if prompt.token_types is not None:
        inputs[prompt.types_name] = prompt.token_types.unsqueeze(0)
    output = policy.model.generate(
        **inputs, max_new_tokens=count, do_sample=False, suppress_tokens=policy.forbidden_ids
    )
    # The model keeps the positions of its last call; no other check may depend on them.
    if hasattr(policy.model.model, "rope_deltas"):
        policy.model.model.rope_deltas = None
    tokens: list[int] = output[0, ids.shape[1] :].tolist()
    return tokens
