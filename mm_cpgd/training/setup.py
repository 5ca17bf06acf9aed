"""Construction of a run from its config: rewards, objective, engine, guard, trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator

from data import Example, PromptSampler, ScoredPromptSampler
from mm_cpgd.algorithms.composition import build_objective
from mm_cpgd.algorithms.corrections import SEQUENCE_BOUNDS, TOKEN_BOUNDS, Correction
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.config.rollout import EnvironmentConfig, RolloutConfig
from mm_cpgd.config.schema import GuardConfig, RunConfig
from mm_cpgd.errors import UserError
from mm_cpgd.guard.guard import Guard
from mm_cpgd.guard.rollback import RollbackController, Snapshots
from mm_cpgd.guard.signals import select_signals
from mm_cpgd.interrupt import ShouldStop
from mm_cpgd.policy import Policy
from mm_cpgd.policy.prompt_workers import PromptWorkers
from mm_cpgd.policy.sharding.tensors import is_sharded
from mm_cpgd.rollout import GatheredEngine, LocalEngine, RolloutEngine, Sampling
from mm_cpgd.rollout.parity import ParityGate, largest_difference
from mm_cpgd.training.ahead.in_turn import BatchesInTurn
from mm_cpgd.training.ahead.overlapped import OverlappedBatches
from mm_cpgd.training.ahead.source import AheadSource, check_ahead
from mm_cpgd.training.collector import Collector
from mm_cpgd.training.experience import Experience, ExperienceSource
from mm_cpgd.training.heldout import HeldOut
from mm_cpgd.training.learner import METRIC_NAMES, Learner
from mm_cpgd.training.optimizer import OptimizerStep, build_optimizer, build_schedule
from mm_cpgd.training.placement import PlacedPolicy
from mm_cpgd.training.resume import identify
from mm_cpgd.training.rollouts.batches import check_prompts
from mm_cpgd.training.rollouts.beside.demonstrations import build_demonstrations, demonstration_source
from mm_cpgd.training.rollouts.beside.given import build_early, check_given
from mm_cpgd.training.rollouts.beside.replayed import build_replay, run_sources
from mm_cpgd.training.rollouts.beside.tempered import Tempered
from mm_cpgd.training.rollouts.build import (
    build_conversations,
    held_bytes,
    load_environment,
    longest_completion,
)
from mm_cpgd.training.rollouts.mixes import check_mixes
from mm_cpgd.training.rollouts.pictures import blind_options, build_noise
from mm_cpgd.training.rollouts.scorer import CompletionScorer
from mm_cpgd.training.rollouts.written import WrittenConversations
from mm_cpgd.training.sft import SFT_METRIC_NAMES, SftSource, sft_objective
from mm_cpgd.training.state import TrainingState
from mm_cpgd.training.trainer import Evaluator, Trainer
from rewards import Component, RewardSum


def build_rewards(config: RunConfig) -> RewardSum:
    """Return the weighted sum of the config's reward rules."""
    return RewardSum([Component(**dict(reward)) for reward in config.rewards])


def build_run_objective(config: RunConfig) -> Objective:
    """Return the objective that the config composes."""
    return build_objective(
        config.algorithm,
        completions=config.rollout.completions,
        max_new_tokens=longest_completion(config.rollout),
        iterations=config.training.iterations,
    )


def build_engine(
    config: RunConfig,
    accelerator: Accelerator,
    placed: PlacedPolicy,
    say: Callable[[str], None] = lambda text: None,
) -> RolloutEngine:
    """Return the configured sampling engine; ``say`` prints a line about a server that fails.

    Raises:
        UserError: vLLM is not installed or cannot be reached.
    """
    if config.rollout.engine == "local":
        return build_local_engine(config, placed)
    from mm_cpgd.rollout.vllm.configured import build_vllm_engine

    return build_vllm_engine(config, accelerator, placed.policy, say)


def build_local_engine(config: RunConfig, placed: PlacedPolicy) -> RolloutEngine:
    """Return the engine that samples with the policy itself."""
    rollout, report_kept = config.rollout, config.rollout.cuts == "renormalise"
    size, held = rollout.batch_prompts, held_bytes(rollout)
    if placed.gathered:
        return GatheredEngine(placed.gathered, size, report_kept=report_kept, held_bytes=held)
    return LocalEngine(placed.policy, size, report_kept=report_kept, held_bytes=held)


def held_out_evaluator(
    config: RunConfig,
    accelerator: Accelerator,
    policy: Policy,
    engine: RolloutEngine,
    examples: Sequence[Example],
    say: Callable[[str], None] = lambda text: None,
    workers: PromptWorkers | None = None,
) -> Evaluator:
    """Return the greedy held-out evaluation that the config describes; ``say`` as in ``HeldOut``."""
    return HeldOut(
        accelerator,
        policy,
        engine,
        build_rewards(config),
        examples,
        max_new_tokens=config.evaluation.max_new_tokens or config.rollout.max_new_tokens,
        batch_prompts=config.evaluation.batch_prompts,
        say=say,
        workers=workers,
        conversations=build_conversations(config, policy, engine),
        scores=config.rollout.environment.scores if config.rollout.environment else None,
        gates=config.rollout.environment.gates if config.rollout.environment else None,
    )


@dataclass(frozen=True)
class StepSchedule:
    """Numbers of steps of a run.

    Attributes:
        iterations: number of iterations of the whole run.
        mini_batch_prompts: prompts per optimizer step, over all processes.
        steps_per_iteration: optimizer steps per iteration.
    """

    iterations: int
    mini_batch_prompts: int
    steps_per_iteration: int


def step_schedule(config: RunConfig) -> StepSchedule:
    """Return the numbers of steps that follow from the rollout and training sections."""
    mini = config.training.mini_batch_prompts or config.rollout.prompts
    steps = -(-config.rollout.prompts // mini) * config.training.inner_epochs
    return StepSchedule(config.training.iterations, mini, steps)


def build_sampler(objective: Objective, rows: int, seed: int) -> PromptSampler:
    """Return the prompt sampler: uniform, or with a share drawn by the objective's curriculum score."""
    if objective.prompts is None:
        return PromptSampler(rows, seed)
    options = objective.prompts.options
    scaled = options.get("scale") == "minmax"
    return ScoredPromptSampler(rows, seed, options.get("share", 0.5), scaled=scaled)


def build_trainer(
    config: RunConfig,
    accelerator: Accelerator,
    policy: Policy,
    engine: RolloutEngine,
    examples: Sequence[Example],
    evaluator: Evaluator | None,
    workers: PromptWorkers | None = None,
) -> Trainer:
    """Return the trainer of a reinforcement learning run."""
    objective, schedule, chosen = build_run_objective(config), step_schedule(config), config.algorithm
    sampler = build_sampler(objective, len(examples), config.seed)
    collector = Collector(
        config.rollout,
        accelerator,
        policy,
        engine,
        build_rewards(config),
        objective,
        examples,
        sampler,
        mini_batch_prompts=schedule.mini_batch_prompts,
        seed=config.seed,
        prefetch_until=schedule.iterations if _prefetches(config, accelerator, workers) else 0,
        workers=workers,
        conversations=build_conversations(config, policy, engine),
        noise=build_noise(config),
        demonstrations=build_demonstrations(config, objective, policy, examples),
        tempered=Tempered.of(config.rollout, chosen.tempered) if chosen.tempered else None,
        begun=config.algorithm.empty_thought,
    )
    sources = run_sources(config, objective)
    collector.replay = build_replay(config, accelerator, objective, policy.encoder, examples, sources)
    collector.early = build_early(config, policy, collector.scorer, collector.sampling)
    steps = schedule.iterations * schedule.steps_per_iteration
    identity = identify(config, examples, policy.model)
    options = _sampling_options(config.rollout, collector.sampling)
    if config.rollout.engine != "local":
        options["parity"] = build_parity(config.rollout, accelerator, policy, engine)
    options |= blind_options(config) | {"sources": sources}
    if objective.demonstrations:
        options["sources"] = [demonstration_source(config.rollout.max_new_tokens)]
    learner = _build_learner(config, accelerator, policy, objective, steps, METRIC_NAMES, **options)
    rollback = build_rollback(config, accelerator, learner)
    state = TrainingState(
        accelerator,
        learner.wrapped,
        learner.step,
        sampler,
        collector.reencode,
        objective,
        rollback,
        identity=identity,
    )
    source, settle = build_source(config.rollout, collector, learner, schedule.iterations)
    settled = evaluator and _after(settle, evaluator)
    return Trainer(config, accelerator, source, learner, state, settled, schedule.iterations)


def build_source(
    rollout: RolloutConfig, collector: Collector, learner: Learner, iterations: int
) -> tuple[ExperienceSource, Callable[[ShouldStop], None]]:
    """Return the first half of the step, and a function that waits until its engine is free."""
    if not rollout.ahead:
        return collector, lambda should_stop: collector.prefetcher.wait()

    def prepare(experience: Experience, iteration: int) -> None:
        learner.policy.train()  # as in the update
        learner.prepare(experience, iteration, ahead=True)
        learner.policy.eval()

    in_turn = rollout.engine == "local"
    batches = BatchesInTurn(collector, prepare) if in_turn else OverlappedBatches(collector, learner.probe)
    source = AheadSource(collector, batches, rollout.ahead, iterations)
    return source, source.settle


def build_sft_trainer(
    config: RunConfig,
    accelerator: Accelerator,
    policy: Policy,
    examples: Sequence[Example],
    evaluator: Evaluator | None,
    workers: PromptWorkers | None = None,
) -> Trainer:
    """Return the trainer of a supervised fine-tuning run; one iteration is one optimizer step."""
    sampler = PromptSampler(len(examples), config.seed)
    steps = config.sft.steps or max(1, round(config.sft.epochs * len(examples) / config.sft.batch))
    conversations = build_conversations(config, policy, LocalEngine(policy))
    written = WrittenConversations(conversations, config.seed) if conversations else None
    source = SftSource(config.sft, accelerator, policy, examples, sampler, workers, steps, written)
    objective = sft_objective(config.sft.surrogate, config.rollout.max_new_tokens, steps)
    identity = identify(config, examples, policy.model, sft=True)
    one_epoch = config.training.model_copy(update={"inner_epochs": 1})
    learner = _build_learner(
        config.model_copy(update={"training": one_epoch}),
        accelerator,
        policy,
        objective,
        steps,
        SFT_METRIC_NAMES,
    )
    state = TrainingState(
        accelerator, learner.wrapped, learner.step, sampler, source.reencode, objective, identity=identity
    )
    return Trainer(config, accelerator, source, learner, state, evaluator, steps)


def _prefetches(config: RunConfig, accelerator: Accelerator, workers: PromptWorkers | None) -> bool:
    if config.rollout.ahead and not workers:  # in this process, prompts are encoded with their batch
        return False
    # On a CPU the update itself keeps all cores busy.
    chosen = config.rollout.prefetch
    return bool(workers) or accelerator.device.type != "cpu" if chosen is None else chosen


def _after(settle: Callable[[ShouldStop], None], evaluator: Evaluator) -> Evaluator:
    """Return the evaluator, started after ``settle``: evaluation uses the same engine and tokenizer."""

    def evaluate(should_stop: ShouldStop) -> dict[str, float]:
        settle(should_stop)
        return evaluator(should_stop)

    return evaluate


def _build_learner(
    config: RunConfig,
    accelerator: Accelerator,
    policy: Policy,
    objective: Objective,
    optimizer_steps: int,
    metric_names: Mapping[str, str],
    **options: Any,
) -> Learner:
    """Return the learner; ``options`` are those of ``Learner`` that are about rollouts."""
    training = config.training
    optimizer = build_optimizer(policy, training)
    schedule = build_schedule(optimizer, training, optimizer_steps)
    wrapped, prepared = _prepare(accelerator, policy, optimizer)
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    return Learner(
        training,
        accelerator,
        policy,
        wrapped,
        objective,
        OptimizerStep(
            accelerator, trained, prepared, schedule, training.max_grad_norm, training.max_skipped_steps
        ),
        seed=config.seed,
        metric_names=metric_names,
        **options,
    )


def _sampling_options(rollout: RolloutConfig, sampling: Sampling) -> dict[str, Any]:
    """Return the learner's options by which it trains on the distribution that was sampled from."""
    correction = build_correction(rollout)
    reweights = sampling.has_cuts and rollout.cuts == "reweight"
    if reweights and correction is None:
        correction = Correction()  # of the policy's own samples no weight exceeds 1
    options: dict[str, Any] = {"correction": correction, "temperature": sampling.temperature}
    if rollout.engine == "vllm" and sampling.has_cuts:
        name = "reweighted_cuts" if reweights else "unreported_cuts"
        options[name] = replace(sampling, min_p_first=True)
    return options


def build_correction(rollout: RolloutConfig) -> Correction | None:
    """Return the configured correction of another engine's samples, None where there is none.

    Raises:
        UserError: its bounds leave no ratio.
    """
    chosen = rollout.vllm
    if rollout.engine != "vllm" or chosen.correction == "off":
        return None
    what, unit = chosen.correction.split("_")
    low, high = SEQUENCE_BOUNDS if unit == "sequences" else TOKEN_BOUNDS
    floor = low if chosen.importance_floor is None else chosen.importance_floor
    cap = high if chosen.importance_cap is None else chosen.importance_cap
    if what == "mask" and floor >= cap:
        raise UserError(
            f"rollout.vllm.importance_floor={floor:g} must be below importance_cap={cap:g}: "
            f"correction={chosen.correction} masks every ratio π_old / π_vLLM that is not between them"
        )
    return Correction(unit == "sequences", what == "mask", cap, floor)


def build_parity(
    rollout: RolloutConfig, accelerator: Accelerator, policy: Policy, engine: RolloutEngine
) -> ParityGate:
    """Return the gate that compares the engine's log-probabilities with the trainer's."""
    if rollout.vllm.max_difference:
        return ParityGate(rollout.vllm.max_difference, "rollout.vllm.max_difference")
    formats = {value.dtype for value in policy.parameters()}
    if accelerator.mixed_precision == "bf16":
        formats.add(torch.bfloat16)
    # Of a server that does not say; most serve bfloat16.
    formats.add(getattr(engine, "dtype", None) or torch.bfloat16)
    bound, coarsest = largest_difference(formats)
    name = str(coarsest).removeprefix("torch.")
    return ParityGate(bound, f"default of {name}, the coarsest format of the two")


def _prepare(accelerator: Accelerator, policy: Policy, optimizer: Any) -> tuple[Any, Any]:
    """Return policy and optimizer as accelerate prepares them; sharded weights need no DDP around them."""
    if any(is_sharded(parameter) for parameter in policy.parameters()):
        return policy, accelerator.prepare(optimizer)
    wrapped, prepared = accelerator.prepare(policy, optimizer)
    return wrapped, prepared


def check_guard(guard: GuardConfig, objective: Objective) -> None:
    """Check the guard's settings before anything is loaded.

    Raises:
        UserError: an unknown collapse signal, or alpha is to be raised but no part of the objective has one.
    """
    select_signals(guard.ignore)
    if guard.alpha_factor != 1 and all(part.name != "policy_drift" for part in objective.regularizers):
        raise UserError(
            f"guard.alpha_factor={guard.alpha_factor:g} raises the alpha of policy_drift, and "
            "algorithm.regularizers has no policy_drift; add one, or leave guard.alpha_factor at 1"
        )


def _check_scores(environment: EnvironmentConfig, rewards: RewardSum) -> None:
    CompletionScorer(rewards, environment.scores, environment.gates)
    if environment.gates and environment.returns == "by_turn":
        raise UserError(
            "rollout.environment.gates does not go together with returns=by_turn: a gate is known at the end "
            "of a conversation, and returns of turns are made of what each turn scored; set returns=outcome"
        )


def check_sampling(config: RunConfig, objective: Objective) -> None:
    """Check guard and rollouts before anything is loaded.

    Raises:
        UserError: as ``check_guard``, ``check_mixes``, ``check_ahead``, ``run_sources``,
            ``build_correction``, ``check_servers`` and ``check_adapters``.
    """
    check_guard(config.guard, objective)
    if load_environment(config) and config.rollout.environment:
        _check_scores(config.rollout.environment, build_rewards(config))
    check_mixes(config.rollout, objective)
    check_ahead(config.rollout, objective)
    build_noise(config)
    run_sources(config, objective)
    check_given(config)
    build_correction(config.rollout)
    if config.rollout.engine == "vllm":
        from mm_cpgd.rollout.vllm.configured import check_adapters, check_servers

        if config.rollout.vllm.mode == "server":
            check_servers(config)
        check_adapters(config)


def check_processes(rollout: RolloutConfig, processes: int) -> None:
    """Raise ``UserError`` unless prompts, and a vLLM that they share, can be divided among the processes."""
    from mm_cpgd.rollout.vllm.group import check_group_size

    check_prompts(rollout.prompts, processes)
    if rollout.engine == "vllm" and rollout.vllm.mode == "colocated":
        check_group_size(rollout.vllm.tensor_parallel, processes)


def build_rollback(config: RunConfig, accelerator: Accelerator, learner: Learner) -> RollbackController:
    """Return the guard of a run and its snapshots, ready for the first iteration.

    Raises:
        UserError: as ``check_guard``.
    """
    wanted = config.guard
    check_guard(wanted, learner.objective)
    guard = Guard(wanted, completions=config.rollout.completions)
    folder = config.folder / "guard" if wanted.copies == "disk" else None
    sharded = any(is_sharded(parameter) for parameter in learner.policy.parameters())
    return RollbackController(accelerator, guard, Snapshots(accelerator, folder, sharded=sharded), learner)
