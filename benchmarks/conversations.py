"""Time of sampling conversations with the local engine (docs/training.md).

``python -m benchmarks.conversations`` has the embedded tiny policy, with thirty end tokens so that its turns
end, look at a quarter of the picture of ``generated:detail`` after each turn, for 2, 4 and 6 turns. It prints
seconds of processor time for the three ways of sampling, and with tools that take time the seconds that pass.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import Any

import torch

from data import Example
from data.generated import generate
from mm_cpgd.config.schema import PolicyConfig
from mm_cpgd.environments import Message, Observation
from mm_cpgd.policy import EncodedPrompt, Policy, load_policy
from mm_cpgd.policy.distribution import Sampling
from mm_cpgd.rollout import Completion, LocalEngine
from mm_cpgd.rollout.conversations.sampler import ConversationSampler
from mm_cpgd.rollout.conversations.state import Limits

PROMPTS, COMPLETIONS, REPEATS, MAX_NEW_TOKENS = 8, 8, 3, 64
ENDS = 30


class Quarters:
    """Shows a quarter of the picture after each turn but the last.

    Args:
        seed: decides which quarters, and how long each takes.
        turns: of a conversation.
        seconds: mean of the exponentially distributed time of a reply.
    """

    def __init__(self, seed: int, turns: int, seconds: float) -> None:
        self.random = random.Random(seed)
        self.turns, self.seconds, self.turn = turns, seconds, 0

    def reset(self, example: Example) -> Sequence[Message]:
        """Return the question."""
        self.image = example.images[0]
        return [Message.of("user", *example.images, example.question)]

    def step(self, completion: str) -> Observation:
        """Reply to a turn."""
        self.turn += 1
        if self.seconds:
            time.sleep(self.random.expovariate(1 / self.seconds))
        if self.turn == self.turns:
            return Observation(done=True)
        picture = self.image.open()
        width, height = picture.width // 2, picture.height // 2
        left, top = self.random.choice([0, width]), self.random.choice([0, height])
        return Observation((Message.of("user", picture.crop((left, top, left + width, top + height))),))


class InRounds:
    """The engine without sessions: each round begins with all that came before."""

    def __init__(self, engine: LocalEngine) -> None:
        self.generate = engine.generate


def main() -> None:
    """Print a table for each number of turns."""
    torch.set_num_threads(1)
    policy = load_policy(PolicyConfig(model="embedded:tiny", dtype="float32", max_pixels=12_544))
    policy.model.generation_config.eos_token_id = list(range(100, 100 + ENDS))
    for turns in (2, 4, 6):
        for seconds in (0.0, 0.1):
            _show(policy, turns, seconds)


def _show(policy: Policy, turns: int, seconds: float) -> None:
    engine = LocalEngine(policy)
    clock = time.perf_counter if seconds else time.process_time
    unit = f"{turns} turns, replies of {seconds:g} s, seconds {'passed' if seconds else 'of the processor'}"
    ways = {
        "rounds, all computed anew": partial(_sample, InRounds(engine), rounds=True),
        "rounds, with the rows' keys and values": partial(_sample, engine, rounds=True),
        "each as its tool replies": partial(_sample, engine, rounds=False),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, list[list[int]]] = {}
    for _ in range(REPEATS):
        for name, sample in ways.items():
            started = clock()
            rows = sample(policy, turns, seconds)
            times[name].append(clock() - started)
            found[name] = [one.tokens.tolist() for one in rows]
    own = [one.length for one in rows]
    print(f"{unit}; {sum(own) / len(own):.0f} own tokens, {len(rows[0].tokens)} in the first")
    first = next(iter(found.values()))
    for name, values in times.items():
        same = "" if found[name] == first else "; other tokens"
        print(f"  {name}: {median(values):.2f} ({min(values):.2f} to {max(values):.2f}){same}", flush=True)


def _sample(engine: Any, policy: Policy, turns: int, seconds: float, *, rounds: bool) -> list[Completion]:
    examples = generate(("detail",), PROMPTS, seed=5)
    make = partial(Quarters, turns=turns, seconds=seconds)
    policy.encoder.environment = make
    prompts: list[EncodedPrompt | None] = [policy.encoder.encode(one) for one in examples]
    sampler = ConversationSampler(
        policy, engine, make, Limits(turns, 8192, 16), seconds=30, threads=64, rounds=rounds
    )
    seeds = [[partial(_seed, prompt, k) for k in range(COMPLETIONS)] for prompt in range(PROMPTS)]
    groups = sampler.generate(prompts, examples, Sampling(MAX_NEW_TOKENS), seeds)
    return [one for group in groups for one in group]


def _seed(prompt: int, k: int, turn: int) -> int:
    return 10_000 * prompt + 100 * k + turn + 1


if __name__ == "__main__":
    main()
