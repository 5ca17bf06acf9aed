"""A run from beginning to end: rows, policy, evaluation, training, evaluation, summary, report."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.console import Console

from data import Example, ExampleSet
from mm_cpgd.building import (
    build_trainer,
    build_tuner,
    load_rows,
    local_engine,
    objective_of,
    reward_sum,
    start_accelerator,
)
from mm_cpgd.config import RunConfig
from mm_cpgd.config_loading import save_config
from mm_cpgd.demonstrations import solution_check
from mm_cpgd.errors import RunEnded, UserError
from mm_cpgd.policy import Policy, load_policy
from mm_cpgd.report import write_report
from mm_cpgd.rollout import RolloutEngine
from mm_cpgd.tracking import Progress
from mm_cpgd.tracking.files import finite
from mm_cpgd.trainer import Evaluator, Trainer

# (config, accelerator, policy, engine, held-out examples) -> evaluator; the command line hands it in.
EvaluatorFactory = Callable[[RunConfig, Accelerator, Policy, RolloutEngine, "list[Example]"], Evaluator]


@dataclass(frozen=True)
class Start:
    """What to do with a run folder that is already there."""

    resume: bool = False
    overwrite: bool = False


def train(
    config: RunConfig, start: Start, make_evaluator: EvaluatorFactory, console: Console
) -> dict[str, Any]:
    """Train by reinforcement learning; return the summary, which is also in ``summary.json``."""
    objective_of(config)  # an impossible mix is said before anything is loaded
    return _run(config, start, make_evaluator, console, imitate=False)


def fine_tune(
    config: RunConfig, start: Start, make_evaluator: EvaluatorFactory, console: Console
) -> dict[str, Any]:
    """Train on worked solutions; return the summary, which is also in ``summary.json``."""
    return _run(config, start, make_evaluator, console, imitate=True)


def _run(
    config: RunConfig, start: Start, make_evaluator: EvaluatorFactory, console: Console, *, imitate: bool
) -> dict[str, Any]:
    folder = config.folder
    accelerator = start_accelerator(config, folder)
    console.quiet = not accelerator.is_main_process
    reward_sum(config)
    _claim_folder(accelerator, config, start)
    policy = load_policy(config.policy, config.training.logprob_chunk).to(accelerator.device)
    checks = []
    if imitate:
        checks.append(solution_check(policy, config.sft.target_template, config.rollout.max_new_tokens))
    own = folder if accelerator.is_main_process else None
    train_rows = load_rows(
        config, config.data.train, policy.encoder, own and own / "quarantine.jsonl", checks
    )
    say_rows(console, "training", train_rows)
    engine = local_engine(config, policy)
    evaluator: Evaluator | None = None
    if config.data.eval:
        place = own and own / "quarantine-eval.jsonl"
        held_out = load_rows(config, config.data.eval, policy.encoder, place)
        say_rows(console, "held-out", held_out)
        evaluator = make_evaluator(config, accelerator, policy, engine, list(held_out.examples))
    if imitate:
        trainer = build_tuner(config, accelerator, policy, train_rows.examples, evaluator)
    else:
        trainer = build_trainer(config, accelerator, policy, engine, train_rows.examples, evaluator)
    if start.resume and trainer.resume(lambda text: console.print(f"[yellow]warning:[/] {text}")):
        console.print(f"resumed after iteration {trainer.state.iteration} of {trainer.iterations}")
    return _carry_out(config, accelerator, policy, trainer, console)


def _carry_out(
    config: RunConfig, accelerator: Accelerator, policy: Policy, trainer: Trainer, console: Console
) -> dict[str, Any]:
    before, eval_seconds = _evaluate_before(config, accelerator, trainer, console)
    started = time.perf_counter()
    progress = Progress(
        trainer.iterations, trainer.state.iteration, console, enabled=accelerator.is_main_process
    )
    try:
        with progress:
            trainer.run(progress)
    except RunEnded as ended:
        if ended.exit_code == 1:
            file = trainer.rollouts.path(trainer.state.iteration + 1)
            raise RunEnded(f"{ended}; what was sampled is in {file}") from None
        raise
    rl_seconds = time.perf_counter() - started
    after: dict[str, float] = {}
    if trainer.evaluator and config.evaluation.after:
        started = time.perf_counter()
        after = trainer.evaluate()
        eval_seconds += time.perf_counter() - started
    summary = _summary(before, after, rl_seconds, eval_seconds, trainer)
    if accelerator.is_main_process:
        if after:
            trainer.metrics.write(trainer.iterations, after)
        policy.save(config.folder / "final")
        _write_json(config.folder / "summary.json", summary)
        write_report(config.folder)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return summary


def _evaluate_before(
    config: RunConfig, accelerator: Accelerator, trainer: Trainer, console: Console
) -> tuple[dict[str, float], float]:
    """Evaluate the policy that training starts from; a resumed run reads what it was."""
    file = config.folder / "before.json"
    if trainer.evaluator is None or not config.evaluation.before:
        return {}, 0.0
    if trainer.state.iteration or trainer.state.pending:
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        return known.get("metrics", {}), known.get("seconds", 0.0)
    console.print("evaluating the policy before training …")
    started = time.perf_counter()
    metrics = trainer.evaluate()
    seconds = time.perf_counter() - started
    if accelerator.is_main_process:
        trainer.metrics.write(0, metrics)
        _write_json(file, {"metrics": metrics, "seconds": seconds})
    return metrics, seconds


def _summary(
    before: dict[str, float], after: dict[str, float], rl: float, evaluation: float, trainer: Trainer
) -> dict[str, Any]:
    def pair(name: str) -> dict[str, float | None]:
        return {"before": before.get(f"eval/{name}"), "after": after.get(f"eval/{name}")}

    names = [key.removeprefix("eval/") for key in (after or before)]
    groups = [name for name in names if name.startswith("accuracy/")]
    counted = (after or before).get("eval/n")
    return {
        "accuracy": {**pair("accuracy"), "n": None if counted is None else int(counted)},
        "seconds": {"rl": round(rl, 2), "eval": round(evaluation, 2)},
        "groups": {name.removeprefix("accuracy/"): pair(name) for name in groups},
        "other": {name: pair(name) for name in names if name not in ("accuracy", "n", *groups)},
        "iterations": trainer.state.iteration,
        "best": {"iteration": trainer.state.best_iteration, "accuracy": trainer.state.best_accuracy},
    }


def _claim_folder(accelerator: Accelerator, config: RunConfig, start: Start) -> None:
    """Make the run folder; refuse one that holds another run."""
    folder = config.folder
    problem = ""
    if accelerator.is_main_process:
        taken = (folder / "config.yaml").exists()
        if taken and start.overwrite:
            shutil.rmtree(folder)
        elif taken and not start.resume:
            problem = f"{folder} already holds a run; --resume goes on with it, --overwrite begins anew"
        elif folder.exists() and any(folder.iterdir()) and not taken:
            problem = f"{folder} is not empty and holds no run; choose another output"
        if not problem:
            folder.mkdir(parents=True, exist_ok=True)
            save_config(config, folder / "config.yaml")
    if problem:
        raise UserError(problem)
    accelerator.wait_for_everyone()


def say_rows(console: Console, what: str, rows: ExampleSet) -> None:
    """Print how many rows are used and how many are not."""
    bad = len(rows.quarantined)
    note = f", {bad:,} unusable (see quarantine.jsonl)" if bad else ""
    console.print(f"{what}: {len(rows.examples):,} of {rows.total:,} rows{note}")


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(finite(value), indent=2, allow_nan=False) + "\n", encoding="utf-8")
