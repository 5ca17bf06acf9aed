"""``mm-cpgd train CONFIG --dry-run``: the plan of a run, with its data, steps, objective and memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data import DataError, Example, Quarantined
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.config.schema import RunConfig, SourceConfig, TrainingConfig
from mm_cpgd.distributed import choose_strategy
from mm_cpgd.errors import UserError
from mm_cpgd.policy import PromptEncoder, load_processor
from mm_cpgd.preflight.data import first_bad_rows, read_all_rows
from mm_cpgd.preflight.memory import ModelSize, estimate_memory, measure_model, total_of
from mm_cpgd.preflight.text import (
    Lines,
    SourceRows,
    data_lines,
    model_lines,
    objective_lines,
    prompt_lines,
    result_lines,
    reward_lines,
    size_text,
    step_lines,
)
from mm_cpgd.tracking.progress import slow_bar
from mm_cpgd.training.optimizer import build_schedule
from mm_cpgd.training.rows import length_check
from mm_cpgd.training.setup import build_rewards, build_run_objective


def print_plan(config: RunConfig, console: Console, *, with_processor: bool) -> None:
    """Print the plan of a run: nothing is trained or written, and no weight is loaded.

    Args:
        config: the run's config.
        console: receives the output.
        with_processor: load the model's processor to count prompt tokens. Without it the plan also works
            where the model cannot be reached.

    Raises:
        UserError, DataError: errors that would also end the run before its first step.
    """
    choose_strategy(config.distributed, os.environ)
    objective = build_run_objective(config)
    build_rewards(config)
    _check_schedule(config.training)
    encoder = _encoder(config) if with_processor else None
    size = _size(config, required=with_processor)
    wanted = (("training", config.data.train), ("held-out", config.data.eval))
    sets = [
        _rows(config, purpose, source, encoder, console) for purpose, source in wanted if source is not None
    ]
    _print(console, f"{config.name}: the plan", model_lines(config, size))
    _print(console, "Data", data_lines(config, sets))
    for rows in sets:
        if rows.found.quarantined:
            console.print(f"Unusable {rows.purpose} rows:", first_bad_rows(rows.found), sep="\n")
    _print(console, "First prompt, as the model reads it", prompt_lines(encoder, sets[0]))
    _print(console, "One iteration", step_lines(config, objective))
    _print(console, "Objective, to be maximised", objective_lines(config, objective))
    _print(console, "Rewards", reward_lines(config))
    _print_memory(console, config, size, sets, objective)
    _print(console, "Results", result_lines(config))
    _raise_if_unusable(config, sets)


def _check_schedule(training: TrainingConfig) -> None:
    build_schedule(torch.optim.SGD([torch.zeros(1, requires_grad=True)]), training, 1)


def _encoder(config: RunConfig) -> PromptEncoder:
    policy = config.policy
    processor = load_processor(policy, samples=config.rollout.engine == "local")
    return PromptEncoder(
        processor, None, policy.system_prompt, policy.prompt_template, system_turns=policy.system_turns
    )


def _size(config: RunConfig, *, required: bool) -> ModelSize | None:
    try:
        return measure_model(config.policy)
    except UserError:
        if required:
            raise
        return None


def _rows(
    config: RunConfig, purpose: str, source: SourceConfig, encoder: PromptEncoder | None, console: Console
) -> SourceRows:
    rows = SourceRows(purpose, source, read_all_rows(source, config.data, console))
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
        if not rows.found.examples or bad > config.data.max_bad_share * total:
            raise DataError(
                f"the run would not start: {bad:,} of {total:,} {rows.purpose} rows cannot be used "
                f"({bad / total:.1%}, data.max_bad_share allows {config.data.max_bad_share:.1%}); fix the "
                "rows or the columns mapping, or raise data.max_bad_share"
            )


def _print_memory(
    console: Console,
    config: RunConfig,
    size: ModelSize | None,
    sets: Sequence[SourceRows],
    objective: Objective,
) -> None:
    if size is None:
        _print(console, "Memory", [("estimate", "unknown without the model's config.json")])
        return
    usable = [n for n in sets[0].lengths if n <= config.data.max_prompt_tokens]
    longest = max(usable, default=config.data.max_prompt_tokens)
    items = estimate_memory(config, size, longest, reference=objective.needs_reference)
    table = Table(title="Estimated memory of one process", title_justify="left")
    for heading in ("item", "update", "rollout", "how"):
        table.add_column(heading, justify="right" if heading in ("update", "rollout") else "left")
    for item in items:
        table.add_row(item.name, size_text(item.update), size_text(item.rollout), item.how)
    table.add_section()
    total = total_of(items)
    table.add_row(
        total.name, size_text(total.update), size_text(total.rollout), "at the longest prompt and completion"
    )
    console.print(table)
    console.print(
        f"Peak about {size_text(max(total.update, total.rollout))}; allow a fifth more. "
        "Every process needs as much; policy.lora and policy.gradient_checkpointing lower it.",
        highlight=False,
    )


def _print(console: Console, title: str, lines: Lines) -> None:
    """Print lines of (name, value) as a titled table; print nothing if there are no lines."""
    table = Table(title=Text(title), title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in lines:
        table.add_row(Text(name), Text(value))
    if table.row_count:
        console.print(table)
