"""A selection of completions of one's own: of those with the same answer the first stays."""

from __future__ import annotations

import torch
from torch import Tensor

from mm_cpgd.algorithms import described


@described("keeps a completion if none before it in its group has the same extracted answer")
def no_repeats(answers: list[list[str | None]]) -> Tensor:
    """Keep each answer once; completions without an answer stay.

    Args:
        answers: P lists of G extracted answers, None where there is none.

    Returns:
        (P, G) bool.
    """
    return torch.tensor(
        [[one is None or one not in group[:place] for place, one in enumerate(group)] for group in answers]
    )
