"""Reward rule of runs with wrong rewards: accuracy by a verifier that is wrong about some answers."""

from __future__ import annotations

import hashlib
from typing import Any

from rewards import Verdict, get_rule


def flipped(completion: str, example: Any, share: float = 0.1, seed: int = 0) -> Verdict | float:
    """Return the accuracy, for a share of the answers its opposite.

    Which answers these are depends on the row and the text alone: as with a real verifier, the same answer to
    the same row always gets the same score.

    Args:
        completion: the model's text.
        example: the row, with its id and gold answer.
        share: share of wrong scores, 0 to 1.
        seed: seed of the choice.
    """
    verdict = get_rule("accuracy")(completion, example)
    text = f"{seed}\0{example.id}\0{completion}".encode("utf-8", "replace")
    place = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") / 2**64
    if place >= share or verdict.score is None:
        return verdict
    return 1.0 - verdict.score
