"""Policies with random weights in memory, prompts with images, completions, and one update of them."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.gpu.settings import Settings
from benchmarks.performance.models import processor_for, random_model
from benchmarks.performance.workload import QUESTION, images

if TYPE_CHECKING:
    from mm_cpgd.policy import EncodedPrompt, Policy
    from mm_cpgd.training.experience import Experience

# Tokens that completions are made of: text of the embedded tokenizer.
FIRST_TOKEN, LAST_TOKEN = 20, 250


def device() -> str:
    """Return where everything runs."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def installed(*packages: str) -> str:
    """Return ``not installed: …``, or an empty text if all packages are."""
    missing = [name for name in packages if find_spec(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


def build(
    shape: str,
    settings: Settings,
    *,
    lora: bool,
    checkpointing: bool | str = True,
    attention: str = "sdpa",
    compiled: bool = False,
) -> Policy:
    """Return a policy in training mode, all of whose tokens can be sampled, with the vision tower frozen."""
    from mm_cpgd.config.schema import PolicyConfig
    from mm_cpgd.policy.model import prepare_policy

    adapters = {"rank": settings.lora, "alpha": 2 * settings.lora} if lora else None
    config = PolicyConfig.model_validate(
        {
            "model": shape,
            "lora": adapters,
            "gradient_checkpointing": checkpointing,
            "attention": attention,
            "compile": compiled,
        }
    )
    model = random_model(shape, device(), attention)
    policy = prepare_policy(model, processor_for(settings.visual_tokens), config).to(device()).train()
    # The embedded tokenizer names few of the head's rows; the others count as tokens here.
    policy._unused_ids = set()
    return policy


def encode(policy: Policy, settings: Settings, count: int) -> list[EncodedPrompt]:
    """Return this many prompts, each with an image of its own."""
    from data import Example, ImageRef

    pictures = list(images(settings.visual_tokens, count))
    refs = [ImageRef(f"noise {index}", picture.copy) for index, picture in enumerate(pictures)]
    return [
        policy.encoder.encode(Example(str(index), QUESTION, "3", images=(ref,)))
        for index, ref in enumerate(refs)
    ]


def experience_of(prompts: Sequence[EncodedPrompt], lengths: Sequence[Sequence[int]]) -> Experience:
    """Return completions of random tokens with random advantages: ``lengths[p]`` tokens for each prompt p."""
    from mm_cpgd.training.experience import Experience, pad_tokens

    generator = torch.Generator().manual_seed(0)
    flat = [length for group in lengths for length in group]
    completions = [torch.randint(FIRST_TOKEN, LAST_TOKEN, (length,), generator=generator) for length in flat]
    tokens, mask = pad_tokens(completions)
    groups = torch.tensor([len(group) for group in lengths])
    return Experience(
        examples=list(range(len(prompts))),
        prompts=list(prompts),
        prompt_of=torch.arange(len(prompts)).repeat_interleave(groups),
        tokens=tokens,
        mask=mask,
        advantages=torch.randn(len(flat), generator=generator),
        mini_batch=torch.zeros(len(flat), dtype=torch.long),
        lengths=[mask.sum(1).float()],
    )


def autocast() -> Any:
    """Return the context of a forward pass, as a run's with ``mixed_precision: auto``."""
    return torch.autocast("cuda", torch.bfloat16) if torch.cuda.is_available() else contextlib.nullcontext()


class Update:
    """Optimizer steps of a policy on the same experience: policy gradient, clipping, AdamW.

    Args:
        policy: in training mode.
        experience: one mini-batch.
        tokens: largest number of tokens in a forward pass.
    """

    def __init__(self, policy: Policy, experience: Experience, tokens: int) -> None:
        self.policy = policy
        self.experience = experience
        self.micro_batches = experience.split(0, tokens, shared_prefix=policy.shared_prefix)
        self.parameters = [one for one in policy.parameters() if one.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-6)
        if policy.shared_prefix:
            with autocast():
                policy.vision_cache.encode(experience.prompts)

    def __call__(self) -> None:
        """Take one optimizer step."""
        count = float(self.experience.mask.sum())
        for rows in self.micro_batches:
            batch = self.experience.select(rows)
            with autocast():
                logprobs, _ = self.policy(batch.prompts, batch.tokens, batch.mask)
            advantages = batch.advantages.to(logprobs.device).unsqueeze(1)
            (-(advantages * logprobs).sum() / count).backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


@contextlib.contextmanager
def memory_limit_noted(row: dict[str, Any]) -> Iterator[None]:
    """Note in the row, in place of numbers, that the GPU's memory did not suffice."""
    try:
        yield
    except torch.OutOfMemoryError:
        row["note"] = "out of memory"
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
