"""Schema of a run's configuration: all keys of the YAML file with types, limits, defaults and meaning.

A config file is short; ``load_config`` resolves ``extends``, the algorithm's recipe and command line
overrides into one complete ``RunConfig``, which is saved in the run folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from mm_cpgd.config.blind import BlindConfig


class Section(BaseModel):
    """Section of the config; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", validate_default=True)


class LoraConfig(Section):
    """Low-rank adapters instead of full training (peft)."""

    rank: PositiveInt = Field(16, description="rank of the adapters")
    alpha: PositiveInt = Field(32, description="scale of the adapters is alpha / rank")
    targets: list[str] | Literal["all-linear"] = Field(
        "all-linear", description="names of the adapted modules, or all linear ones"
    )
    vision: bool = Field(
        False, description="adapt the vision tower and its projector too, not the language model alone"
    )
    dora: bool = Field(False, description="train the norms of weights apart from their directions (DoRA)")
    quantize: Literal["nf4"] | None = Field(
        None, description="keep the frozen weights in 4 bits (QLoRA; bitsandbytes); null: in policy.dtype"
    )
    adapter: str | None = Field(None, description="folder of adapters to start from; null: new ones")


class VideoConfig(Section):
    """Which frames of a video the model sees, and how large (``docs/video.md``)."""

    fps: PositiveFloat = Field(2.0, description="frames per second of video")
    frames: PositiveInt | None = Field(None, description="frames of every video, in place of fps")
    min_frames: PositiveInt = Field(4, description="fewest frames, if the video has so many")
    max_frames: PositiveInt = Field(64, ge=2, description="most frames")
    min_pixels: PositiveInt = Field(3136, description="smaller frames are enlarged")
    max_pixels: PositiveInt = Field(602_112, description="larger frames are shrunk")
    max_tokens: PositiveInt = Field(2048, description="most vision tokens of all videos of a prompt")


class PolicyConfig(Section):
    """The model, how it is loaded, and how it is prompted."""

    model: str = Field(description="hub name, folder, or embedded:tiny")
    revision: str | None = Field(None, description="branch, tag or commit of a hub model; null: the newest")
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="type of the loaded weights")
    attention: str = Field("sdpa", description="attention implementation, as transformers names it")
    freeze_vision: bool = Field(True, description="do not train the vision tower")
    gradient_checkpointing: bool | Literal["selective"] = Field(
        False,
        description="less memory, one more forward pass; selective: half of one, and half of the memory",
    )
    compile: bool | Literal["auto"] = Field(
        "auto", description="compile the layers for the update; auto: large models on a GPU"
    )
    lora: LoraConfig | None = Field(None, description="train adapters; null: train all weights")
    min_pixels: PositiveInt | None = Field(None, description="smaller images are enlarged; null: processor's")
    max_pixels: PositiveInt | None = Field(None, description="larger images are shrunk; null: processor's")
    video: VideoConfig = Field(default_factory=VideoConfig)
    system_prompt: str | None = Field(None, description="null: as in the chat template")
    system_turns: Literal["row", "config"] = Field(
        "row",
        description="rows with a system turn of their own: use it in place of system_prompt, or leave it out",
    )
    prompt_template: str = Field("{question}", description="{question} and {choices} are filled in")
    trust_remote_code: bool = Field(False, description="run model code from the hub")


def trains_vision(policy: PolicyConfig) -> bool:
    """Return whether weights of the vision tower, or adapters on it, are trained."""
    return not policy.freeze_vision or (policy.lora is not None and policy.lora.vision)


class SourceConfig(Section):
    """One source of rows (``docs/data.md``)."""

    path: str = Field(description="file, folder, hub name, or generated:KIND[,KIND…]")
    split: str | None = Field(None, description="split of a dataset; null: its only one")
    name: str | None = Field(None, description="configuration of a hub dataset")
    columns: dict[str, str] = Field(default_factory=dict, description="field → column, path or template")
    limit: PositiveInt | None = Field(None, description="largest number of rows; null: all")
    offset: NonNegativeInt = Field(0, description="rows skipped at the start")
    seed: int = Field(0, description="seed of generated rows")


class DataConfig(Section):
    """Training and held-out rows, and the handling of unusable rows."""

    train: SourceConfig
    eval: SourceConfig | None = Field(None, description="held-out rows; null: no evaluation")
    max_prompt_tokens: PositiveInt = Field(4096, description="rows with a longer prompt are unusable")
    max_bad_share: float = Field(0.1, ge=0, le=1, description="a larger share of unusable rows is an error")
    max_image_pixels: PositiveInt = Field(50_000_000, description="larger images are unusable")
    check_images: Literal["decode", "header"] = Field(
        "decode", description="check whole images at the start, or their headers only"
    )
    workers: NonNegativeInt | None = Field(
        None,
        description="processes that open and encode images ahead, per process of the run; 0: none; null: of "
        "data with images and on an accelerator, up to 4",
    )


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


class RewardConfig(Section):
    """One rule of the weighted sum, see ``rewards.Component``."""

    rule: str = Field(description="a rule's name, or path/to/file.py:function")
    weight: float = 1.0
    options: dict[str, Any] = Field(default_factory=dict, description="options of the rule")
    name: str | None = Field(None, description="name in metrics; null: the rule's")
    when: str | None = Field(None, description="name of the reward that gates this one; null: no gate")
    at_least: float = Field(1.0, description="score of the gating reward below which this one counts 0")
    min: float | None = Field(None, description="lower bound of the score")
    max: float | None = Field(None, description="upper bound of the score")
    on_error: Literal["skip", "stop"] = Field(
        "skip", description="if the rule raises: leave the completion unscored, or end the run"
    )
    timeout: PositiveFloat | None = Field(
        60.0,
        description="seconds for one completion, for rules in a file or an installed package, which run in "
        "processes of their own; null: no limit, in the trainer's process",
    )


class PartConfig(BaseModel):
    """A named part of the objective; its other keys are the part's options."""

    model_config = ConfigDict(extra="allow")
    name: str = Field(description="a part's name (mm-cpgd algorithms), or path/to/file.py:function")

    @property
    def options(self) -> dict[str, Any]:
        """The options, without the name."""
        return dict(self.model_extra or {})


class AlgorithmConfig(Section):
    """The objective as a composition of parts (``docs/algorithms.md``)."""

    recipe: str | None = Field(None, description="named composition that fills in the keys not given")
    advantage: PartConfig = Field(description="rewards to advantages")
    surrogate: PartConfig = Field(description="term maximised for each token")
    regularizers: list[PartConfig] = Field(default_factory=list, description="terms subtracted by token")
    token_weights: list[PartConfig] = Field(
        default_factory=list, description="weights of the surrogate by token"
    )
    aggregation: PartConfig = Field(description="weights that sum all tokens to one number")
    selection: list[PartConfig] = Field(default_factory=list, description="filters of prompts")
    shaping: list[PartConfig] = Field(default_factory=list, description="additions to rewards")
    prompts: PartConfig | None = Field(
        None, description="score of the curriculum sampler; null: prompts are drawn uniformly"
    )
    completions: list[PartConfig] = Field(
        default_factory=list, description="filters of completions, after their advantages"
    )
    token_advantages: list[PartConfig] = Field(
        default_factory=list, description="advantages of completions to those of tokens, in this order"
    )
    blind: BlindConfig = Field(default_factory=BlindConfig)


class TrainingConfig(Section):
    """The optimizer and its steps."""

    iterations: PositiveInt = Field(100, description="rollout batches of the whole run")
    inner_epochs: PositiveInt = Field(1, description="passes over one rollout batch")
    mini_batch_prompts: PositiveInt | None = Field(None, description="prompts per optimizer step; null: all")
    micro_batch_tokens: PositiveInt | None = Field(
        None, description="tokens per forward pass, per process; null: 16384, on a CPU 4096"
    )
    logprob_chunk: PositiveInt = Field(1024, description="tokens whose logits are in memory at a time")
    optimizer: Literal["adamw", "adamw_8bit"] = Field(
        "adamw", description="moments in the weights' format, or in 8 bits (bitsandbytes)"
    )
    rounding: Literal["nearest", "stochastic"] = Field(
        "nearest",
        description="of steps on bfloat16 weights; stochastic: up or down, so that the mean is exact",
    )
    offload_moments: bool = Field(False, description="keep the moments in CPU memory; slower steps")
    learning_rate: PositiveFloat = 1e-6
    vision_learning_rate: PositiveFloat | None = Field(
        None, description="learning rate of the vision tower; null: the same"
    )
    schedule: str = Field("constant", description="learning-rate schedule, as transformers names it")
    warmup_steps: NonNegativeInt = Field(0, description="optimizer steps of linear warm-up")
    weight_decay: NonNegativeFloat = 0.0
    betas: tuple[float, float] = Field((0.9, 0.999), description="AdamW's β₁ and β₂")
    max_grad_norm: PositiveFloat = Field(1.0, description="gradients are clipped to this norm")
    max_skipped_steps: PositiveInt = Field(
        5, description="number of consecutive non-finite steps that ends the run"
    )
    mixed_precision: Literal["auto", "no", "bf16"] = Field(
        "auto", description="precision of the forward pass"
    )
    threads: PositiveInt | None = Field(None, description="CPU threads; null: torch's default")

    def tokens_of_pass(self, *, on_gpu: bool) -> int:
        """Return ``micro_batch_tokens``, or its default: a CPU gains nothing by larger passes."""
        return self.micro_batch_tokens or (16384 if on_gpu else 4096)


class SftConfig(Section):
    """Supervised fine-tuning on solutions (``mm-cpgd sft``)."""

    epochs: PositiveFloat = Field(1.0, description="passes over the rows, unless steps is given")
    steps: PositiveInt | None = Field(None, description="optimizer steps; null: by epochs")
    batch: PositiveInt = Field(64, description="examples per optimizer step, over all processes")
    target_template: str = Field(
        "{solution}", description="text to learn; {solution} and {answer} are filled in"
    )


class EvaluationConfig(Section):
    """Held-out evaluation during training, with greedy decoding."""

    every: NonNegativeInt = Field(0, description="iterations between evaluations; 0: only before and after")
    before: bool = Field(True, description="evaluate before training")
    after: bool = Field(True, description="evaluate after training")
    batch_prompts: PositiveInt = Field(64, description="prompts decoded together, per process")
    max_new_tokens: PositiveInt | None = Field(None, description="null: as in rollout")


class DistributedConfig(Section):
    """Weights over several processes (``docs/scale.md``)."""

    strategy: Literal["auto", "ddp", "fsdp2", "deepspeed"] = Field(
        "auto",
        description="complete weights on every process (ddp), or shards (fsdp2); auto: as accelerate launch "
        "says, else ddp",
    )
    cpu_offload: bool = Field(False, description="fsdp2: keep shards and optimizer state in CPU memory")
    reshard_after_forward: bool = Field(
        True, description="fsdp2: free a layer's gathered weights between forward and backward pass"
    )
    timeout: PositiveFloat = Field(
        1800.0, description="seconds after which a process gives up waiting for the others"
    )


class CheckpointConfig(Section):
    """Checkpoints: how often, and how many are kept."""

    every: NonNegativeInt = Field(20, description="iterations between checkpoints; 0: only at the end")
    keep: PositiveInt = Field(2, description="number of newest checkpoints that are kept")
    background: bool = Field(False, description="with sharded weights: write while training goes on")


class GuardConfig(Section):
    """Reaction to collapse signals (``docs/guard.md``)."""

    action: Literal["warn", "rollback", "stop", "off"] = Field("warn", description="reaction to an alarm")
    max_rollbacks: PositiveInt = Field(3, description="rollbacks of the whole run; the next alarm stops it")
    step_factor: float = Field(
        0.1, gt=0, le=1, description="largest factor on the learning rates at a rollback"
    )
    target_drift: float = Field(
        0.001,
        ge=0,
        description="drift per iteration in nats per token that a rollback aims at; 0: step_factor alone",
    )
    alpha_factor: float = Field(1.0, ge=1, description="factor on the policy drift's alpha at each rollback")
    settle: NonNegativeInt = Field(8, description="iterations between the initial and the next snapshot")
    copy_every: PositiveInt = Field(1, description="iterations between snapshots")
    copies: Literal["memory", "disk"] = Field("memory", description="storage of the two snapshots")
    ignore: list[str] = Field(default_factory=list, description="names of collapse signals to ignore")


class TrackingConfig(Section):
    """Outputs besides metrics.jsonl."""

    tools: list[Literal["tensorboard", "wandb"]] = Field(
        default_factory=list, description="experiment trackers that also get the metrics"
    )
    project: str = Field("mm-cpgd", description="project name in the trackers")
    rollouts_every: PositiveInt = Field(1, description="iterations between stored rollouts")
    rollouts_images: NonNegativeInt = Field(1, description="prompts per stored rollout whose images are kept")
    visual_kl_every: NonNegativeInt = Field(
        10, description="iterations between measurements of policy/visual_kl; 0: none"
    )


class RunConfig(Section):
    """A complete run."""

    name: str = Field("run", description="name of the run and, by default, of its folder")
    seed: int = Field(0, description="seed of all random choices of the run")
    output: Path | None = Field(None, description="run folder; null: runs/NAME")
    policy: PolicyConfig
    data: DataConfig
    rollout: RolloutConfig = Field(default_factory=RolloutConfig)
    rewards: list[RewardConfig] = Field(
        default_factory=lambda: [RewardConfig(rule="accuracy"), RewardConfig(rule="format", weight=0.5)]
    )
    algorithm: AlgorithmConfig = Field(description="recipe cpgd by default")
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    sft: SftConfig = Field(default_factory=SftConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    distributed: DistributedConfig = Field(default_factory=DistributedConfig)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)
    guard: GuardConfig = Field(default_factory=GuardConfig)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.output or Path("runs") / self.name
