"""Comparison of a resumed run with its checkpoint: settings, rows, model and files of rules.

A setting that changed takes effect, or takes effect with a warning because the run becomes another one, or
ends the start because the checkpoint has no meaning with it. Every setting is in exactly one of these groups.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data import Example
from mm_cpgd.config.schema import LoraConfig, RunConfig
from mm_cpgd.config.yaml import shorten
from mm_cpgd.errors import UserError
from mm_cpgd.policy.sharding.tensors import full_value


def _of(section: str, keys: str) -> set[str]:
    return {f"{section}.{key}" for key in keys.replace("\n", " ").split(" ") if key}


# Speed, length, step size, outputs: the change is meant to take effect, and the run stays the same run.
FREE = frozenset(
    {"name", "output", "data.eval"}
    | _of(
        "training", "iterations learning_rate vision_learning_rate schedule warmup_steps weight_decay betas"
    )
    | _of("training", "max_grad_norm max_skipped_steps micro_batch_tokens logprob_chunk threads")
    | _of("training", "offload_moments")
    | _of("sft", "epochs steps")
    | _of("evaluation", "every before after batch_prompts max_new_tokens")
    | _of("checkpoint", "every keep background")
    | _of("distributed", "strategy cpu_offload reshard_after_forward timeout")
    | _of("tracking", "tools project rollouts_every rollouts_images visual_kl_every")
    | _of(
        "guard", "action max_rollbacks step_factor target_drift alpha_factor settle copy_every copies ignore"
    )
    | _of("data", "max_prompt_tokens max_bad_share max_image_pixels check_images workers")
    | _of("rollout", "batch_prompts shared_prefix prefetch")
    | _of("rollout.vllm", "mode url urls weights weights_folder weights_port wait timeout requests")
    | _of("rollout.vllm", "tensor_parallel memory_share max_model_len sleep adapters max_difference")
    | _of("policy", "gradient_checkpointing compile attention trust_remote_code")
)
# Completions, rewards and objective: possible, but from here on it is another experiment.
NOTED = frozenset(
    {"rewards"}
    | _of("rollout", "engine prompts completions max_new_tokens temperature top_p top_k min_p cuts")
    | _of("rollout", "ahead swap_midway environment")
    | _of("rollout.vllm", "options correction importance_cap importance_floor")
    | _of("algorithm", "recipe advantage surrogate regularizers token_weights aggregation selection shaping")
    | _of("algorithm", "prompts budget demonstrations reward_weights completions token_advantages")
    | _of("algorithm", "blind noisy replay tempered early_answers empty_thought")
    | _of("training", "inner_epochs mini_batch_prompts mixed_precision rounding")
    | _of("sft", "batch target_template surrogate")
    | _of("policy", "dtype min_pixels max_pixels video system_prompt system_turns")
    | _of("policy", "prompt_template")
)
# The state of the checkpoint belongs to these.
FIXED = frozenset({"seed", "training.optimizer"} | _of("policy", "freeze_vision lora"))
# Fixed as well, and no setting: whether the run is one of mm-cpgd sft or mm-cpgd train.
COMMAND = "command"
# Names of things that are compared themselves: another path to the same rows or weights is no change.
BY_ROWS = frozenset(_of("data.train", "path split name columns limit offset seed"))
BY_MODEL = frozenset(_of("policy", "model revision"))
# Values per tensor that a model's digest reads.
SAMPLED = 64


@dataclass(frozen=True)
class RunIdentity:
    """What the state of a checkpoint belongs to.

    Attributes:
        settings: value of each setting by its dotted name.
        rows: (R,) int64, a digest of each training row.
        model: digest of the weights that the run started from.
        files: digest of each file with rules or parts of the objective.
    """

    settings: dict[str, Any]
    rows: Tensor
    model: str
    files: dict[str, str]

    def state(self) -> dict[str, Any]:
        """Return the content for a checkpoint."""
        return vars(self)


@dataclass(frozen=True)
class Changes:
    """What differs between a checkpoint and the run that resumes it.

    Attributes:
        settings: names of the settings that changed.
        lines: a line for each change: name, old value, new value.
        noted: those of the lines that make it another experiment.
    """

    settings: frozenset[str] = frozenset()
    lines: list[str] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)


def identify(
    config: RunConfig, examples: Sequence[Example], model: nn.Module, *, sft: bool = False
) -> RunIdentity:
    """Return the identity of a run; ``model`` holds the weights that it starts from."""
    rows = row_digests(examples)
    settings = {**settings_of(config), COMMAND: "sft" if sft else "train"}
    return RunIdentity(settings, rows, _model_digest(model), file_digests(config))


def row_digests(examples: Sequence[Example]) -> Tensor:
    """Return a digest (R,) int64 of each row's content; an image or a video counts by its name in the row."""
    return torch.tensor([_row_digest(example) for example in examples], dtype=torch.int64)


def settings_of(config: RunConfig) -> dict[str, Any]:
    """Return the value of each setting by its dotted name, as plain data that a checkpoint can hold."""
    tree = config.model_dump()
    flat: dict[str, Any] = {}
    for name in sorted(FREE | NOTED | FIXED | BY_ROWS | BY_MODEL):
        value: Any = tree
        for key in name.split("."):
            value = value[key]
        # Through JSON: tuples and paths become what they are in a config file.
        flat[name] = json.loads(json.dumps(value, default=str))
    return flat


def compare(saved: Mapping[str, Any] | None, now: RunIdentity) -> Changes:
    """Compare the identity in a checkpoint with that of the run which resumes it.

    Args:
        saved: as ``RunIdentity.state`` returned it; None in checkpoints of earlier versions.
        now: the run that resumes.

    Raises:
        UserError: the rows, the model or a fixed setting are others; says what to do.
    """
    if saved is None:
        return Changes(lines=["the checkpoint is of an earlier version: settings and rows were not compared"])
    old, new = saved["settings"], now.settings
    # A setting that the earlier version did not have counts as unchanged.
    changed = [name for name in new if name in old and _completed(name, old[name]) != new[name]]
    lines = {name: f"{name}: {shorten(old[name])} → {shorten(new[name])}" for name in changed}
    _check_rows(saved["rows"], now.rows, [lines[name] for name in changed if name in BY_ROWS])
    if fixed := [lines[name] for name in changed if name in {*FIXED, COMMAND}]:
        raise _other_run("its checkpoint has no meaning with another value of these settings", fixed)
    if saved["model"] != now.model and "policy.dtype" not in changed:
        named = [lines[name] for name in changed if name in BY_MODEL]
        raise _other_run(
            "the weights of policy.model are not those that the run started from", named or ["same name"]
        )
    files = [
        f"{path} has changed"
        for path, digest in now.files.items()
        if saved["files"].get(path, digest) != digest
    ]
    noted = [lines[name] for name in changed if name in NOTED] + files
    return Changes(frozenset(changed), [*lines.values(), *files], noted)


def _completed(name: str, value: Any) -> Any:
    """Return a checkpoint's value, with the defaults of keys that its version did not have."""
    if name == "policy.lora" and isinstance(value, Mapping):
        return LoraConfig().model_dump(mode="json") | dict(value)
    return value


def _check_rows(old: Tensor, new: Tensor, named: Sequence[str]) -> None:
    if torch.equal(old, new):
        return
    shared = min(len(old), len(new))
    differing = (old[:shared] != new[:shared]).nonzero()[:, 0].tolist()
    what = f"{len(new):,} rows, the checkpoint drew from {len(old):,}" if len(old) != len(new) else ""
    if differing:
        moved = sorted(old.tolist()) == sorted(new.tolist())
        count = f"{len(differing):,} of {shared:,} rows differ, the first is usable row {differing[0] + 1:,}"
        what = f"{what}; {count}" if what else f"{count}{'; they are in another order' if moved else ''}"
    raise _other_run("the training rows are not those that the checkpoint drew from", [what, *named])


def _other_run(reason: str, differences: Sequence[str]) -> UserError:
    return UserError(
        f"--resume: this is another run, as {reason}: {'; '.join(differences)}. Restore what the run was "
        "started with, or start a new run with another output (its policy.model may be this run's final/)"
    )


def _row_digest(example: Example) -> int:
    """Return 63 bits of a row's content."""
    content = [
        example.id,
        example.question,
        example.answer,
        example.solution,
        list(example.choices),
        [image.origin for image in example.images],
        example.system,
    ]
    if example.videos:
        content.append([video.origin for video in example.videos])
    text = json.dumps(content, default=str).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


@torch.no_grad()
def _model_digest(model: nn.Module) -> str:
    """Return a digest of names, shapes and evenly spaced values of all weights, gathered if sharded."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in model.named_parameters():
        if ".lora_" in name:  # initialised at random
            continue
        flat = full_value(value).flatten()
        sample = flat[:: max(1, flat.numel() // SAMPLED)][:SAMPLED].float().cpu()
        digest.update(f"{name}{tuple(value.shape)}".encode() + sample.numpy().tobytes())
    return digest.hexdigest()


def file_digests(config: RunConfig) -> dict[str, str]:
    """Return a digest of each file that the config names as ``path/to/file.py:function``."""
    algorithm = config.algorithm
    parts = [algorithm.advantage, algorithm.surrogate, algorithm.aggregation, algorithm.prompts]
    parts += [algorithm.budget, algorithm.demonstrations, algorithm.reward_weights, config.sft.surrogate]
    lists = [algorithm.regularizers, algorithm.token_weights, algorithm.selection, algorithm.shaping]
    lists += [algorithm.completions, algorithm.token_advantages]
    names = [reward.rule for reward in config.rewards]
    if algorithm.replay:
        parts += [algorithm.replay.credit]
        lists += [algorithm.replay.token_weights]
    if algorithm.tempered:
        parts += [algorithm.tempered.temperature]
    names += [part.name for part in [*parts, *(one for several in lists for one in several)] if part]
    names += [config.rollout.environment.name] if config.rollout.environment else []
    files = {Path(name.rpartition(":")[0]).expanduser() for name in names if ".py:" in name}
    return {
        str(file): hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
        for file in sorted(files)
        if file.is_file()
    }
