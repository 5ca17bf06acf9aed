"""Construction of a run from its config: rows, rewards, objective, engine, guard, trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import DistributedType

from data import (
    Example,
    ExampleSet,
    PromptSampler,
    ScoredPromptSampler,
    TooManyBadRows,
    load_examples,
    write_quarantine,
)
from mm_cpgd.algorithms.objective import Objective, build_objective
from mm_cpgd.config.schema import GuardConfig, RunConfig, SourceConfig
from mm_cpgd.errors import UserError
from mm_cpgd.guard.guard import Guard
from mm_cpgd.guard.rollback import Keeper, Snapshots
from mm_cpgd.guard.signs import SIGNS, Sign
from mm_cpgd.interrupt import ShouldStop
from mm_cpgd.policy import Policy, PromptEncoder
from mm_cpgd.rollout import LocalEngine, RolloutEngine, Sampling
from mm_cpgd.tracking import MetricsLog, RolloutLog
from mm_cpgd.training.collector import Collector
from mm_cpgd.training.experience import ExperienceSource
from mm_cpgd.training.learner import LOGGED, Learner
from mm_cpgd.training.optimizer import OptimizerStep, build_optimizer, build_schedule
from mm_cpgd.training.sft import LOGGED as LOGGED_OF_IMITATION
from mm_cpgd.training.sft import Demonstrator, imitation_objective
from mm_cpgd.training.state import TrainingState
from mm_cpgd.training.trainer import Evaluator, Trainer
from rewards import Component, RewardSum

Check = Callable[[Example], str | None]


def load_rows(
    config: RunConfig,
    source: SourceConfig,
    encoder: PromptEncoder,
    quarantine: Path | None,
    checks: Sequence[Check] = (),
    progress: Callable[[int, int], None] | None = None,
) -> ExampleSet:
    """Read and check rows; those that cannot be used go to the quarantine file with their reasons."""
    try:
        loaded = load_examples(
            source.path,
            columns=source.columns,
            split=source.split,
            name=source.name,
            limit=source.limit,
            offset=source.offset,
            seed=source.seed,
            max_bad_share=config.data.max_bad_share,
            max_image_pixels=config.data.max_image_pixels,
            check_images=config.data.check_images,
            extra_checks=[length_check(encoder, config.data.max_prompt_tokens), *checks],
            progress=progress,
        )
    except TooManyBadRows as error:
        if quarantine:
            write_quarantine(quarantine, error.quarantined)
        raise
    if quarantine:
        write_quarantine(quarantine, loaded.quarantined)
    return loaded


def length_check(encoder: PromptEncoder, limit: int) -> Check:
    """Return a check for prompts that are too long: they are left out, never cut."""

    def check(example: Example) -> str | None:
        try:
            length = encoder.length(example)
        except ValueError as error:  # for instance an image that is 200 times as wide as high
            return f"the model's processor refuses it: {error}"
        return (
            f"the prompt has {length:,} tokens, data.max_prompt_tokens is {limit:,}"
            if length > limit
            else None
        )

    return check


def reward_sum(config: RunConfig) -> RewardSum:
    """Return the weighted sum of reward rules."""
    return RewardSum([Component(**dict(reward)) for reward in config.rewards])


def objective_of(config: RunConfig) -> Objective:
    """Return the objective that the config composes."""
    return build_objective(
        config.algorithm,
        completions=config.rollout.completions,
        max_new_tokens=config.rollout.max_new_tokens,
    )


def sampling_engine(config: RunConfig, accelerator: Accelerator, policy: Policy) -> RolloutEngine:
    """Return the sampling engine that the config asks for.

    Raises:
        UserError: it cannot be had.
    """
    if config.rollout.engine == "local":
        return local_engine(config, policy)
    from mm_cpgd.rollout.vllm import VllmEngine
    from mm_cpgd.rollout.vllm_backends import open_colocated, open_server

    chosen, loaded = config.rollout.vllm, config.policy
    if chosen.mode == "server":
        server = open_server(
            chosen.url,
            accelerator,
            weights_port=chosen.weights_port,
            wait=chosen.wait,
            requests=chosen.requests,
        )
        return VllmEngine(policy, server)
    limits = {"min_pixels": loaded.min_pixels, "max_pixels": loaded.max_pixels}
    colocated = open_colocated(
        policy.model.name_or_path,
        processes=accelerator.num_processes,
        seed=config.seed,
        memory_share=chosen.memory_share,
        max_model_len=chosen.max_model_len,
        sleep=chosen.sleep,
        trust_remote_code=loaded.trust_remote_code,
        revision=loaded.revision,
        image_limits={name: value for name, value in limits.items() if value},
        options=chosen.options,
    )
    return VllmEngine(policy, colocated)


def local_engine(config: RunConfig, policy: Policy) -> RolloutEngine:
    """Return the engine that samples with the policy itself."""
    return LocalEngine(policy, config.rollout.batch_prompts)


@dataclass(frozen=True)
class Shape:
    """How many steps a run has: iterations, prompts an optimizer step, and optimizer steps an iteration."""

    iterations: int
    mini_batch_prompts: int
    steps_per_iteration: int


def shape_of(config: RunConfig) -> Shape:
    """Return the numbers that follow from rollout and training settings."""
    mini = config.training.mini_batch_prompts or config.rollout.prompts
    steps = -(-config.rollout.prompts // mini) * config.training.inner_epochs
    return Shape(config.training.iterations, mini, steps)


def sampler_of(objective: Objective, rows: int, seed: int) -> PromptSampler:
    """Return what draws prompts: all alike, or a share of them by score."""
    if objective.prompts is None:
        return PromptSampler(rows, seed)
    return ScoredPromptSampler(rows, seed, objective.prompts.options.get("share", 0.5))


def build_trainer(
    config: RunConfig,
    accelerator: Accelerator,
    policy: Policy,
    engine: RolloutEngine,
    examples: Sequence[Example],
    evaluator: Evaluator | None,
) -> Trainer:
    """Put a reinforcement learning run together."""
    objective, shape, rollout = objective_of(config), shape_of(config), config.rollout
    sampler = sampler_of(objective, len(examples), config.seed)
    collector = Collector(
        accelerator,
        policy,
        engine,
        reward_sum(config),
        objective,
        examples,
        sampler,
        Sampling(rollout.max_new_tokens, rollout.temperature, rollout.top_p, rollout.top_k, rollout.min_p),
        prompts=rollout.prompts,
        completions=rollout.completions,
        mini_batch_prompts=shape.mini_batch_prompts,
        batch_prompts=rollout.batch_prompts,
        seed=config.seed,
        keep_logprobs=rollout.engine != "local",
        prefetch_to=shape.iterations if _prefetches(config, accelerator) else 0,
    )
    if objective.needs_reference:
        policy.keep_reference()
    steps = shape.iterations * shape.steps_per_iteration
    learner = _learner(config, accelerator, policy, objective, steps, config.training.inner_epochs, LOGGED)
    keeper = build_keeper(config, accelerator, learner)
    alone = evaluator and _after(collector.ahead.wait, evaluator)
    return _trainer(config, accelerator, collector, learner, sampler, alone, shape.iterations, keeper)


def _prefetches(config: RunConfig, accelerator: Accelerator) -> bool:
    # On a CPU the update itself keeps all cores busy.
    chosen = config.rollout.prefetch
    return accelerator.device.type != "cpu" if chosen is None else chosen


def _after(wait: Callable[[], None], evaluator: Evaluator) -> Evaluator:
    """Return the evaluator, begun after ``wait``: it uses the tokenizer too."""

    def evaluate(should_stop: ShouldStop) -> dict[str, float]:
        wait()
        return evaluator(should_stop)

    return evaluate


def build_tuner(
    config: RunConfig,
    accelerator: Accelerator,
    policy: Policy,
    examples: Sequence[Example],
    evaluator: Evaluator | None,
) -> Trainer:
    """Put a supervised fine-tuning run together; one iteration is one optimizer step."""
    sampler = PromptSampler(len(examples), config.seed)
    demonstrator = Demonstrator(
        accelerator,
        policy,
        examples,
        sampler,
        target_template=config.sft.target_template,
        batch=config.sft.batch,
    )
    steps = config.sft.steps or max(1, round(config.sft.epochs * len(examples) / config.sft.batch))
    objective = imitation_objective(config.rollout.max_new_tokens)
    learner = _learner(config, accelerator, policy, objective, steps, 1, LOGGED_OF_IMITATION)
    return _trainer(config, accelerator, demonstrator, learner, sampler, evaluator, steps)


def _learner(
    config: RunConfig,
    accelerator: Accelerator,
    policy: Policy,
    objective: Objective,
    optimizer_steps: int,
    inner_epochs: int,
    logged: Mapping[str, str],
) -> Learner:
    training = config.training
    optimizer = build_optimizer(policy, training)
    schedule = build_schedule(optimizer, training, optimizer_steps)
    wrapped, prepared = accelerator.prepare(policy, optimizer)
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    step = OptimizerStep(
        accelerator, trained, prepared, schedule, training.max_grad_norm, training.max_skipped_steps
    )
    return Learner(
        accelerator,
        policy,
        wrapped,
        objective,
        step,
        inner_epochs=inner_epochs,
        micro_batch_tokens=training.micro_batch_tokens,
        seed=config.seed,
        logged=logged,
        importance_cap=config.rollout.vllm.importance_cap if config.rollout.engine == "vllm" else None,
    )


def _trainer(
    config: RunConfig,
    accelerator: Accelerator,
    source: ExperienceSource,
    learner: Learner,
    sampler: PromptSampler,
    evaluator: Evaluator | None,
    iterations: int,
    keeper: Keeper | None = None,
) -> Trainer:
    folder, evaluation, tracking = config.folder, config.evaluation, config.tracking
    return Trainer(
        accelerator,
        source,
        learner,
        TrainingState(
            accelerator,
            learner.wrapped,
            learner.step,
            sampler,
            source.reencode,
            learner.objective,
            keeper,
        ),
        folder,
        evaluator,
        MetricsLog(folder / "metrics.jsonl"),
        RolloutLog(folder / "rollouts", tracking.rollouts_every, tracking.rollouts_images),
        iterations=iterations,
        evaluate_before=evaluation.before,
        evaluate_every=evaluation.every,
        evaluate_after=evaluation.after,
        save_every=config.checkpoint.every,
        keep=config.checkpoint.keep,
    )


_SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


def chosen_signs(ignore: list[str]) -> list[Sign]:
    """Return the signs that are looked for.

    Raises:
        UserError: there is no such sign.
    """
    names = [sign.name for sign in SIGNS]
    for name in ignore:
        if name not in names:
            raise UserError(f"guard.ignore: there is no sign {name!r}; known are {', '.join(names)}")
    return [sign for sign in SIGNS if sign.name not in ignore]


def check_guard(guard: GuardConfig, objective: Objective) -> None:
    """Say what cannot work before anything is loaded.

    Raises:
        UserError: an unknown sign, or alpha is to be raised where nothing has one.
    """
    chosen_signs(guard.ignore)
    if guard.alpha_factor != 1 and all(part.name != "policy_drift" for part in objective.regularizers):
        raise UserError(
            f"guard.alpha_factor={guard.alpha_factor:g} raises the alpha of policy_drift, and "
            "algorithm.regularizers has no policy_drift; add one, or leave guard.alpha_factor at 1"
        )


def build_keeper(config: RunConfig, accelerator: Accelerator, learner: Learner) -> Keeper:
    """Return the guard of a run, ready for its first iteration.

    Raises:
        UserError: as ``check_guard``, or weights are sharded, of which no whole copies are kept.
    """
    wanted = config.guard
    check_guard(wanted, learner.objective)
    if wanted.action == "rollback" and accelerator.distributed_type in _SHARDED:
        raise UserError(
            f"guard.action=rollback keeps whole copies, and {accelerator.distributed_type.value} shards the "
            "weights; choose guard.action=stop, and resume from a checkpoint with a smaller step"
        )
    guard = Guard(
        wanted.action,
        completions=config.rollout.completions,
        max_rollbacks=wanted.max_rollbacks,
        step_factor=wanted.step_factor,
        target_drift=wanted.target_drift,
        alpha_factor=wanted.alpha_factor,
        settle=wanted.settle,
        signs=chosen_signs(wanted.ignore),
    )
    folder = config.folder / "guard" if wanted.copies == "disk" else None
    return Keeper(accelerator, guard, Snapshots(accelerator, folder), learner, wanted.copy_every)
