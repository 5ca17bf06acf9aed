"""Training run from start to end: rows, policy, evaluation, training, evaluation, summary, report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from accelerate import Accelerator
from rich.console import Console

from data import Example, ExampleSet
from mm_cpgd.config.loading import save_config
from mm_cpgd.config.schema import RunConfig, SourceConfig
from mm_cpgd.distributed import check_whole_weights, on_main, start_accelerator, start_trackers
from mm_cpgd.errors import RunEnded
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.report import write_report
from mm_cpgd.rollout import RolloutEngine
from mm_cpgd.tracking import Progress
from mm_cpgd.training.run_folder import CONFIG, Start, claim_folder, write_summary
from mm_cpgd.training.setup import (
    build_trainer,
    build_tuner,
    check_guard,
    load_rows,
    objective_of,
    reward_sum,
    sampling_engine,
)
from mm_cpgd.training.sft import solution_check
from mm_cpgd.training.trainer import Evaluator, Trainer

__all__ = ["EvaluatorFactory", "Start", "fine_tune", "train"]

# (config, accelerator, policy, engine, held-out examples) -> evaluator; the command line hands it in.
EvaluatorFactory = Callable[[RunConfig, Accelerator, Policy, RolloutEngine, "list[Example]"], Evaluator]


def train(
    config: RunConfig, start: Start, make_evaluator: EvaluatorFactory, console: Console
) -> dict[str, Any]:
    """Train by reinforcement learning; return the summary, which is also in ``summary.json``.

    Raises:
        UserError: something in the config, the data, the model or the folder cannot be used.
        RunEnded: a signal was caught, or the run diverged.
    """
    check_guard(config.guard, objective_of(config))  # an impossible mix is said before anything is loaded
    return _run(config, start, make_evaluator, console, imitate=False)


def fine_tune(
    config: RunConfig, start: Start, make_evaluator: EvaluatorFactory, console: Console
) -> dict[str, Any]:
    """Train on worked solutions; otherwise as ``train``."""
    return _run(config, start, make_evaluator, console, imitate=True)


def _run(
    config: RunConfig, start: Start, make_evaluator: EvaluatorFactory, console: Console, *, imitate: bool
) -> dict[str, Any]:
    reward_sum(config)  # an unknown rule, likewise
    accelerator = start_accelerator(config)
    if not imitate or config.data.eval:
        check_whole_weights(accelerator)
    console.quiet = not accelerator.is_main_process
    on_main(accelerator, lambda: claim_folder(config.folder, start))
    policy = load_policy(
        config.policy,
        config.training.logprob_chunk,
        shared_prefix=config.rollout.shared_prefix,
        say=console.print,
    ).to(accelerator.device)
    trainer = _build(config, accelerator, policy, make_evaluator, console, imitate)
    # From here on the folder holds a run; a start that fails before may simply be tried again.
    on_main(accelerator, lambda: save_config(config, config.folder / CONFIG))
    start_trackers(config, accelerator)
    if start.resume and trainer.resume(lambda text: console.print(f"[yellow]warning:[/] {text}")):
        console.print(f"resumed after iteration {trainer.state.iteration} of {trainer.iterations}")
    try:
        _carry_out(accelerator, trainer, console)
    except RunEnded:
        accelerator.end_training()
        raise
    summary = on_main(accelerator, lambda: _write_results(config, policy, trainer))
    accelerator.end_training()
    return summary


def _build(
    config: RunConfig,
    accelerator: Accelerator,
    policy: Policy,
    make_evaluator: EvaluatorFactory,
    console: Console,
    imitate: bool,
) -> Trainer:
    """Load the rows and put the trainer together."""
    rows = _load(config, config.data.train, accelerator, policy, console, "training", imitate)
    engine = sampling_engine(config, accelerator, policy)
    evaluator = None
    if config.data.eval:
        held_out = _load(config, config.data.eval, accelerator, policy, console, "held-out", False)
        evaluator = make_evaluator(config, accelerator, policy, engine, list(held_out.examples))
    if imitate:
        return build_tuner(config, accelerator, policy, rows.examples, evaluator)
    return build_trainer(config, accelerator, policy, engine, rows.examples, evaluator)


def _load(
    config: RunConfig,
    source: SourceConfig,
    accelerator: Accelerator,
    policy: Policy,
    console: Console,
    what: str,
    imitate: bool,
) -> ExampleSet:
    """Read rows on every process; the main one keeps a record of the unusable ones."""
    name = "quarantine.jsonl" if what == "training" else "quarantine-eval.jsonl"
    checks = []
    if imitate:
        checks.append(solution_check(policy, config.sft.target_template, config.rollout.max_new_tokens))
    quarantine = config.folder / name if accelerator.is_main_process else None
    rows = load_rows(config, source, policy.encoder, quarantine, checks)
    bad = len(rows.quarantined)
    note = f", {bad:,} unusable (see {name})" if bad else ""
    console.print(f"{what}: {len(rows.examples):,} of {rows.total:,} rows{note}")
    return rows


def _carry_out(accelerator: Accelerator, trainer: Trainer, console: Console) -> None:
    progress = Progress(
        trainer.iterations, trainer.state.iteration, console, enabled=accelerator.is_main_process
    )
    try:
        with progress:
            trainer.run(progress)
    finally:
        trainer.source.close()


def _write_results(config: RunConfig, policy: Policy, trainer: Trainer) -> dict[str, Any]:
    """Write policy, summary and report."""
    state = trainer.state
    policy.save(config.folder / "final")
    best = {"iteration": state.best_iteration, "accuracy": state.best_accuracy}
    summary = write_summary(config.folder, trainer.iterations, best)
    write_report(config.folder)
    return summary
