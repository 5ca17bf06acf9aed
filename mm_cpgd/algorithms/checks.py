"""Compatibility checks of an objective's parts; each error says why they fail and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mm_cpgd.algorithms.by_row.replay import smallest_capacity
from mm_cpgd.algorithms.inputs.schedules import Schedule
from mm_cpgd.algorithms.methods.group_targets import UNBOUNDED
from mm_cpgd.algorithms.parts import Part
from mm_cpgd.errors import UserError

if TYPE_CHECKING:
    from mm_cpgd.algorithms.objective import Objective

_GROUP_BASELINES = ("cpgd", "grpo", "rloo", "group_mean", "bnpo", "maxrl", "gdpo", "scale_rl")
_GROUP_TARGETS = ("optimal_baseline", "f_divergence", "preference", "brpo", "bvpo")
_LOG_RATIO_SURROGATES = ("policy_gradient", "cpgd")


def check_group(parts: Sequence[Part], completions: int) -> None:
    """Check that parts which compare the completions of a prompt have at least two of them."""
    if completions >= 2:
        return
    for part in filter(_compares_group, parts):
        alternative = (
            "use the advantage reinforce_pp with baseline none"
            if part.kind == "advantage"
            else "remove the part"
        )
        raise UserError(
            f"{part.where} compares the completions of one prompt and needs rollout.completions >= 2; it is "
            f"{completions}. Raise it, or {alternative}."
        )


def _compares_group(part: Part) -> bool:
    if part.kind == "advantage":
        return part.name in _GROUP_BASELINES or part.options.get("baseline") == "group"
    if part.kind == "completions":
        return part.options.get("scope") == "group"
    return part.kind == "selection" or part.name in _GROUP_TARGETS


def check_surrogate_options(name: str, options: Sequence[str]) -> None:
    """Check that log-ratio surrogates have no dual clip, which bounds a ratio."""
    if name in _LOG_RATIO_SURROGATES and {"bound", "dual_clip"} & set(options):
        raise UserError(
            f"algorithm.surrogate: {name} takes no dual clip: that bounds the ratio in the gradient when "
            f"A < 0, and {name} has no ratio there. Remove it, or use the surrogate dual_clip."
        )


def _largest(value: float | Schedule) -> float:
    return max(value.start, value.end) if isinstance(value, Schedule) else value


def _smallest(value: float | Schedule) -> float:
    return min(value.start, value.end) if isinstance(value, Schedule) else value


def check_no_repetition(parts: Sequence[Part]) -> None:
    """Check that no part is listed twice: the terms of both would silently add up."""
    names = [part.where for part in parts]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{name} is listed {names.count(name)} times; list it once.")


def check_filter(part: Part) -> None:
    """Check that the accuracy filter's range is not empty."""
    low, high = (_largest(part.options["low"]), _smallest(part.options["high"]))
    if low > high:
        raise UserError(
            f"{part.where}: low = {low} is above high = {high}, which keeps no prompt; swap them."
        )


def check_overlong(part: Part, max_new_tokens: int) -> None:
    """Check that the overlong penalty's buffer fits into the longest completion."""
    buffer = part.options["buffer"]
    if buffer is not None and buffer > max_new_tokens:
        raise UserError(
            f"{part.where}: buffer = {buffer} is longer than rollout.max_new_tokens = {max_new_tokens}, so "
            f"even an empty completion would be penalised; lower it, or leave it out for a fifth of them."
        )


def check_kl(part: Part) -> None:
    """Check that k1 is not differentiated itself: that gradient is noise around 0."""
    if part.options["estimator"] == "k1" and part.options["gradient"] == "paper":
        raise UserError(
            f"{part.where}: the gradient of estimator k1 averages to 0, so it would add noise without "
            f"regularizing; write gradient: correct, or use k2 or k3."
        )


def check_band(part: Part) -> None:
    """Check that Clip-Cov's band of covariances is not empty."""
    low, high = (_largest(part.options["low"]), _smallest(part.options["high"]))
    if low >= high:
        raise UserError(f"{part.where}: low = {low} is not below high = {high}; no covariance lies between.")


def check_replay(part: Part) -> None:
    """Check that SPEAR's buffer can become full: it replays nothing before."""
    least = smallest_capacity(part.options["size"], part.options["fill"])
    if part.options["capacity"] < least:
        raise UserError(
            f"{part.where}: capacity = {part.options['capacity']} entries are never more than fill · size, "
            f"so that nothing would be replayed; make it at least {least}, or lower size."
        )


def check_target(part: Part) -> None:
    """Check that f-DPG's divergence is finite where its target is 0."""
    if part.options["target"] == "right" and part.options["divergence"] in UNBOUNDED:
        raise UserError(
            f"{part.where}: divergence = {part.options['divergence']!r} is infinite at wrong answers, which "
            "the target right has none of; take target tilted, or another divergence such as js."
        )


def check_row_scores(parts: Sequence[Part]) -> None:
    """Check that what one part of the curriculum needs is learned: scores of rows need a memory."""
    for part in parts:
        if part.kind == "prompts" and "row_count" in part.inputs and part.description.memory is None:
            raise UserError(
                f"{part.where} scores all rows (row_count) and has no memory to score them by; declare one "
                "with @described(…, memory=…)."
            )


def check_bundles(part: Part, parts: Sequence[Part]) -> None:
    """Check that RiskPO's levels are in order and that no selection tears its bundles apart."""
    low, high = part.options["low"], part.options["high"]
    if low >= high:
        raise UserError(f"{part.where}: low = {low} is not below high = {high}; swap them.")
    selection = [one.where for one in parts if one.kind == "selection"]
    if selection:
        raise UserError(
            f"{part.where} ties prompts that are drawn together into bundles; {selection[0]} would tear them "
            "apart. Remove it."
        )


# Advantages that divide by the rewards' spread or mean.
_WITHOUT_SCALE = ("grpo", "reinforce_pp", "gdpo", "scale_rl", "copo", "maxrl", "spo")


def check_scale(part: Part, parts: Sequence[Part]) -> None:
    """Check that a factor of all rewards is not divided out again."""
    (advantage,) = (one for one in parts if one.kind == "advantage")
    scaleless = advantage.name in _WITHOUT_SCALE or advantage.options.get("weight") == "std"
    if part.options["apply"] == "rewards" and scaleless:
        raise UserError(
            f"{part.where}: apply = 'rewards' has no effect: {advantage.where} divides by the rewards' "
            "scale. Write apply: advantages, or take an advantage that keeps the scale, such as rloo."
        )


def check_given(parts: Sequence[Part], early_answers: bool, empty_thought: bool) -> None:
    """Check that what parts need of completions with given tokens is sampled."""
    for name, key, sampled in (
        ("early_scores", "algorithm.early_answers", early_answers),
        ("empty_thought", "algorithm.empty_thought", empty_thought),
    ):
        for part in parts:
            if name in part.inputs and not sampled:
                raise UserError(f"{part.where} needs {key}, which is null; set {key}: {{}} for its defaults.")


def check_counts(part: Part, counts: Sequence[int], prompts: int, completions: int) -> None:
    """Check that a budget's numbers of completions are those of a rollout batch of P prompts."""
    if len(counts) != prompts or min(counts) < 1 or sum(counts) != prompts * completions:
        raise UserError(
            f"{part.where} returned {list(counts)}; it has to return {prompts} whole numbers of at least 1 "
            f"whose sum is {prompts * completions}, rollout.prompts times rollout.completions."
        )


def check_mixture(part: Part, found: Any, prompts: int) -> tuple[Tensor, Tensor]:
    """Return a demonstrations part's factors and weights, (P,) float64, if they are numbers of at least 0."""
    tables = found if isinstance(found, tuple) else ()
    right = [
        isinstance(one, Tensor) and one.shape == (prompts,) and bool(((one >= 0) & one.isfinite()).all())
        for one in tables
    ]
    if right != [True, True]:
        shown = [tuple(one.shape) if isinstance(one, Tensor) else type(one).__name__ for one in tables]
        raise UserError(
            f"{part.where} returned {shown or type(found).__name__}; it has to return two tables of "
            f"{prompts} finite numbers of at least 0, one for each prompt: the factor of its rollouts and "
            "the weight of its solution."
        )
    factors, weights = (torch.as_tensor(one).double() for one in tables)
    return factors, weights


def check_parts(parts: Sequence[Part], completions: int, max_new_tokens: int) -> None:
    """Run all checks of an objective's parts. Raises ``UserError`` for the first that fails."""
    check_no_repetition(parts)
    check_group(parts, completions)
    check_row_scores(parts)
    for part in parts:
        if part.name == "accuracy_filter":
            check_filter(part)
        elif part.name == "overlong_penalty":
            check_overlong(part, max_new_tokens)
        elif part.name == "kl":
            check_kl(part)
        elif part.name == "riskpo":
            check_bundles(part, parts)
        elif part.name == "hypervolume_scale":
            check_scale(part, parts)
        elif part.name == "clip_cov":
            check_band(part)
        elif part.name == "spear":
            check_replay(part)
        elif part.name == "f_divergence":
            check_target(part)


def check_values(
    objective: Objective,
    mask: Tensor,
    reference_logprobs: Tensor | None,
    entropy: Tensor | None,
    prepared: Mapping[str, Tensor],
) -> None:
    """Raise ``TypeError`` or ``ValueError`` unless an objective's ``loss`` is given what it needs."""
    if mask.dtype is not torch.bool:
        raise TypeError(f"mask must be bool, True at tokens of the completion; it is {mask.dtype}")
    if objective.needs_reference and reference_logprobs is None:
        raise ValueError("this objective needs reference_logprobs (needs_reference is True)")
    if objective.needs_entropy_gradient and entropy is None:
        raise ValueError("this objective needs entropy (needs_entropy_gradient is True)")
    needed = (*objective.prepared_parts, *objective.step_parts)
    missing = [part.where for part in needed if part.where not in prepared]
    if missing:
        raise ValueError(f"this objective needs prepared values of {', '.join(missing)}; see prepare()")
