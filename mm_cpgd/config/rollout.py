"""Settings of rollouts: engines, sampling, and the environment that conversations are held with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from mm_cpgd.config.section import Section


class VllmConfig(Section):
    """vLLM as the sampling engine (``docs/vllm.md``)."""

    mode: Literal["colocated", "server"] = Field(
        "colocated", description="in the training process, or as a server on other GPUs"
    )
    url: str = Field("http://localhost:8000", description="address of the server")
    urls: list[str] = Field(
        default_factory=list, description="addresses of several servers that share the prompts; empty: url"
    )
    weights: Literal["nccl", "folder"] = Field(
        "nccl", description="weights reach a server over NCCL, or as files in a folder that both can read"
    )
    weights_folder: Path | None = Field(
        None,
        description="that folder, at the same path for servers; runs may share it; null: RUN/weights",
    )
    weights_port: PositiveInt = Field(
        51216, description="main process's port for sending weights to the first server; the next ones follow"
    )
    wait: PositiveFloat = Field(
        240.0, description="seconds to wait for servers: at the start, and when none is left"
    )
    timeout: PositiveFloat = Field(
        1800.0, description="seconds after which a server without an answer to a request has failed"
    )
    requests: PositiveInt = Field(64, description="concurrent requests to a server, per process")
    tensor_parallel: PositiveInt = Field(
        1, description="colocated: GPUs, and processes of the run, that share one vLLM"
    )
    memory_share: float = Field(0.3, gt=0, lt=1, description="colocated: share of the GPU's memory for vLLM")
    max_model_len: PositiveInt | None = Field(
        None, description="tokens of prompt and completion together; null: the model's limit"
    )
    sleep: bool = Field(False, description="colocated: release GPU memory during updates")
    options: dict[str, Any] = Field(default_factory=dict, description="further arguments of vllm.LLM")
    adapters: Literal["merged", "adapter"] = Field(
        "merged", description="with policy.lora: send merged weights, or the adapters alone"
    )
    max_difference: PositiveFloat | None = Field(
        None,
        description="bound of the mean difference, in nats, between the log-probabilities of vLLM and of the "
        "trainer, the largest hundredth left out, beyond which the run ends; null: by the number format",
    )
    correction: Literal["off", "truncate_tokens", "truncate_sequences", "mask_tokens", "mask_sequences"] = (
        Field("off", description="what is done about the ratio π_old / π_vLLM of tokens or completions")
    )
    importance_cap: PositiveFloat | None = Field(
        None,
        description="correction: largest weight or unmasked ratio; null: 2 for tokens, 1.05 for sequences",
    )
    importance_floor: NonNegativeFloat | None = Field(
        None, description="correction: smallest unmasked ratio; null: 0.5 for tokens, 0.95 for sequences"
    )


class EnvironmentConfig(Section):
    """Conversations of several turns with an environment (``docs/environments.md``)."""

    name: str = Field(description="plain, tools, an installed environment's name, or path/to/file.py:name")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the environment")
    max_turns: PositiveInt = Field(8, description="turns of the policy in a conversation")
    max_tokens: PositiveInt = Field(
        8192, description="tokens of a conversation after its prompt: own ones and those of observations"
    )
    max_images: NonNegativeInt = Field(16, description="images in the observations of a conversation")
    tool_seconds: PositiveFloat = Field(
        30.0, description="seconds for one reply; without it by then, the completion cannot be scored"
    )
    threads: PositiveInt = Field(16, description="environments that reply at a time, per process")
    rounds: bool = Field(
        False, description="begin no turn before all environments have replied to the one before"
    )
    cache_gib: NonNegativeFloat | None = Field(
        None,
        description="local engine: GiB of keys and values that are kept of conversations whose tools work; "
        "null: half of what is free on a GPU, no limit on a CPU",
    )
    scores: dict[str, float] = Field(
        default_factory=dict,
        description="weights in the reward of the parts that the environment scores; others are only logged",
    )
    gates: dict[str, str] = Field(
        default_factory=dict,
        description="reward rule by score: below 1 there, the score counts 0; with returns=outcome",
    )
    returns: Literal["outcome", "by_turn"] = Field(
        "outcome",
        description="one advantage for the whole conversation, or one for each turn from what follows it",
    )
    discount: float = Field(1.0, gt=0, le=1, description="by_turn: factor on what is scored one turn later")


class RolloutConfig(Section):
    """Sampling of completions."""

    engine: Literal["local", "vllm"] = Field("local", description="the training model itself, or vLLM")
    vllm: VllmConfig = Field(default_factory=VllmConfig)
    prompts: PositiveInt = Field(32, description="P: prompts per iteration, over all processes")
    completions: PositiveInt = Field(8, description="G: completions per prompt")
    max_new_tokens: PositiveInt = Field(1024, description="largest length of a completion")
    temperature: PositiveFloat = Field(
        1.0, description="divides the logits, in sampling and in all log-probabilities that are trained on"
    )
    top_p: float = Field(1.0, gt=0, le=1, description="smallest set of tokens with this probability; 1: all")
    top_k: NonNegativeInt = Field(0, description="this many most likely tokens; 0: all")
    min_p: float = Field(
        0.0, ge=0, lt=1, description="tokens with at least this share of the largest probability"
    )
    cuts: Literal["renormalise", "reweight"] = Field(
        "renormalise",
        description="with top_p, top_k, min_p: train on probabilities over the kept tokens; or on those over "
        "all tokens, each token's advantage weighted by π_old / π_sampled",
    )
    batch_prompts: PositiveInt = Field(32, description="prompts decoded together, per process")
    environment: EnvironmentConfig | None = Field(
        None, description="replies to the policy's turns; null: a completion is one turn"
    )
    shared_prefix: bool = Field(
        True, description="run each prompt once for all its completions, in sampling and training"
    )
    ahead: NonNegativeInt = Field(
        0,
        description="sample up to this many rollout batches before the updates on earlier ones are done: "
        "vLLM during these, the local engine before",
    )
    swap_midway: bool = Field(
        False,
        description="with ahead: completions in progress go on under new weights; true is refused",
    )
    prefetch: bool | None = Field(
        None,
        description="encode the next iteration's prompts during the update; null: not on the CPU",
    )

    @property
    def most_tokens(self) -> int:
        """Largest number of tokens after a prompt, those of observations included."""
        return self.environment.max_tokens if self.environment else self.max_new_tokens
