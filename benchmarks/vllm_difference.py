"""Differences between the log-probabilities of vLLM and of the trainer with equal weights (docs/vllm.md).

``python -m benchmarks.vllm_difference bfloat16`` prints them for a vLLM of this number format, on a CPU, with
the embedded tiny policy. On vLLM's CPU build ``VLLM_CPU_KVCACHE_SPACE=1`` limits the memory of its cache.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from data.generated import generate
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.policy import EncodedPrompt, Policy, load_policy
from mm_cpgd.rollout import Completion, Sampling
from mm_cpgd.rollout.parity import compare_logprobs
from mm_cpgd.rollout.vllm import VllmEngine
from mm_cpgd.rollout.vllm.colocated import ColocatedBackend, open_colocated
from mm_cpgd.training.experience import pad_tokens

SAMPLINGS = (
    Sampling(48),
    Sampling(48, temperature=1.7, top_p=0.8),
    Sampling(48, temperature=0.7, top_k=5),
    Sampling(48, temperature=1.5, min_p=0.1),
    Sampling(48, temperature=1.5, top_p=0.9, min_p=0.1),
)
PROMPTS, COMPLETIONS, ROWS = 32, 8, 64


def main() -> None:
    """Print a line for each kind of sampling and each precision of the trainer."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    policy = load_policy(PolicyConfig(model="embedded:tiny", dtype="float32"))
    engine = VllmEngine(policy, _open(policy, sys.argv[1]))
    examples = generate(("shapes", "clock", "table", "lengths"), PROMPTS, seed=5)
    prompts = [policy.encoder.encode(example) for example in examples]
    seeds = [[100 * prompt + k for k in range(COMPLETIONS)] for prompt in range(PROMPTS)]
    owners = [prompt for prompt in prompts for _ in range(COMPLETIONS)]
    for sampling in SAMPLINGS:
        rows = [one for group in engine.generate(prompts, sampling, seeds) for one in group]
        for autocast in (False, True):
            gaps = differences(policy, owners, rows, replace(sampling, min_p_first=True), autocast=autocast)
            _show(f"{sys.argv[1]}, trainer {'bfloat16' if autocast else 'float32'}, {sampling}", gaps)


def differences(
    policy: Policy,
    prompts: Sequence[EncodedPrompt],
    rows: Sequence[Completion],
    sampling: Sampling,
    *,
    autocast: bool,
) -> Tensor:
    """Return the trainer's minus vLLM's log-probability of each token (K,)."""
    tokens, mask = pad_tokens([one.tokens for one in rows])
    sampled = pad_tokens([one.logprobs for one in rows])[0].float()
    found = []
    for start in range(0, len(rows), ROWS):
        part = slice(start, start + ROWS)
        batch = (prompts[part], tokens[part], mask[part])
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            kept = policy.kept_tokens(*batch, sampling) if sampling.has_cuts else None
            found.append(policy(*batch, False, sampling.temperature, kept)[0].float())
    return (torch.cat(found) - sampled)[mask]


def _open(policy: Policy, dtype: str) -> ColocatedBackend:
    options = {"dtype": dtype, "enforce_eager": True, "enable_chunked_prefill": False}
    return open_colocated(
        policy.model.name_or_path, max_model_len=512, options={**options, "max_num_batched_tokens": 65536}
    )


def _show(label: str, gaps: Tensor) -> None:
    found = compare_logprobs(gaps)
    high = float(gaps.abs().quantile(0.99))
    print(
        f"{label}: {found.tokens:,} tokens, trimmed mean {found.trimmed:.1e}, mean {found.mean:.1e}, "
        f"99 % quantile {high:.1e}, maximum {found.largest:.1e}"
    )


if __name__ == "__main__":
    main()
