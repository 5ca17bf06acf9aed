"""Seeds of sampled tokens, which depend on the place of a completion alone."""

from __future__ import annotations

import hashlib


def turn_seed(seed: int, iteration: int, number: int, slot: int, k: int, turn: int) -> int:
    """Return the seed of a turn of a completion; that of the first one is the completion's."""
    return seed_of(seed, iteration, number, slot, k, *([turn] if turn else []))


def seed_of(*parts: int | str) -> int:
    """Return one seed from several numbers or names; neighbouring inputs give unrelated seeds."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
