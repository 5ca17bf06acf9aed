"""Training run from start to end: rows, policy, evaluation, training, evaluation, summary, report."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.console import Console
from rich.markup import escape

from data import Example, ExampleSet, shared_rows
from mm_cpgd.config.loading import save_config
from mm_cpgd.config.schema import RunConfig, SourceConfig
from mm_cpgd.distributed import (
    Strategy,
    choose_strategy,
    ignored_precision,
    on_main,
    start_accelerator,
    start_trackers,
    together,
)
from mm_cpgd.errors import RunEnded
from mm_cpgd.policy import Policy
from mm_cpgd.report.page import write_report
from mm_cpgd.tracking import Progress, read_metrics
from mm_cpgd.training.ahead.prefetch import start_workers
from mm_cpgd.training.placement import PlacedPolicy, place_policy
from mm_cpgd.training.processes import ProcessWatch, check_rows, check_run_folder, start_together
from mm_cpgd.training.processes.run_lock import RunLock
from mm_cpgd.training.resume import Changes
from mm_cpgd.training.rollouts.build import load_environment
from mm_cpgd.training.rollouts.written import turns_check
from mm_cpgd.training.rows import load_rows
from mm_cpgd.training.run_folder import (
    CONFIG,
    ExistingRun,
    history_of,
    prepare_run_folder,
    write_final,
    write_summary,
)
from mm_cpgd.training.setup import (
    build_engine,
    build_rewards,
    build_run_objective,
    build_sft_trainer,
    build_trainer,
    check_processes,
    check_sampling,
    held_out_evaluator,
)
from mm_cpgd.training.sft import sft_objective, solution_check
from mm_cpgd.training.trainer import Trainer


def train(
    config: RunConfig, *, resume: bool = False, overwrite: bool = False, console: Console | None = None
) -> dict[str, Any]:
    """Train by reinforcement learning; return the summary, which is also written to ``summary.json``.

    Args:
        config: the complete run, see ``load_config``.
        resume: continue the run in the run folder from its newest complete checkpoint.
        overwrite: remove the run in the run folder first.
        console: for progress and messages; None: standard error.

    Raises:
        UserError: the config, the data, the model or the run folder cannot be used.
        RunEnded: the run was interrupted by a signal, diverged, was stopped by the guard, or another of its
            processes has ended (``ProcessLost``). If this process does not get to raise that one, as it
            waits for a GPU, say, it ends with the same message.
    """
    return _run(config, ExistingRun(resume, overwrite), console or Console(stderr=True), sft=False)


def fine_tune(
    config: RunConfig, *, resume: bool = False, overwrite: bool = False, console: Console | None = None
) -> dict[str, Any]:
    """Fine-tune on worked solutions; arguments, result and errors as in ``train``."""
    return _run(config, ExistingRun(resume, overwrite), console or Console(stderr=True), sft=True)


def _run(config: RunConfig, existing: ExistingRun, console: Console, *, sft: bool) -> dict[str, Any]:
    start_together(config, _command(existing, sft), lambda: _check_before_start(config, sft))
    strategy = choose_strategy(config.distributed, os.environ)
    accelerator = start_accelerator(config, strategy)
    console.quiet = not accelerator.is_main_process
    if line := ignored_precision(os.environ):
        _warner(console)(line)
    lock = RunLock(config.folder)
    try:
        with ProcessWatch(accelerator, config.distributed.timeout, lock.release, _warner(console)):
            on_main(accelerator, lambda: prepare_run_folder(config.folder, existing, lock))
            check_run_folder(accelerator, lock.file)
            return _run_in_folder(config, existing, accelerator, strategy, console, sft=sft)
    finally:
        lock.release()


def _command(existing: ExistingRun, sft: bool) -> str:
    """Return the command line of this start without its config."""
    flags = ["--resume"] * existing.resume + ["--overwrite"] * existing.overwrite
    return " ".join(["sft" if sft else "train", *flags])


def _check_before_start(config: RunConfig, sft: bool) -> None:
    """Raise the user errors that need nothing loaded: an unknown rule, an impossible guard or launch."""
    build_rewards(config)
    if sft:
        sft_objective(config.sft.surrogate, config.rollout.max_new_tokens)
    else:
        check_sampling(config, build_run_objective(config))
        check_processes(config.rollout, int(os.environ.get("WORLD_SIZE", "1")))
    choose_strategy(config.distributed, os.environ)


def _run_in_folder(
    config: RunConfig,
    existing: ExistingRun,
    accelerator: Accelerator,
    strategy: Strategy,
    console: Console,
    *,
    sft: bool,
) -> dict[str, Any]:
    """Run from start to end in a folder that is ours."""
    reference = not sft and build_run_objective(config).needs_reference
    placed = place_policy(config, accelerator, strategy, reference=reference, say=console.print)
    try:
        # The engine is closed while the process groups that it may use still exist.
        with ExitStack() as opened:
            trainer = _build(config, accelerator, placed, console, sft, opened)
            _train(config, existing, accelerator, trainer, console)
    except RunEnded:
        accelerator.end_training()
        raise
    together(accelerator, lambda: _write_policy(config, accelerator, placed.policy))
    summary = on_main(accelerator, lambda: _write_results(config, trainer))
    accelerator.end_training()
    if not trainer.has_stepped:
        raise RunEnded(_why_no_step(config.folder))
    return summary


def _train(
    config: RunConfig,
    existing: ExistingRun,
    accelerator: Accelerator,
    trainer: Trainer,
    console: Console,
) -> None:
    """Train from the newest checkpoint on, or from the start."""
    changes = trainer.resume(_warner(console)) if existing.resume else None
    if changes is not None:
        _say_changes(changes, trainer, console)
    history = on_main(
        accelerator, lambda: history_of(config.folder / CONFIG, trainer.state.iteration, changes)
    )
    # From here on the folder holds a run; a start that fails earlier can be repeated as it is.
    on_main(accelerator, lambda: save_config(config, config.folder / CONFIG, history))
    start_trackers(config, accelerator)
    _carry_out(accelerator, trainer, console)


def _why_no_step(folder: Path) -> str:
    """Return why a run has ended without an optimizer step, as far as its metrics show it."""
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if row["iteration"]]

    def everywhere(key: str, value: float) -> bool:
        return all(row.get(key) == value for row in rows)

    if everywhere("reward/unscored", 1.0):
        reason = "no completion could be scored; see the reasons in rollouts/"
    elif everywhere("groups/kept", 0.0):
        reason = "the selection kept no prompt (groups/kept is 0); loosen algorithm.selection"
    elif any(row.get("optimizer/skipped") for row in rows):
        reason = "every step was skipped, as the loss or the gradient was not finite"
    else:
        reason = "there was nothing to learn from; see metrics.jsonl and rollouts/"
    return f"{folder}: {len(rows):,} iterations without a single optimizer step: {reason}"


def _warner(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(f"[yellow]warning:[/] {escape(text)}")


def _say_changes(changes: Changes, trainer: Trainer, console: Console) -> None:
    """Print what a resumed run does differently from before."""
    console.print(f"resumed after iteration {trainer.state.iteration} of {trainer.iterations}")
    for line in changes.lines:
        if line not in changes.noted:
            console.print(f"from here on {escape(line)}")
    if changes.noted:
        what = "; ".join(changes.noted)
        _warner(console)(f"from here on this is another experiment than before: {what}")


def _build(
    config: RunConfig,
    accelerator: Accelerator,
    placed: PlacedPolicy,
    console: Console,
    sft: bool,
    opened: ExitStack,
) -> Trainer:
    """Load the rows and put the trainer together; ``opened`` closes the engine."""
    policy = placed.policy
    policy.encoder.environment = load_environment(config)
    rows = _load(config, config.data.train, accelerator, policy, console, "training", sft)
    engine = build_engine(config, accelerator, placed, lambda line: console.print(line, markup=False))
    opened.callback(engine.close)
    workers = start_workers(
        config.data.workers,
        accelerator,
        policy.encoder,
        rows.examples,
        lambda line: console.print(line, markup=False),
    )
    if workers:
        opened.callback(workers.close)
    evaluator = None
    if config.data.eval:
        held_out = _load(config, config.data.eval, accelerator, policy, console, "held-out", False)
        on_main(accelerator, lambda: _warn_of_shared_rows(rows.examples, held_out.examples, console))
        evaluator = held_out_evaluator(
            config,
            accelerator,
            policy,
            engine,
            list(held_out.examples),
            say=lambda line: console.print(line, markup=False),
            workers=workers,
        )
    if sft:
        return build_sft_trainer(config, accelerator, policy, rows.examples, evaluator, workers)
    return build_trainer(config, accelerator, policy, engine, rows.examples, evaluator, workers)


def _load(
    config: RunConfig,
    source: SourceConfig,
    accelerator: Accelerator,
    policy: Policy,
    console: Console,
    what: str,
    sft: bool,
) -> ExampleSet:
    """Read rows on every process; the main one keeps a record of the unusable ones."""
    name = "quarantine.jsonl" if what == "training" else "quarantine-eval.jsonl"
    checks = []
    if sft:
        of_solution = solution_check(policy, config.sft.target_template, config.rollout.max_new_tokens)
        checks.append(turns_check(policy, config.rollout, of_solution))
    quarantine = config.folder / name if accelerator.is_main_process else None
    rows = together(accelerator, lambda: load_rows(config, source, policy.encoder, quarantine, checks))
    check_rows(accelerator, what, rows.examples)
    bad = len(rows.quarantined)
    note = f", {bad:,} unusable (see {name})" if bad else ""
    console.print(f"{what}: {len(rows.examples):,} of {rows.total:,} rows{note}")
    if own := sum(example.system is not None for example in rows.examples):
        console.print(f"{what}: {own:,} rows have a system turn of their own: {_use_of_turns(config)}")
    return rows


def _use_of_turns(config: RunConfig) -> str:
    if config.policy.system_turns == "config":
        return "left out (policy.system_turns=config)"
    return "used" if config.policy.system_prompt is None else "used in place of policy.system_prompt"


def _warn_of_shared_rows(train: Sequence[Example], held_out: Sequence[Example], console: Console) -> None:
    count = len(shared_rows(train, held_out))
    if count:
        share = f"all {count:,}" if count == len(held_out) else f"{count:,} of {len(held_out):,}"
        _warner(console)(
            f"{share} held-out rows are training rows (same question and image): their accuracy says nothing "
            "about unseen rows"
        )


def _carry_out(accelerator: Accelerator, trainer: Trainer, console: Console) -> None:
    progress = Progress(
        trainer.iterations, trainer.state.iteration, console, enabled=accelerator.is_main_process
    )
    try:
        with progress:
            trainer.run(progress)
    finally:
        trainer.source.close()


def _write_policy(config: RunConfig, accelerator: Accelerator, policy: Policy) -> None:
    """Write ``final/``; sharded weights are gathered on all processes, and written by the main one."""
    if accelerator.is_main_process:
        write_final(config.folder, policy.save)
    else:
        policy.save(config.folder, write=False)


def _write_results(config: RunConfig, trainer: Trainer) -> dict[str, Any]:
    """Write summary and report."""
    state = trainer.state
    best = {"iteration": state.best_iteration, "accuracy": state.best_accuracy}
    summary = write_summary(config.folder, trainer.iterations, best)
    write_report(config.folder)
    return summary
