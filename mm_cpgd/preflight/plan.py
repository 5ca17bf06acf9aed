"""``mm-cpgd train CONFIG --dry-run``: the plan of a run, with its data, steps, objective and memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data import DataError, Example, ExampleSet, Quarantined
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.config.schema import RunConfig, SourceConfig, TrainingConfig
from mm_cpgd.distributed import choose_strategy
from mm_cpgd.errors import UserError
from mm_cpgd.policy import PromptEncoder, load_processor
from mm_cpgd.preflight.data import first_bad_rows, read_all_rows
from mm_cpgd.preflight.memory_text import print_memory
from mm_cpgd.preflight.model_size import ModelSize, measure_model, with_lora
from mm_cpgd.preflight.model_source import (
    FoundConfig,
    ModelOutOfReach,
    find_config,
    has_processor,
    is_out_of_reach,
    offline,
    without_hub_code,
)
from mm_cpgd.preflight.setting import Machines, Setting, plan_machines, plan_setting
from mm_cpgd.preflight.text import (
    Lines,
    SourceRows,
    data_lines,
    model_lines,
    objective_lines,
    prompt_lines,
    result_lines,
    reward_lines,
    step_lines,
)
from mm_cpgd.preflight.verdict import Case
from mm_cpgd.tracking.progress import slow_bar
from mm_cpgd.training.optimizer import build_schedule
from mm_cpgd.training.rollouts.build import load_environment
from mm_cpgd.training.rows import length_check
from mm_cpgd.training.setup import build_rewards, build_run_objective, check_processes, check_sampling


def print_plan(
    config: RunConfig,
    console: Console,
    *,
    with_processor: bool,
    machines: Machines | None = None,
    model_config: Path | None = None,
) -> None:
    """Print the plan of a run: nothing is trained or written, and no weight is loaded.

    Args:
        config: the run's config.
        console: receives the output.
        with_processor: load the model's processor, where there is one, to count prompt tokens. Without it a
            missing model is no error.
        machines: what the run is planned for; None: the present launch.
        model_config: file or folder with the model's dimensions, in place of those of ``policy.model``.

    Raises:
        UserError, DataError: errors that would also end the run before its first step.
    """
    machines = machines or plan_machines(os.environ)
    choose_strategy(config.distributed, os.environ)
    objective = build_run_objective(config)
    build_rewards(config)
    check_sampling(config, objective)
    if machines.processes > 1:  # a first look without --processes is at a model, not at a launch
        check_processes(config.rollout, machines.processes)
    _check_schedule(config.training)
    model = _model(config, model_config, machines, required=with_processor)
    encoder, missing = _encoder(config) if with_processor else (None, "no processor")
    wanted = (("training", config.data.train), ("held-out", config.data.eval))
    sets = [
        _rows(config, purpose, source, encoder, console) for purpose, source in wanted if source is not None
    ]
    _print(console, f"{config.name}: the plan", model_lines(config, model.size, model.setting, model.problem))
    _print(console, "Data", data_lines(config, sets, missing))
    for rows in sets:
        if rows.found.quarantined:
            console.print(f"Unusable {rows.purpose} rows:", first_bad_rows(rows.found), sep="\n")
    _print(console, "First prompt, as the model reads it", prompt_lines(encoder, sets[0]))
    _print(console, "One iteration", step_lines(config, objective, machines))
    _print(console, "Objective, to be maximised", objective_lines(config, objective))
    _print(console, "Rewards", reward_lines(config))
    _print_memory(console, config, model, sets, objective)
    _print(console, "Results", result_lines(config))
    _raise_if_unusable(config, sets)


@dataclass(frozen=True)
class _Model:
    """The model of a plan; without a size, the reason why it is not known."""

    size: ModelSize | None = None
    setting: Setting | None = None
    found: FoundConfig | None = None
    problem: str = ""


def _model(config: RunConfig, file: Path | None, machines: Machines, *, required: bool) -> _Model:
    try:
        found = find_config(config.policy, file)
        size = measure_model(config.policy, found)
    except ModelOutOfReach as error:
        return _Model(problem=str(error))
    except UserError as error:
        if required:
            raise
        return _Model(problem=str(error))
    return _Model(size, plan_setting(config, size, machines), found)


def _check_schedule(training: TrainingConfig) -> None:
    build_schedule(torch.optim.SGD([torch.zeros(1, requires_grad=True)]), training, 1)


def _encoder(config: RunConfig) -> tuple[PromptEncoder | None, str]:
    """Return what encodes the prompts; or None, and why there is none."""
    policy = without_hub_code(config.policy)
    if not has_processor(policy):
        return None, "the model's processor is not here"
    processor = load_processor(policy, samples=config.rollout.engine == "local")
    encoder = PromptEncoder.of(policy, processor)
    encoder.environment = load_environment(config)
    return encoder, ""


def _rows(
    config: RunConfig, purpose: str, source: SourceConfig, encoder: PromptEncoder | None, console: Console
) -> SourceRows:
    try:
        # Without a network, the cache is asked alone: the client would try for a minute.
        with offline() if is_out_of_reach(source.path) else nullcontext():
            rows = SourceRows(purpose, source, read_all_rows(source, config.data, console, config.policy))
    except DataError:
        if not is_out_of_reach(source.path):
            raise
        problem = "not read: the hub cannot be reached, and they are not in the cache"
        return SourceRows(purpose, source, ExampleSet([], [], 0), problem=problem)
    if encoder is not None:
        _measure_prompts(rows, encoder, config.data.max_prompt_tokens, console)
    return rows


def _measure_prompts(rows: SourceRows, encoder: PromptEncoder, limit: int, console: Console) -> None:
    """Count prompt tokens; rows that are too long or refused become unusable, as in a run."""
    check = length_check(encoder, limit)
    good: list[Example] = []
    bad: list[Quarantined] = []
    with slow_bar(console, f"counting tokens of {rows.source.path}") as report:
        for done, example in enumerate(rows.found.examples, 1):
            length = _length(encoder, example)
            reason = check(example) if length is None or length > limit else None
            if reason is None:
                good.append(example)
            else:
                bad.append(Quarantined(example.id, example.source, reason))
            rows.record_length(example.id, length, limit)
            report(done, len(rows.found.examples))
    rows.found = replace(rows.found, examples=good, quarantined=[*rows.found.quarantined, *bad])


def _length(encoder: PromptEncoder, example: Example) -> int | None:
    try:
        return encoder.length(example)
    except ValueError:  # refused by the encoder (DataError is one) or by the processor
        return None


def _raise_if_unusable(config: RunConfig, sets: Sequence[SourceRows]) -> None:
    """Raise ``DataError`` if too many rows are unusable for the run to start."""
    for rows in sets:
        bad, total = len(rows.found.quarantined), rows.found.total
        if rows.problem:
            continue
        if not rows.found.examples or bad > config.data.max_bad_share * total:
            raise DataError(
                f"the run would not start: {bad:,} of {total:,} {rows.purpose} rows cannot be used "
                f"({bad / total:.1%}, data.max_bad_share allows {config.data.max_bad_share:.1%}); fix the "
                "rows or the columns mapping, or raise data.max_bad_share"
            )


def _print_memory(
    console: Console, config: RunConfig, model: _Model, sets: Sequence[SourceRows], objective: Objective
) -> None:
    size, setting, found = model.size, model.setting, model.found
    if size is None or setting is None or found is None:
        _print(console, "Memory", [("estimate", "unknown without the model's config.json")])
        return
    usable = [n for n in sets[0].lengths if n <= config.data.max_prompt_tokens]
    longest = max(usable, default=config.data.max_prompt_tokens)
    adapted = partial(with_lora, size, config.policy, found)
    print_memory(Case(config, size, setting, longest, objective.needs_reference, adapted), console)


def _print(console: Console, title: str, lines: Lines) -> None:
    """Print lines of (name, value) as a titled table; print nothing if there are no lines."""
    table = Table(title=Text(title), title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in lines:
        table.add_row(Text(name), Text(value))
    if table.row_count:
        console.print(table)
