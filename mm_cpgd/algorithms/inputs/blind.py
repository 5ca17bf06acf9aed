"""Inputs of parts that compare log-probabilities behind the picture and behind a changed one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mm_cpgd.algorithms.parts import Part

BLIND = frozenset({"blind_log_ratio", "blind_logprobs", "blind_entropy"})


@dataclass(frozen=True)
class BlindNeeds:
    """What an objective needs of passes behind changed pictures.

    Attributes:
        compares: whether any part compares pictures.
        fixed: whether log-probabilities of the policy before the update are needed, without a gradient.
        gradient: whether ``loss`` needs those of the policy, and its entropies, with their gradients.
    """

    compares: bool
    fixed: bool
    gradient: bool

    @classmethod
    def of(cls, parts: Sequence[Part], prepared: Sequence[Part]) -> BlindNeeds:
        """Return the needs of an objective's parts, of which ``prepared`` see whole mini-batches."""
        compares = any(BLIND & {*part.inputs, *part.prepare_inputs} for part in parts)
        wanted = (part.options.get("blind_gradient") or "blind_entropy" in part.inputs for part in parts)
        gradient = any(wanted)
        before = any(BLIND & {*part.prepare_inputs} for part in prepared)
        return cls(compares, before or (compares and not gradient), gradient)


def blind_inputs(
    needs: BlindNeeds,
    logprobs: Tensor,
    mask: Tensor,
    blind_logprobs: Tensor | None,
    blind_entropy: Tensor | None,
) -> dict[str, Tensor]:
    """Return the inputs of parts that compare pictures, 0 at masked positions; {} without such values.

    ``blind_log_ratio`` carries the gradient of log π alone, ``blind_logprobs`` that of the blind policy.

    Args:
        needs: those of the objective.
        logprobs: (n, T).
        mask: (n, T) bool.
        blind_logprobs: (n, T), or None.
        blind_entropy: (n, T), or None.

    Raises:
        ValueError: a value that the objective needs is missing.
    """
    if blind_logprobs is None:
        if needs.compares:
            raise ValueError("this objective needs blind_logprobs (blind.compares is True)")
        return {}
    if needs.gradient and blind_entropy is None:
        raise ValueError("this objective needs blind_entropy (blind.gradient is True)")
    zero = torch.zeros((), dtype=torch.promote_types(logprobs.dtype, torch.float32), device=logprobs.device)
    found = {
        "blind_log_ratio": torch.where(mask, logprobs.to(zero) - blind_logprobs.detach().to(zero), zero),
        "blind_logprobs": torch.where(mask, blind_logprobs.to(zero), zero),
    }
    if blind_entropy is not None:
        found["blind_entropy"] = torch.where(mask, blind_entropy.to(zero), zero)
    return found
