"""Text of a run's plan as lines of (name, value), which ``mm_cpgd.preflight.plan`` prints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data import ExampleSet
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.config.rollout import RolloutConfig
from mm_cpgd.config.schema import RunConfig, SourceConfig, TrainingConfig
from mm_cpgd.policy import PromptEncoder
from mm_cpgd.preflight.data import quantiles, reasons_table
from mm_cpgd.preflight.memory_rollout import most_completions
from mm_cpgd.preflight.model_size import ModelSize
from mm_cpgd.preflight.setting import Machines, Setting
from mm_cpgd.training.setup import step_schedule
from rewards import list_rules

# Characters of the first prompt that are printed.
PRINTED_PROMPT = 800
# Number formats of weights by bytes.
NUMBERS = {4: "float32", 2: "bfloat16"}
Lines = Iterable[tuple[str, str]]


@dataclass
class SourceRows:
    """Rows of one source, with the prompt lengths of the usable ones and of those that are too long.

    Attributes:
        purpose: ``training`` or ``held-out``.
        found: usable and unusable rows.
        lengths: in tokens.
        longest_id: id of the row with the longest prompt.
        longest: its length.
        too_long: number of rows above the limit.
        problem: why no rows were read; empty if they were.
    """

    purpose: str
    source: SourceConfig
    found: ExampleSet
    lengths: list[int] = field(default_factory=list)
    longest_id: str = ""
    longest: int = -1
    too_long: int = 0
    problem: str = ""

    def record_length(self, example: str, length: int | None, limit: int) -> None:
        """Record the length of a prompt in tokens; None if it could not be counted."""
        if length is None:
            return
        if length > self.longest:
            self.longest, self.longest_id = length, example
        self.lengths.append(length)
        self.too_long += length > limit


def model_lines(config: RunConfig, size: ModelSize | None, setting: Setting | None, problem: str) -> Lines:
    """Yield the model, where its dimensions come from, its parameters and which of them are trained.

    Args:
        config: the run's config.
        size: size of the model; None: not known.
        setting: number formats; None with an unknown size.
        problem: why the size is not known.
    """
    policy = config.policy
    yield "model", policy.model + (f" at {policy.revision}" if policy.revision else "")
    if size is None:
        yield "parameters", f"unknown: {problem}"
    else:
        yield "dimensions from", size.source
        yield "architecture", size.kind
        yield "parameters", f"{_count(size.total)}, vision tower {_count(size.vision)} of them"
        yield "trained", f"{_count(size.trained)} ({size.trained / (size.total + size.adapters):.2%})"
    adapted = "adapted" if policy.lora and policy.lora.vision else "frozen"
    yield "vision tower", adapted if policy.freeze_vision or policy.lora else "trained"
    if policy.lora:
        kind = ("Q" if policy.lora.quantize else "") + ("DoRA" if policy.lora.dora else "LoRA")
        yield kind, f"rank {policy.lora.rank}, alpha {policy.lora.alpha}, on {policy.lora.targets}"
    stored = NUMBERS.get(setting.weight, "?") if setting else policy.dtype
    computed = "bfloat16" if setting and setting.half else stored
    yield "precision", f"weights {stored}, computed in {computed}"


def data_lines(config: RunConfig, sets: Sequence[SourceRows], why_uncounted: str) -> Lines:
    """Yield numbers of rows, unusable rows and prompt lengths of each source."""
    limit = config.data.max_prompt_tokens
    for rows in sets:
        source, found = rows.source, rows.found
        yield rows.purpose, " ".join(filter(None, (source.path, source.name, source.split)))
        if rows.problem:
            yield "  rows", rows.problem
            continue
        used, bad = len(found.examples), len(found.quarantined)
        yield "  rows", f"{used:,} used, {bad:,} unusable, {found.total:,} in all"
        yield from ((f"    {kind}", count) for kind, count in reasons_table(found))
        if rows.lengths:
            yield "  prompt tokens", quantiles(rows.lengths)
            yield "  longest", f"row {rows.longest_id}; {rows.too_long:,} rows above the limit of {limit:,}"
    if not any(rows.lengths for rows in sets):
        yield "prompt tokens", f"not counted ({why_uncounted}); the limit is {limit:,}"


def prompt_lines(encoder: PromptEncoder | None, rows: SourceRows) -> Lines:
    """Yield the first prompt; a sequence of image tokens is written once, with its count."""
    if encoder is None or not rows.found.examples:
        return
    example = rows.found.examples[0]
    text = encoder.processor.tokenizer.decode(encoder.encode(example).input_ids, skip_special_tokens=False)
    yield "prompt", _shortened(_counted_runs(text))
    yield "gold answer", _shortened(example.answer)


def _cuts(rollout: RolloutConfig) -> str:
    """Return the cuts that are set, and over which tokens the log-probabilities are; empty without cuts."""
    given = {"top-p": (rollout.top_p, 1.0), "top-k": (rollout.top_k, 0), "min-p": (rollout.min_p, 0.0)}
    cuts = [f"{name} {value:g}" for name, (value, off) in given.items() if value != off]
    over = {"renormalise": "trained over the kept tokens", "reweight": "trained over all tokens, reweighted"}
    return ", ".join(["", *cuts, over[rollout.cuts]]) if cuts else ""


def step_lines(config: RunConfig, objective: Objective, machines: Machines) -> Lines:
    """Yield prompts, completions and optimizer steps."""
    rollout, training, schedule = config.rollout, config.training, step_schedule(config)
    processes = machines.processes
    completions = rollout.prompts * rollout.completions
    budget = objective.budget
    even = f", {completions // processes:,} on each of {processes} processes"
    each = "" if processes == 1 or budget else even
    times = f"prompts × {rollout.completions} completions = {completions:,}"
    dealt = f"prompts, {completions:,} completions dealt out by {budget.name}" if budget else times
    yield (
        "rollout",
        (
            f"{rollout.prompts:,} {dealt}{each}; "
            f"at most {rollout.max_new_tokens:,} tokens, temperature {rollout.temperature:g}{_cuts(rollout)}"
        ),
    )
    if budget:
        yield (
            "",
            f"1 to {most_completions(config):,} completions of a prompt, in {completions:,} of an iteration",
        )
    if chosen := rollout.environment:
        yield (
            "conversations",
            (
                f"with {chosen.name}: at most {chosen.max_turns:,} turns, {chosen.max_tokens:,} tokens after "
                f"the prompt and {chosen.max_images:,} images"
            ),
        )
    if objective.max_rounds > 1:
        yield "", f"again, up to {objective.max_rounds} times, until enough prompts are kept"
    mini = min(schedule.mini_batch_prompts, rollout.prompts)
    average = "on average " if budget else ""
    per_step = f"{average}{mini * rollout.completions:,} completions per optimizer step"
    yield "mini-batch", f"{mini:,} prompts{', ' if budget else ' = '}{per_step}"
    tokens = training.tokens_of_pass(on_gpu=machines.on_gpu)
    yield "micro-batch", f"{tokens:,} tokens per forward pass and process"
    steps = schedule.steps_per_iteration
    epochs = f"{training.inner_epochs} inner epochs, " if training.inner_epochs > 1 else ""
    yield (
        "optimizer",
        (
            f"{epochs}{steps} steps per iteration, {steps * schedule.iterations:,} in "
            f"{schedule.iterations:,} iterations; {_optimizer(training)}, gradient norm at most "
            f"{training.max_grad_norm:g}"
        ),
    )
    warmup = f", warm-up over {training.warmup_steps} steps" if training.warmup_steps else ""
    yield "learning rate", f"{training.learning_rate:g}, {training.schedule}{warmup}"
    yield "prompts drawn", f"{rollout.prompts * schedule.iterations:,} in all"


def _optimizer(training: TrainingConfig) -> str:
    bits = "8-bit AdamW" if training.optimizer == "adamw_8bit" else "AdamW"
    place = ", moments in CPU memory" if training.offload_moments else ""
    return f"{bits}{place}{', stochastic rounding' if training.rounding == 'stochastic' else ''}"


def objective_lines(config: RunConfig, objective: Objective) -> Lines:
    """Yield the parts of the objective, each with its options and its formula."""
    yield "recipe", config.algorithm.recipe or "none: composed from parts"
    for part in objective.parts:
        options = ", ".join(f"{key} {_shown(value)}" for key, value in part.options.items())
        yield (
            part.kind,
            f"{part.name}{f' ({options})' if options else ''}: {part.description.text(part.options)}",
        )
    yield "reference policy", "kept" if objective.needs_reference else "none"


def reward_lines(config: RunConfig) -> Lines:
    """Yield the weighted rules."""
    described = list_rules()
    for reward in config.rewards:
        settings = {
            **reward.options,
            **reward.model_dump(include={"when", "at_least", "min", "max"}, exclude_defaults=True),
        }
        options = ", ".join(f"{key} {value}" for key, value in settings.items())
        text = described.get(reward.rule, "a rule of your own")
        rule = _from_here(reward.rule)
        name = f"{reward.name} ({rule})" if reward.name else rule
        yield f"{reward.weight:g} × {name}", f"({options}) {text}" if options else text
    chosen = config.rollout.environment
    for score, weight in (chosen.scores if chosen else {}).items():
        gate = chosen.gates.get(score) if chosen else None
        when = f", if {gate} is 1" if gate else ""
        yield f"{weight:g} × {score}", f"scored by the environment {chosen.name}{when}" if chosen else ""


def _from_here(reference: str) -> str:
    """Return a rule's name; the path of a user's file as it is from the current folder, if it is below it."""
    path = Path(reference)
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_absolute() and path.is_relative_to(here) else reference


def result_lines(config: RunConfig) -> Lines:
    """Yield the results: folder, checkpoints, evaluations and metrics."""
    exists = (config.folder / "config.yaml").exists()
    yield "folder", f"{config.folder}" + (" (holds a run: --resume or --overwrite)" if exists else "")
    every, keep = config.checkpoint.every, config.checkpoint.keep
    yield (
        "checkpoints",
        (f"every {every} iterations and at the end" if every else "at the end") + f", {keep} kept",
    )
    if config.data.eval is None:
        yield "evaluation", "none: data.eval is not given"
    else:
        times = [
            name
            for name, on in (("before", config.evaluation.before), ("after", config.evaluation.after))
            if on
        ]
        during = [f"every {config.evaluation.every} iterations"] if config.evaluation.every else []
        yield "evaluation", ", ".join([*times, *during]) or "none"
    yield "metrics", ", ".join(["metrics.jsonl", *config.tracking.tools])


def size_text(count: int) -> str:
    """Return a number of bytes as MiB or GiB; a dash for 0."""
    if not count:
        return "–"
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"


def _count(number: int) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.2f} {letter}"
    return str(number)


def _counted_runs(text: str) -> str:
    """Write a repeated special token (image patches) once, with its count."""
    return re.sub(r"(<[^<>\s]+>)\1+", lambda run: f"{run[1]}×{len(run[0]) // len(run[1])}", text)


def _shortened(text: str) -> str:
    if len(text) <= PRINTED_PROMPT:
        return text
    half = PRINTED_PROMPT // 2
    return f"{text[:half]} … {len(text) - 2 * half:,} characters … {text[-half:]}"


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
