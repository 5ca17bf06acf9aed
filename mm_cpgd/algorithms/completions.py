"""Selection of completions: which of them take part in the update, once their advantages are known.

A part takes any of the outcomes (``mm_cpgd/algorithms/inputs/outcomes.py``) and ``advantages``, of the kept
prompts over all processes, and returns which completions stay, (P, G) bool. With several parts each must keep
a completion. One that is left out has had its part in the group's baseline; it is in no mini-batch and in no
denominator.
"""

from __future__ import annotations

from torch import Tensor

from mm_cpgd.algorithms.part_info import Share, described


@described(
    "keeps a completion if no limit cut it off",
    source="overlong filtering, DAPO, arXiv 2503.14476, section 3.4",
    use="where right reasoning is often cut off by the limit of length",
)
def drop_truncated(finished: Tensor) -> Tensor:
    """Leave out completions that the length limit, or a limit of conversations, cut off.

    Args:
        finished: (P, G) 1 where the completion ended by itself; NaN where there is none.

    Returns:
        (P, G) bool.
    """
    return finished == 1


@described(
    "keeps a completion if its accuracy ≥ {least}",
    source="rejection sampling, RAFT, arXiv 2304.06767; arXiv 2505.02391",
    use="with the advantage one: imitation of right answers",
)
def right_only(accuracy: Tensor, *, least: Share = 1.0) -> Tensor:
    """Keep right answers only.

    Args:
        accuracy: (P, G) in [0, 1], NaN where unscored.
        least: lowest accuracy that is kept.

    Returns:
        (P, G) bool.
    """
    return accuracy >= least
