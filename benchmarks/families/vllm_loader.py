"""The matrix's check of vLLM: its loader takes a saved policy, and the weights that a run sends, alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.families.subject import Subject, expect
from mm_cpgd.rollout.vllm.weights import named_weights

# No weight has it by chance.
UNSET = 7.5


def load(subject: Subject) -> None:
    """The files of a saved policy set every parameter of vLLM's model, and sent weights the same."""
    policy = subject.load(lora={"rank": 2})
    folder = subject.new_folder()
    policy.save(folder)
    read = _loaded(subject, folder, _files(folder))
    sent = _loaded(subject, folder, named_weights(policy))
    # vLLM keeps a head of tied embeddings that it does not use.
    tied = {"language_model.lm_head.weight"} if policy.model.config.tie_word_embeddings else set()
    unset = [name for name, value in read.items() if bool((value == UNSET).all()) and name not in tied]
    expect(not unset, f"not set by the files: {unset}")
    others = [name for name, value in read.items() if not torch.equal(value, sent[name])]
    expect(not others, f"set to other values by sending: {others}")


def _loaded(subject: Subject, folder: Path, weights: Iterator[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Return the parameters of vLLM's model after its loader has taken the weights."""
    from vllm.config import set_current_vllm_config
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader.utils import initialize_model

    options: dict[str, Any] = {"dtype": "float32", "enforce_eager": True, "max_model_len": 512}
    config = EngineArgs(model=str(folder), **options).create_engine_config()
    with set_current_vllm_config(config), _one_process(subject), torch.no_grad():
        model = initialize_model(config)
        for parameter in model.parameters():
            parameter.data.fill_(UNSET)
        model.load_weights(weights)
        return {name: parameter.data.clone() for name, parameter in model.named_parameters()}


@contextmanager
def _one_process(subject: Subject) -> Iterator[None]:
    from vllm.distributed import (
        destroy_distributed_environment,
        destroy_model_parallel,
        init_distributed_environment,
        initialize_model_parallel,
    )

    init_distributed_environment(1, 0, f"file://{subject.new_folder() / 'rendezvous'}", 0, "gloo")
    initialize_model_parallel(1, 1)
    try:
        yield
    finally:
        destroy_model_parallel()
        destroy_distributed_environment()


def _files(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for file in sorted(folder.glob("*.safetensors")):
        yield from load_file(file).items()
