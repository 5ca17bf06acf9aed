"""Sizes of forward passes, as the learner divides a mini-batch of longest rows into micro-batches."""

from __future__ import annotations

from mm_cpgd.config.schema import RunConfig
from mm_cpgd.preflight.setting import Setting
from mm_cpgd.training.setup import build_run_objective, step_schedule


def mini_batch_tokens(config: RunConfig, setting: Setting, prompt_tokens: int) -> int:
    """Return the tokens of a process's share of an optimizer step."""
    rollout = config.rollout
    mini = min(step_schedule(config).mini_batch_prompts, rollout.prompts)
    prompts = -(-mini // setting.machines.processes)
    copies = 1 if rollout.shared_prefix else rollout.completions
    if config.algorithm.budget:  # one process may have nearly all completions
        rows = rollout.prompts * rollout.completions
        return (prompts if rollout.shared_prefix else rows) * prompt_tokens + rows * rollout.most_tokens
    return prompts * (copies * prompt_tokens + rollout.completions * rollout.most_tokens)


def micro_batch_tokens(config: RunConfig, setting: Setting, prompt_tokens: int) -> int:
    """Return the tokens of a process's largest forward pass; a row longer than the budget runs alone."""
    copies = _pictures(config)
    everything = copies * mini_batch_tokens(config, setting, prompt_tokens)
    row = copies * (prompt_tokens + config.rollout.most_tokens)
    return max(min(config.training.tokens_of_pass(on_gpu=setting.machines.on_gpu), everything), row)


def micro_batches(config: RunConfig, setting: Setting, prompt_tokens: int) -> int:
    """Return the number of a process's forward passes for an optimizer step, at least."""
    tokens = micro_batch_tokens(config, setting, prompt_tokens)
    return -(-_pictures(config) * mini_batch_tokens(config, setting, prompt_tokens) // tokens)


def checkpoints_layers(config: RunConfig, setting: Setting) -> bool:
    """Return whether layers keep their inputs only, and are computed again in the backward pass."""
    return bool(config.policy.gradient_checkpointing) or setting.strategy.checkpoint_layers


def _pictures(config: RunConfig) -> int:
    """Return behind how many pictures each row of the update runs: two where a part wants both gradients."""
    return 2 if build_run_objective(config).blind.gradient else 1
