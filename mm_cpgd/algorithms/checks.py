"""Mixes of parts that cannot work, each an error that says why and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from mm_cpgd.algorithms.parts import Part
from mm_cpgd.errors import UserError

_GROUP_BASELINES = ("cpgd", "grpo", "rloo", "group_mean", "bnpo")
_LOG_RATIO_SURROGATES = ("policy_gradient", "cpgd")


def check_group(parts: Sequence[Part], completions: int) -> None:
    """Parts that compare the completions of a prompt need at least two of them."""
    if completions >= 2:
        return
    for part in filter(_compares_group, parts):
        way_out = (
            "use the advantage reinforce_pp with baseline none"
            if part.kind == "advantage"
            else "remove the part"
        )
        raise UserError(
            f"{part.where} compares the completions of one prompt and needs rollout.completions >= 2; it is "
            f"{completions}. Raise it, or {way_out}."
        )


def _compares_group(part: Part) -> bool:
    if part.kind == "advantage":
        return part.name in _GROUP_BASELINES or part.options.get("baseline") == "group"
    return part.kind == "selection"


def check_surrogate_options(name: str, options: Sequence[str]) -> None:
    """A dual clip bounds the ratio, which the log-ratio surrogates do not have."""
    if name in _LOG_RATIO_SURROGATES and {"bound", "dual_clip"} & set(options):
        raise UserError(
            f"algorithm.surrogate: {name} takes no dual clip: that bounds the ratio in the gradient when "
            f"A < 0, and {name} has no ratio there. Remove it, or use the surrogate dual_clip."
        )


def check_no_repetition(parts: Sequence[Part]) -> None:
    """The same part twice is a slip: its numbers would silently add up."""
    names = [part.where for part in parts]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{name} is written {names.count(name)} times; write it once.")


def check_filter(part: Part) -> None:
    """The accuracy filter keeps something."""
    low, high = part.options["low"], part.options["high"]
    if low > high:
        raise UserError(
            f"{part.where}: low = {low} is above high = {high}, which keeps no prompt; swap them."
        )


def check_overlong(part: Part, max_new_tokens: int) -> None:
    """The overlong penalty's buffer lies within the completion."""
    buffer = part.options["buffer"]
    if buffer is not None and buffer > max_new_tokens:
        raise UserError(
            f"{part.where}: buffer = {buffer} is longer than rollout.max_new_tokens = {max_new_tokens}, so "
            f"that even an empty completion would be punished; lower it, or leave it out for a fifth of them."
        )


def check_kl(part: Part) -> None:
    """The gradient of k1 itself is noise around 0."""
    if part.options["estimator"] == "k1" and part.options["gradient"] == "paper":
        raise UserError(
            f"{part.where}: the gradient of estimator k1 averages to 0, so it would add noise and hold "
            f"nothing back; write gradient: correct, or use k2 or k3."
        )


def check_band(part: Part) -> None:
    """Clip-Cov's band of covariances holds something."""
    low, high = part.options["low"], part.options["high"]
    if low >= high:
        raise UserError(f"{part.where}: low = {low} is not below high = {high}; no covariance lies between.")


def check_mix(parts: Sequence[Part], completions: int, max_new_tokens: int) -> None:
    """All checks of an objective's parts. Raises ``UserError`` for the first that fails."""
    check_no_repetition(parts)
    check_group(parts, completions)
    for part in parts:
        if part.name == "accuracy_filter":
            check_filter(part)
        elif part.name == "overlong_penalty":
            check_overlong(part, max_new_tokens)
        elif part.name == "kl":
            check_kl(part)
        elif part.name == "clip_cov":
            check_band(part)
