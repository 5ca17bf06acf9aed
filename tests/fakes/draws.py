"""How close a run's draws come to a boundary between two tokens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest.mock import patch

import torch
from torch import Tensor

from mm_cpgd.rollout import places

# Between numbers of processes, weights differ by about 1e-6, and cumulative probabilities by less.
ROUNDING = 2e-7


@contextlib.contextmanager
def clear_draws() -> Iterator[None]:
    """Fail if rounding decided a token that this process has sampled in between.

    A uniform number that lies on a boundary between two tokens gives one or the other by the last digits of
    the weights, and everything after it differs. Such a run shows nothing about sums over processes: it needs
    another seed.
    """
    draw, margins = places.draw, [torch.inf]

    def watched(logits: Tensor, uniforms: Tensor, *, greedy: bool = False) -> Tensor:
        if not greedy:
            cumulative = logits.softmax(-1).cumsum(-1, dtype=torch.float64)
            distances = (cumulative / cumulative[:, -1:] - uniforms.unsqueeze(-1)).abs()
            # 0 before the first token that is possible is exact; places without a completion draw at 0.
            margins.append(float(distances[cumulative > 0].min()))
        return draw(logits, uniforms, greedy=greedy)

    with patch.object(places, "draw", watched):
        yield
    assert min(margins) > ROUNDING, (
        f"a uniform number is {min(margins):.1e} from a boundary between two tokens; choose another seed"
    )
