"""The run's configuration: what may be written in a YAML file, with types, limits and defaults.

People write a short YAML; ``load_config`` resolves ``extends``, the algorithm's recipe and command line
overrides into one complete ``RunConfig``, which the run folder keeps.
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


class Section(BaseModel):
    """A part of the config; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", validate_default=True)


class LoraConfig(Section):
    """Low-rank adapters on the language model instead of full training (peft)."""

    rank: PositiveInt = 16
    alpha: PositiveInt = 32
    targets: list[str] | Literal["all-linear"] = "all-linear"


class PolicyConfig(Section):
    """Which model, and how it is loaded and asked."""

    model: str = Field(description="hub name, folder, or embedded:tiny")
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    attention: str = "sdpa"
    freeze_vision: bool = True
    gradient_checkpointing: bool = False
    lora: LoraConfig | None = None
    min_pixels: PositiveInt | None = None
    max_pixels: PositiveInt | None = None
    system_prompt: str | None = None
    prompt_template: str = Field("{question}", description="{question} and {choices} are filled in")
    trust_remote_code: bool = False


class SourceConfig(Section):
    """One set of rows. ``path`` is a file, a folder, a hub name, or ``generated:KIND[,KIND…]``."""

    path: str
    split: str | None = None
    name: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    limit: PositiveInt | None = None
    offset: NonNegativeInt = 0
    seed: int = Field(0, description="of generated tasks: same seed, same rows")


class DataConfig(Section):
    """Training and held-out rows, and what to do with rows that cannot be used."""

    train: SourceConfig
    eval: SourceConfig | None = None
    max_prompt_tokens: PositiveInt = 4096
    max_bad_share: float = Field(0.1, ge=0, le=1)
    max_image_pixels: PositiveInt = Field(50_000_000, description="larger images are taken for bombs")
    check_images: Literal["decode", "header"] = "decode"


class VllmConfig(Section):
    """vLLM as the sampling engine (``docs/vllm.md``)."""

    mode: Literal["colocated", "server"] = Field(
        "colocated", description="in the training process, or as a server on other GPUs"
    )
    url: str = Field("http://localhost:8000", description="of the server")
    weights_port: PositiveInt = Field(51216, description="of the main process, for weights to the server")
    wait: PositiveFloat = Field(240.0, description="seconds for the server to come up")
    requests: PositiveInt = Field(64, description="to the server at the same time, per process")
    memory_share: float = Field(0.3, gt=0, lt=1, description="of the GPU's memory, colocated")
    max_model_len: PositiveInt | None = Field(None, description="prompt and completion; null: the model's")
    sleep: bool = Field(False, description="colocated: give GPU memory back during updates")
    options: dict[str, Any] = Field(default_factory=dict, description="more arguments of vllm.LLM")
    importance_cap: PositiveFloat | None = Field(
        None, description="weight tokens by the policy's probability over vLLM's, cut here; null: do not"
    )


class RolloutConfig(Section):
    """How completions are sampled."""

    engine: Literal["local", "vllm"] = "local"
    vllm: VllmConfig = Field(default_factory=VllmConfig)
    prompts: PositiveInt = Field(32, description="P: prompts an iteration, over all processes")
    completions: PositiveInt = Field(8, description="G: completions a prompt")
    max_new_tokens: PositiveInt = 1024
    temperature: PositiveFloat = 1.0
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: NonNegativeInt = 0
    min_p: float = Field(0.0, ge=0, lt=1)
    batch_prompts: PositiveInt = Field(32, description="prompts decoded together, per process")
    shared_prefix: bool = Field(
        True, description="run each prompt once for all its completions, also to train"
    )
    prefetch: bool | None = Field(
        None, description="encode the next iteration's prompts during the update; null: with an accelerator"
    )


class RewardConfig(Section):
    """One rule of the weighted sum, as ``rewards.Component``."""

    rule: str = Field(description="a rule's name, or path/to/file.py:function")
    weight: float = 1.0
    options: dict[str, Any] = Field(default_factory=dict)
    name: str | None = Field(None, description="in the log; null: the rule's")
    when: str | None = Field(None, description="another reward's name; without it this one counts 0")
    at_least: float = Field(1.0, description="the score that the other must reach")
    min: float | None = Field(None, description="lower scores are raised to it")
    max: float | None = Field(None, description="higher scores are cut to it")
    on_error: Literal["skip", "stop"] = Field("skip", description="what a rule that raises does to the run")


class PartConfig(BaseModel):
    """A named component of the algorithm; its other keys are the component's own numbers."""

    model_config = ConfigDict(extra="allow")
    name: str = Field(description="a part's name (mm-cpgd algorithms), or path/to/file.py:function")

    @property
    def options(self) -> dict[str, Any]:
        """The numbers, without the name."""
        return dict(self.model_extra or {})


class AlgorithmConfig(Section):
    """The objective as a composition; ``recipe`` fills in what is not written."""

    recipe: str | None = None
    advantage: PartConfig
    surrogate: PartConfig
    regularizers: list[PartConfig] = Field(default_factory=list)
    token_weights: list[PartConfig] = Field(default_factory=list)
    aggregation: PartConfig
    selection: list[PartConfig] = Field(default_factory=list)
    shaping: list[PartConfig] = Field(default_factory=list)
    prompts: PartConfig | None = Field(None, description="score that prompts are drawn by; null: all alike")


class TrainingConfig(Section):
    """The optimizer and its steps."""

    iterations: PositiveInt = 100
    inner_epochs: PositiveInt = Field(1, description="passes over one rollout batch")
    mini_batch_prompts: PositiveInt | None = Field(None, description="prompts an optimizer step; null: all")
    micro_batch_tokens: PositiveInt = Field(16384, description="tokens of a forward pass, per process")
    logprob_chunk: PositiveInt = Field(1024, description="tokens whose logits exist at one time")
    learning_rate: PositiveFloat = 1e-6
    vision_learning_rate: PositiveFloat | None = None
    schedule: str = "constant"
    warmup_steps: NonNegativeInt = 0
    weight_decay: NonNegativeFloat = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: PositiveFloat = 1.0
    max_skipped_steps: PositiveInt = Field(5, description="non-finite steps in a row that end the run")
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    threads: PositiveInt | None = Field(None, description="CPU threads; null: torch's default")


class SftConfig(Section):
    """Supervised fine-tuning on solutions (``mm-cpgd sft``)."""

    epochs: PositiveFloat = 1.0
    steps: PositiveInt | None = None
    batch: PositiveInt = Field(64, description="examples an optimizer step, over all processes")
    target_template: str = Field(
        "{solution}", description="{solution}, {answer}; what the model learns to write"
    )


class EvaluationConfig(Section):
    """Held-out evaluation during training; greedy."""

    every: NonNegativeInt = Field(0, description="iterations between evaluations; 0: only before and after")
    before: bool = True
    after: bool = True
    batch_prompts: PositiveInt = 64
    max_new_tokens: PositiveInt | None = Field(None, description="null: as in rollout")


class CheckpointConfig(Section):
    """When to save and how much to keep."""

    every: NonNegativeInt = Field(20, description="iterations; 0: only at the end")
    keep: PositiveInt = 2


class GuardConfig(Section):
    """What a run does about signs of a collapse (``docs/guard.md``)."""

    action: Literal["warn", "rollback", "stop", "off"] = "warn"
    max_rollbacks: PositiveInt = Field(3, description="of the whole run; the next alarm stops it")
    step_factor: float = Field(0.1, gt=0, le=1, description="of the learning rates at each rollback, at most")
    target_drift: float = Field(
        0.001, ge=0, description="nats a token an iteration that they are lowered to; 0: step_factor alone"
    )
    alpha_factor: float = Field(1.0, ge=1, description="of the policy drift's alpha, at each rollback")
    settle: NonNegativeInt = Field(8, description="iterations before the first copy but that of the start")
    copy_every: PositiveInt = Field(1, description="iterations between copies to go back to")
    copies: Literal["memory", "disk"] = Field("memory", description="where the two copies are")
    ignore: list[str] = Field(default_factory=list, description="names of signs not to look for")


class TrackingConfig(Section):
    """Where metrics go beside metrics.jsonl."""

    tools: list[Literal["tensorboard", "wandb"]] = Field(default_factory=list)
    project: str = "mm-cpgd"
    rollouts_every: PositiveInt = 1
    rollouts_images: NonNegativeInt = Field(1, description="prompts an iteration whose images are kept")


class RunConfig(Section):
    """A complete run."""

    name: str = "run"
    seed: int = 0
    output: Path | None = Field(None, description="run folder; null: runs/NAME")
    policy: PolicyConfig
    data: DataConfig
    rollout: RolloutConfig = Field(default_factory=RolloutConfig)
    rewards: list[RewardConfig] = Field(
        default_factory=lambda: [RewardConfig(rule="accuracy"), RewardConfig(rule="format", weight=0.5)]
    )
    algorithm: AlgorithmConfig = Field(description="recipe cpgd where none is written")
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    sft: SftConfig = Field(default_factory=SftConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)
    guard: GuardConfig = Field(default_factory=GuardConfig)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.output or Path("runs") / self.name
