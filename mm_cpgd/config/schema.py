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

from mm_cpgd.config.given import EarlyAnswersConfig, EmptyThoughtConfig
from mm_cpgd.config.pictures import BlindConfig, NoisyConfig
from mm_cpgd.config.rollout import RolloutConfig
from mm_cpgd.config.section import Section


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


class ReplayConfig(Section):
    """Completions of earlier iterations that are learned from again (``docs/algorithms.md``)."""

    credit: PartConfig = Field(description="which entries are replayed, and with which advantages")
    weight: float | dict[str, Any] = Field(
        1.0, description="factor on their loss, at least 0, or a schedule of it"
    )
    token_weights: list[PartConfig] = Field(
        default_factory=list, description="weights of the surrogate by token, on their rows"
    )


class TemperedConfig(Section):
    """Further completions at another temperature, of which right ones are imitated."""

    temperature: PartConfig = Field(description="temperature and largest number of imitated completions")
    share: float = Field(
        0.25, gt=0, le=1, description="share of the prompts that get rollout.completions of them"
    )
    weight: NonNegativeFloat = Field(1.0, description="factor on the advantage n / (P·G) of n of them")


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
    budget: PartConfig | None = Field(
        None, description="how many completions each prompt gets; null: rollout.completions"
    )
    demonstrations: PartConfig | None = Field(
        None, description="which prompts learn from their rows' solutions; null: none"
    )
    reward_weights: PartConfig | None = Field(
        None, description="weights of the rules that change over the run; null: their own"
    )
    completions: list[PartConfig] = Field(
        default_factory=list, description="filters of completions, after their advantages"
    )
    replay: ReplayConfig | None = Field(None, description="earlier completions; null: none")
    tempered: TemperedConfig | None = Field(
        None, description="completions at another temperature; null: none"
    )
    token_advantages: list[PartConfig] = Field(
        default_factory=list, description="advantages of completions to those of tokens, in this order"
    )
    blind: BlindConfig = Field(default_factory=BlindConfig)
    noisy: NoisyConfig | None = Field(None, description="noised pictures in rollouts; null: none")
    early_answers: EarlyAnswersConfig | None = Field(
        None, description="answers asked for at budgets of the thinking; null: none"
    )
    empty_thought: EmptyThoughtConfig | None = Field(
        None, description="half of the completions after an empty thought; null: none"
    )


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
    """Supervised fine-tuning on solutions (``mm-cpgd sft``); the template is that of demonstrations too."""

    epochs: PositiveFloat = Field(1.0, description="passes over the rows, unless steps is given")
    steps: PositiveInt | None = Field(None, description="optimizer steps; null: by epochs")
    batch: PositiveInt = Field(64, description="examples per optimizer step, over all processes")
    target_template: str = Field(
        "{solution}", description="text to learn; {solution} and {answer} are filled in"
    )
    surrogate: PartConfig = Field(
        default_factory=lambda: PartConfig(name="policy_gradient"),
        description="term maximised for each token, with an advantage of 1; policy_gradient: the likelihood",
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
    visual_kl_every: NonNegativeInt = Field(10, description="iterations between policy/visual_kl; 0: none")


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
