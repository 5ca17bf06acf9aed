"""Completions of earlier iterations as rows beside an iteration's rollouts, and those taken up for later."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from torch.nn.functional import pad

from data import Example
from mm_cpgd.algorithms.by_row.entries import Entries
from mm_cpgd.algorithms.by_row.replay import ReplayBuffer
from mm_cpgd.algorithms.inputs.blind import BLIND
from mm_cpgd.algorithms.inputs.schedules import Schedule, is_schedule, schedule_of
from mm_cpgd.algorithms.objective import Objective
from mm_cpgd.algorithms.parts import make_part
from mm_cpgd.config.schema import RunConfig
from mm_cpgd.errors import UserError
from mm_cpgd.policy import EncodedPrompt
from mm_cpgd.policy.prompts import PromptEncoder
from mm_cpgd.rollout import Group
from mm_cpgd.training.ahead.prefetch import encode_rows
from mm_cpgd.training.experience import Experience, pad_tokens
from mm_cpgd.training.rollouts.beside.elsewhere import Source, surrogate_alone
from mm_cpgd.training.rollouts.beside.tempered import tempered_source
from mm_cpgd.training.rollouts.seeds import seed_of

# Prompts of training rows, None for a row that cannot be read any more.
Encode = Callable[[Sequence[int]], Sequence[EncodedPrompt | None]]


class Replay:
    """Adds rows from the memory of the objective's ``replay`` to an iteration's experience.

    Entry e of a draw belongs to mini-batch e mod K and there to the processes in turn, so that all of them
    have the same mini-batches for any number of processes.

    Args:
        accelerator: the run's accelerator.
        objective: with ``replay``.
        encode: encodes the prompts of training rows.
        seed: of the run.
        sources: number of all sources but the rollouts, of which this is the last.
        weight: factor on the loss by iteration; nothing is replayed where it is 0.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        objective: Objective,
        encode: Encode,
        *,
        seed: int,
        sources: int,
        weight: Callable[[int], float],
    ) -> None:
        self.accelerator = accelerator
        self.objective = objective
        self.encode = encode
        self.seed = seed
        self.sources = sources
        self.weight = weight

    @property
    def memory(self) -> ReplayBuffer:
        """The entries of earlier iterations."""
        assert self.objective.replay is not None
        factory = self.objective.replay.description.memory
        assert factory is not None
        found = self.objective.memories[factory.__name__]
        assert isinstance(found, ReplayBuffer)
        return found

    def add(
        self,
        experience: Experience,
        batches: Sequence[Sequence[Group]],
        usable: Tensor,
        advantages: Tensor,
        mine: Tensor,
        iteration: int,
    ) -> dict[str, float]:
        """Add the replayed rows to the experience, and to its outcomes what is taken up after the update.

        Args:
            experience: this process's, of the rollouts and of sources with smaller numbers.
            batches: of each rollout batch and prompt of this process its completions.
            usable: (P, G) bool, completions that are learned from, of all processes.
            advantages: (P, G).
            mine: (P,) bool, the prompts of this process.
            iteration: the running iteration, from 1.

        Returns:
            Metrics over all processes.
        """
        assert experience.outcomes is not None
        admitted = self.memory.admits(advantages, usable)
        rows = experience.outcomes.rows, experience.outcomes.rewards, advantages
        groups = [group for batch in batches for group in batch]
        taken_up = self._gather(own_entries(groups, admitted, mine, *rows, iteration=iteration))
        experience.other_lengths = [
            [*own, *[torch.zeros(0)] * (self.sources - len(own))] for own in experience.other_lengths
        ]
        drawn, drawn_advantages = self.draw(iteration, len(experience.lengths))
        if len(drawn):
            self._join(experience, drawn, drawn_advantages)
        experience.outcomes = replace(experience.outcomes, entries=taken_up.state(), replayed=len(drawn))
        tokens = float(sum(int(own.sum()) for own in experience.lengths))
        others = float(drawn.lengths.sum())
        found = {
            "replay/size": float(len(self.memory.entries)),
            "replay/rows": float(len(drawn)),
            "replay/token_share": others / max(tokens + others, 1.0),
        }
        if len(drawn):
            found["replay/age"] = float((iteration - drawn.iterations).double().mean())
        return found

    def draw(self, iteration: int, mini_batches: int) -> tuple[Entries, Tensor]:
        """Return the entries to replay and their advantages (E,), the same on all processes; changes nothing.

        There are none where the weight is 0 or the iteration takes no optimizer step.
        """
        held = self.memory.entries
        nothing = Entries.none(), torch.zeros(0, dtype=torch.float64)
        if not len(held) or not mini_batches or not self.weight(iteration):
            return nothing
        known = {
            "rewards": held.rewards,
            "advantages": held.advantages,
            "ages": iteration - held.iterations,
            "lengths": held.lengths,
            "rows": held.rows,
            "seed": seed_of(self.seed, iteration, "replay"),
        }
        assert self.objective.replay is not None
        advantages: Tensor = self.objective.call(
            self.objective.replay, {**known, **self.objective.clock(iteration)}
        )
        chosen = (~advantages.isnan()).nonzero().squeeze(1)
        return held.at(chosen), advantages[chosen]

    def _join(self, experience: Experience, drawn: Entries, advantages: Tensor) -> None:
        """Add this process's share of the entries as rows of the experience."""
        count = len(experience.lengths)
        place = torch.arange(len(drawn))
        mini_batch, turn = place % count, place // count
        processes = self.accelerator.num_processes
        own = (turn % processes == self.accelerator.process_index).nonzero().squeeze(1)
        mine = drawn.at(own)
        rows = mine.rows.unique()
        prompts = self.encode(rows.tolist())
        readable = torch.tensor([prompt is not None for prompt in prompts], dtype=torch.bool)
        prompt_of = torch.searchsorted(rows, mine.rows)
        lost = [] if not len(own) else own[~readable[prompt_of]].tolist()
        gone = torch.zeros(len(drawn), dtype=torch.bool)
        gone[[entry for found in gather_object([lost]) for entry in found]] = True
        keep = ~gone[own]
        add_rows(
            experience,
            mine.at(keep.nonzero().squeeze(1)),
            advantages[own][keep],
            mini_batch[own][keep],
            rows[readable].tolist(),
            [prompt for prompt in prompts if prompt is not None],
            (readable.cumsum(0) - 1)[prompt_of[keep]],
            number=self.sources,
        )
        for step in range(count):
            of_step = (mini_batch == step) & ~gone
            experience.other_lengths[step][-1] = drawn.lengths[of_step].float()

    def _gather(self, own: tuple[list[int], Entries]) -> Entries:
        """Return the entries of all processes in the order of their completions."""
        everywhere = gather_object([(own[0], own[1].state())])
        order = torch.tensor([place for places, _ in everywhere for place in places], dtype=torch.long)
        return Entries.joined([Entries(**state) for _, state in everywhere]).at(order.argsort())


def own_entries(
    groups: Sequence[Group],
    admitted: Tensor,
    mine: Tensor,
    rows: Tensor,
    rewards: Tensor,
    advantages: Tensor,
    *,
    iteration: int,
) -> tuple[list[int], Entries]:
    """Return this process's completions that are taken up, and the place of each among all P·G.

    Args:
        groups: of each prompt of this process its completions.
        admitted: (P, G) bool, of all processes.
        mine: (P,) bool, the prompts of this process.
        rows: (P,) training rows.
        rewards: (P, G).
        advantages: (P, G).
        iteration: in which they were sampled.
    """
    slot, place = admitted[mine].nonzero(as_tuple=True)
    prompt = mine.nonzero().squeeze(1)[slot]
    found = [groups[s][k] for s, k in zip(slot.tolist(), place.tolist(), strict=True)]
    nothing = [torch.zeros(0)]
    entries = Entries(
        rows=rows[prompt].long(),
        iterations=torch.full_like(prompt, iteration),
        rewards=rewards[prompt, place].double(),
        advantages=advantages[prompt, place].double(),
        lengths=torch.tensor([one.tokens.numel() for one in found], dtype=torch.long),
        tokens=torch.cat([one.tokens for one in found] or nothing).int(),
        logprobs=torch.cat([one.logprobs for one in found] or nothing).float(),
    )
    return (prompt * admitted.shape[1] + place).tolist(), entries


def add_rows(
    experience: Experience,
    entries: Entries,
    advantages: Tensor,
    mini_batch: Tensor,
    rows: Sequence[int],
    prompts: Sequence[EncodedPrompt],
    prompt_of: Tensor,
    *,
    number: int,
) -> None:
    """Append m entries to the rows of an experience, which may be none.

    Args:
        experience: is changed; its old policy's values are not known yet.
        entries: of this process.
        advantages: (m,).
        mini_batch: (m,) optimizer step of an inner epoch.
        rows: training row of each of their prompts.
        prompts: these, encoded.
        prompt_of: (m,) which of them.
        number: of their source.
    """
    sizes, before = entries.sizes, len(experience)
    tokens, mask = pad_tokens(list(entries.tokens.long().split(sizes)) if sizes else [])
    given = pad_tokens(list(entries.logprobs.split(sizes)) if sizes else [])[0].float()
    # A process without rows has a stand-in's prompt, which no example is.
    present = experience.prompts if experience.examples else []
    if prompts:
        experience.prompts = [*present, *prompts]
    experience.examples = [*experience.examples, *rows]
    experience.prompt_of = torch.cat([experience.prompt_of, prompt_of + len(present)])
    own = torch.zeros(experience.tokens.shape)
    if experience.given_logprobs is not None:
        own = experience.given_logprobs
    experience.given_logprobs = stacked(own, given)
    if experience.sampled_logprobs is not None:
        experience.sampled_logprobs = stacked(experience.sampled_logprobs, given)
    source = torch.zeros(before, dtype=torch.long) if experience.source is None else experience.source
    experience.source = torch.cat([source, torch.full((len(sizes),), number)])
    experience.tokens = stacked(experience.tokens, tokens)
    experience.mask = stacked(experience.mask, mask)
    experience.advantages = torch.cat([experience.advantages, advantages.float()])
    experience.mini_batch = torch.cat([experience.mini_batch, mini_batch])
    experience.facts = experience.facts and _unknown(experience.facts, len(sizes))


def stacked(above: Tensor, below: Tensor) -> Tensor:
    """Return rows (n, T) and rows (m, U) as (n + m, max(T, U)), filled up with 0."""
    width = max(above.shape[1], below.shape[1])
    return torch.cat([pad(rows, (0, width - rows.shape[1])) for rows in (above, below)])


def _unknown(facts: Mapping[str, Tensor], count: int) -> dict[str, Any]:
    """Return facts of rows with those of ``count`` more: −1 for places, NaN for values."""
    return {
        name: torch.cat([own, torch.full((count,), torch.nan if own.is_floating_point() else -1).to(own)])
        for name, own in facts.items()
    }


def run_sources(config: RunConfig, objective: Objective) -> list[Source]:
    """Return the sources of a run's rows beside its rollouts, in their numbers' order; replay is the last.

    Raises:
        UserError: as ``weight_of``; a part of ``algorithm.replay.token_weights`` is not possible; or further
            completions and noised pictures in one run.
    """
    tempered, replay = config.algorithm.tempered, config.algorithm.replay
    if tempered and config.algorithm.noisy:
        raise UserError(
            "algorithm.tempered does not go together with algorithm.noisy: further completions are sampled "
            "behind the clean picture; remove one of them"
        )
    found = [tempered_source(objective)] if tempered else []
    if replay:
        parts = tuple(make_part("token_weights", part.name, part.options) for part in replay.token_weights)
        if any(BLIND & {*part.inputs} for part in parts):
            raise UserError(
                "algorithm.replay.token_weights cannot compare pictures: nothing is computed behind changed "
                "ones for replayed rows; take other parts"
            )
        loss, weight = surrogate_alone(objective, parts), weight_of(replay.weight)
        found.append(Source("replay", loss, weight, more=("clip_fraction",)))
    return found


def build_replay(
    config: RunConfig,
    accelerator: Accelerator,
    objective: Objective,
    encoder: PromptEncoder,
    examples: Sequence[Example],
    sources: Sequence[Source],
) -> Replay | None:
    """Return what adds replayed rows, whose source is the last, as the config says; None without."""
    if config.algorithm.replay is None:
        return None

    def encode(rows: Sequence[int]) -> list[EncodedPrompt | None]:
        return encode_rows(encoder, [examples[row] for row in rows])[0]

    return Replay(
        accelerator,
        objective,
        encode,
        seed=config.seed,
        sources=len(sources),
        weight=sources[-1].weight_at,
    )


def weight_of(value: float | Mapping[str, Any]) -> float | Schedule:
    """Return the configured factor on the loss of replayed rows. Raises ``UserError`` for others."""
    try:
        if not isinstance(value, Mapping):
            ends = [float(value)]
            found: float | Schedule = ends[0]
        elif is_schedule(value):
            ends = [float(value["from"]), float(value["to"])]
            found = schedule_of(value, *ends)
        else:
            raise ValueError("a schedule has at least from and to")
        if min(ends) < 0:
            raise ValueError("it must be at least 0")
    except (TypeError, ValueError) as error:
        raise UserError(f"algorithm.replay.weight = {value!r} is not possible: {error}") from None
    return found
