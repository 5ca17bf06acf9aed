"""Objective composed from parts: the methods that the trainer calls in each phase of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from mm_cpgd.algorithms.checks import check_counts, check_mixture, check_values
from mm_cpgd.algorithms.inputs.blind import BlindNeeds, blind_inputs
from mm_cpgd.algorithms.inputs.draws import Drawn, Draws, drawn_inputs, draws_of
from mm_cpgd.algorithms.inputs.memory import Memory, Reporting
from mm_cpgd.algorithms.inputs.outcomes import Outcomes
from mm_cpgd.algorithms.inputs.schedules import progress_of
from mm_cpgd.algorithms.inputs.tokens import part_inputs, token_metrics
from mm_cpgd.algorithms.parts import Part
from mm_cpgd.algorithms.regularizers import State


@dataclass(frozen=True)
class Objective:
    """Composition of parts; ``docs/algorithms.md`` shows the order in which a step calls its methods.

    Attributes:
        advantage: rewards to advantages.
        surrogate: term that is maximised for each token.
        regularizers: terms that are subtracted for each token.
        aggregation: weights of the tokens in the sum.
        selection: filters of prompts.
        shaping: additions to rewards.
        max_tokens: longest completion that may be sampled.
        token_weights: weights of the surrogate by token.
        prompts: score of the curriculum sampler; None: prompts are drawn uniformly.
        states: states of parts by ``Part.where``; the only mutable content.
        iterations: iterations of the whole run, by which ``progress`` is measured.
        completions: filters of completions.
        token_advantages: advantages of completions to those of tokens, one after the other.
        budget: completions of each prompt; None: as many for all.
        replay: advantages of earlier completions; None: none are learned from.
        tempered: temperature of further completions; None: none are sampled.
        demonstrations: which prompts are taught by their rows' solutions; None: none.
        reward_weights: weights of the rules in this iteration; None: their own.
        memories: memories of parts by the name of their factory, mutable likewise.
    """

    advantage: Part
    surrogate: Part
    regularizers: tuple[Part, ...]
    aggregation: Part
    selection: tuple[Part, ...]
    shaping: tuple[Part, ...]
    max_tokens: int
    token_weights: tuple[Part, ...] = ()
    prompts: Part | None = None
    states: dict[str, State] = field(default_factory=dict)
    iterations: int = 1
    completions: tuple[Part, ...] = ()
    token_advantages: tuple[Part, ...] = ()
    budget: Part | None = None
    replay: Part | None = None
    tempered: Part | None = None
    demonstrations: Part | None = None
    reward_weights: Part | None = None
    memories: dict[str, Memory] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts."""
        single = (self.prompts, self.budget, self.demonstrations, self.reward_weights)
        return (
            self.advantage,
            self.surrogate,
            *self.regularizers,
            *self.token_weights,
            self.aggregation,
            *self.selection,
            *self.shaping,
            *(one for one in (*single, self.replay, self.tempered) if one),
            *self.completions,
            *self.token_advantages,
        )

    @property
    def needs_reference(self) -> bool:
        """Whether a part needs ``reference_logprobs``; if not, the run holds no reference policy."""
        names = {name for part in self.parts for name in (*part.inputs, *part.step_inputs)}
        return bool(names & {"reference_log_ratio", "reference_log_ratios", "reference_logprobs"})

    @property
    def needs_entropy_gradient(self) -> bool:
        """Whether ``loss`` needs an ``entropy`` that carries a gradient."""
        return any("entropy" in part.inputs for part in self.parts)

    @property
    def blind(self) -> BlindNeeds:
        """What the parts need of passes behind changed pictures."""
        return BlindNeeds.of(self.parts, self.prepared_parts)

    def draws(self, iteration: int = 1) -> Draws | None:
        """Return which tokens ``loss`` needs drawn at every position; None if it needs none."""
        return draws_of(self.surrogate, self.clock(iteration)["progress"])

    @property
    def prepared_parts(self) -> tuple[Part, ...]:
        """Parts that need all tokens of a mini-batch before its first step, see ``prepare``."""
        once = (part for part in self.token_weights if not part.every_step)
        return (*once, *(part for part in self.parts if part.description.prepare))

    @property
    def step_parts(self) -> tuple[Part, ...]:
        """Parts that need whole groups at the current policy before each step, see ``prepare_step``."""
        return tuple(part for part in self.parts if part.description.of_groups)

    @property
    def old_policy_parts(self) -> tuple[Part, ...]:
        """Parts that need log-probabilities and entropies of the policy that sampled, of all tokens."""
        return (*self.token_advantages, *self.prepared_parts)

    @property
    def max_rounds(self) -> int:
        """Largest number of rollout batches until enough prompts are kept; 1 without dynamic sampling."""
        return max((part.options.get("max_rounds", 1) for part in self.selection), default=1)

    def asks(self, name: str) -> bool:
        """Return whether a part takes the input of this name."""
        return any(name in part.inputs for part in self.parts)

    def clock(self, iteration: int) -> dict[str, Any]:
        """Return the inputs ``iteration``, from 1, and ``progress``, from 0 in the first to 1 in the last."""
        return {"iteration": iteration, "progress": progress_of(iteration, self.iterations)}

    def shape(
        self, rewards: Tensor, lengths: Tensor, max_tokens: int | None = None, iteration: int = 1
    ) -> Tensor:
        """Return rewards plus the additions of all shaping parts.

        Args:
            rewards: (P, G) or (N,), NaN where unscored, which stays NaN.
            lengths: completion lengths in tokens, as many as rewards.
            max_tokens: ``rollout.max_new_tokens``; None: the value that the objective was built with.
            iteration: the running iteration, from 1.

        Returns:
            Shaped rewards, in the shape of ``rewards``.
        """
        limit = self.max_tokens if max_tokens is None else max_tokens
        available = {"lengths": lengths.reshape(rewards.shape), "max_tokens": limit, **self.clock(iteration)}
        return sum((part(available) for part in self.shaping), start=rewards)

    def keep(
        self,
        accuracy: Tensor,
        rewards: Tensor,
        more: Mapping[str, Any] | None = None,
        iteration: int = 1,
    ) -> Tensor:
        """Return which prompts the selection parts keep.

        Args:
            accuracy: (P, G) in [0, 1] over all processes, NaN where unscored.
            rewards: (P, G) likewise, before shaping.
            more: further inputs of selection parts by name: ``lengths``, ``finished``, ``components``.
            iteration: the running iteration, from 1.

        Returns:
            (P,) bool; all True without selection.
        """
        everything = torch.ones(rewards.shape[0], dtype=torch.bool, device=rewards.device)
        available = {**(more or {}), "accuracy": accuracy, "rewards": rewards, **self.clock(iteration)}
        return reduce(torch.logical_and, (part(available) for part in self.selection), everything)

    def weigh(self, outcomes: Outcomes) -> Outcomes:
        """Return outcomes with rewards mixed, and advantages scaled, as the ``reward_weights`` part says."""
        if self.reward_weights is None:
            return outcomes
        found = self.call(self.reward_weights, outcomes.available())
        return outcomes.mixed(*found) if isinstance(found, tuple) else outcomes.mixed(found)

    def advantages(self, rewards: Tensor, outcomes: Outcomes | None = None) -> Tensor:
        """Return advantages (P, G) of rewards (P, G) over all kept prompts; 0 where a reward is NaN.

        Args:
            rewards: (P, G), NaN where unscored.
            outcomes: what else is known of the same prompts; None: nothing.
        """
        known = Outcomes.of_rewards(rewards) if outcomes is None else outcomes.with_rewards(rewards)
        advantages: Tensor = self.call(self.advantage, known.available())
        return advantages.masked_fill(rewards.isnan(), 0.0) * known.scale

    def keep_completions(self, advantages: Tensor, outcomes: Outcomes) -> Tensor:
        """Return which completions the ``completions`` parts keep, (P, G) bool; all without such parts.

        Args:
            advantages: (P, G) of the kept prompts, over all processes.
            outcomes: of the same prompts.
        """
        available = {**outcomes.available(), "advantages": advantages}
        everything = torch.ones(advantages.shape, dtype=torch.bool)
        return reduce(
            torch.logical_and, (self.call(part, available) for part in self.completions), everything
        )

    def advantages_by_token(self, rows: Mapping[str, Any], iteration: int = 1) -> Tensor:
        """Return the advantages (N, T) that the ``token_advantages`` parts make of those in ``rows``.

        Args:
            rows: the inputs of these parts over all processes, see ``mm_cpgd.algorithms.token_advantages``.
            iteration: the running iteration, from 1.
        """
        found: Tensor = rows["advantages"]
        for part in self.token_advantages:
            known = {**rows, "base_advantages": rows["advantages"], "advantages": found}
            found = self.call(part, {**known, **self.clock(iteration)})
        return found

    def call(self, part: Part, available: Mapping[str, Any]) -> Any:
        """Call a part with the available inputs, its own state among them."""
        state, memory = self.states.get(part.where), part.description.memory
        own = {} if state is None else {"state": state.value}
        shared = {} if memory is None else {"memory": self.memories[memory.__name__]}
        return part({**available, **own, **shared})

    def prompt_scores(self, accuracy: Tensor, diversity: Tensor, iteration: int = 1) -> Tensor:
        """Return scores for the curriculum sampler, (P,) ≥ 0; 1 for every prompt without a ``prompts`` part.

        Args:
            accuracy: (P, G) in [0, 1] over all processes, NaN where unscored.
            diversity: (P,) in [0, 1], diversity of each prompt's completions.
            iteration: the running iteration, from 1.
        """
        if self.prompts is None:
            return torch.ones_like(diversity)
        known = {"accuracy": accuracy, "diversity": diversity, **self.clock(iteration)}
        scores: Tensor = self.prompts(known)
        return scores

    @property
    def scores_rows(self) -> bool:
        """Whether the curriculum scores all rows from its memory, not those that were just drawn."""
        return self.prompts is not None and "row_count" in self.prompts.inputs

    def row_scores(self, row_count: int, iteration: int = 1) -> Tensor:
        """Return the scores (row_count,) of all training rows, if ``scores_rows``."""
        assert self.prompts is not None
        scores: Tensor = self.call(self.prompts, {"row_count": row_count, **self.clock(iteration)})
        return scores

    def counts(self, rows: Sequence[int], completions: int, iteration: int = 1) -> list[int]:
        """Return how many completions each of P prompts gets: P·G in all, at least 1 each.

        Args:
            rows: training row of each prompt, of all processes.
            completions: G.
            iteration: the running iteration, from 1.

        Raises:
            UserError: the budget part returns something else.
        """
        if self.budget is None:
            return [completions] * len(rows)
        known = {"rows": torch.tensor(rows), "completions": completions, **self.clock(iteration)}
        found: list[int] = [int(count) for count in self.call(self.budget, known)]
        check_counts(self.budget, found, len(rows), completions)
        return found

    def mix(self, outcomes: Outcomes, teachable: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of the prompts' rollouts and the weights of their solutions, (P,) float64 each.

        Args:
            outcomes: of P prompts, over all processes.
            teachable: (P,) bool, prompts with a usable solution.

        Raises:
            UserError: the demonstrations part returns something else.
        """
        if self.demonstrations is None:
            return torch.ones(len(teachable)).double(), torch.zeros(len(teachable)).double()
        found = self.call(self.demonstrations, {**outcomes.available(), "teachable": teachable})
        return check_mixture(self.demonstrations, found, len(teachable))

    def note(self, outcomes: Outcomes) -> None:
        """Let the memories learn from an iteration's outcomes."""
        for memory in self.memories.values():
            memory.note(outcomes)

    def memory_metrics(self) -> dict[str, float]:
        """Return what memories with a method ``metrics`` report of themselves, as ``memory/NAME``."""
        reporting = (memory for memory in self.memories.values() if isinstance(memory, Reporting))
        return {f"memory/{name}": value for memory in reporting for name, value in memory.metrics().items()}

    def prepare(
        self,
        old_logprobs: Tensor,
        old_entropy: Tensor,
        advantages: Tensor,
        seed: int,
        iteration: int = 1,
        blind: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Compute what ``prepared_parts`` need from the whole mini-batch; {} where there are none.

        Args:
            old_logprobs: (K,), all tokens of the mini-batch over all processes, in any order.
            old_entropy: (K,), nats, of the old policy.
            advantages: (K,).
            seed: seed of random choices.
            iteration: the running iteration, from 1.
            blind: ``blind_logprobs`` and ``completion`` (each token's), (K,); required if ``blind.fixed``.

        Returns:
            ``Part.where`` → (K,), in the order of the inputs; the ``prepared`` of ``loss``.
        """
        available = {
            "old_logprobs": old_logprobs,
            "old_entropy": old_entropy,
            "advantages": advantages,
            "seed": seed,
            **self.clock(iteration),
            **(blind or {}),
        }
        return {part.where: part.prepare(available) for part in self.prepared_parts}

    def prepare_step(self, groups: Mapping[str, Tensor], iteration: int = 1) -> dict[str, Tensor]:
        """Compute what ``step_parts`` need of whole groups before an optimizer step.

        Args:
            groups: tables (p, G) by name, of the mini-batch's prompts on this process at the current policy;
                see ``Description.of_groups``.
            iteration: the running iteration, from 1.

        Returns:
            ``Part.where`` → (p, G).
        """
        available = {**groups, **self.clock(iteration)}
        return {part.where: part.of_groups(available) for part in self.step_parts}

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Update the parts' states with the metrics of an optimizer step over all processes."""
        for state in self.states.values():
            state.observe(metrics)
        for memory in self.memories.values():
            memory.observe(metrics)

    def state_dict(self) -> dict[str, Any]:
        """Return the parts' states and memories as plain data."""
        memories = {f"memory: {name}": memory.state_dict() for name, memory in self.memories.items()}
        return {where: state.state_dict() for where, state in self.states.items()} | memories

    def load_state_dict(self, states: Mapping[str, Any]) -> None:
        """Restore the parts' states; a part without a stored state keeps its initial one."""
        for where, state in self.states.items():
            if where in states:
                state.load_state_dict(states[where])
        for name, memory in self.memories.items():
            if f"memory: {name}" in states:
                memory.load_state_dict(states[f"memory: {name}"])

    def loss(
        self,
        logprobs: Tensor,
        old_logprobs: Tensor,
        advantages: Tensor,
        mask: Tensor,
        lengths: Tensor,
        reference_logprobs: Tensor | None = None,
        entropy: Tensor | None = None,
        prepared: Mapping[str, Tensor] | None = None,
        taking_part: Tensor | None = None,
        iteration: int = 1,
        blind_logprobs: Tensor | None = None,
        blind_entropy: Tensor | None = None,
        drawn: Drawn | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the contribution of these rows to the mini-batch's loss, to be minimised.

        The sum over all micro-batches and processes is the mini-batch's loss; it must not be averaged. A
        wrapper that averages gradients over processes (DDP) needs the loss times the number of processes.
        Values at masked positions, NaN included, have no influence and receive gradient 0.

        Args:
            logprobs: (n, T) of the current policy, with gradient.
            old_logprobs: (n, T) of the old policy.
            advantages: (n,), or (n, T) for one per token.
            mask: (n, T) bool, True at tokens of the completion.
            lengths: (M,) completion lengths of the whole mini-batch over all processes.
            reference_logprobs: (n, T), required if ``needs_reference``; else only logged.
            entropy: (n, T), nats, of the policy's token distributions; with gradient if
                ``needs_entropy_gradient``, else only logged.
            prepared: results of ``prepare``, (n, T) for these rows; required if there are ``prepared_parts``.
            taking_part: (n, T) bool, False at tokens that leave the loss: surrogate and regularizers of the
                token have no part in it and no gradient reaches it. The weights of the others stay what they
                are, and so do the metrics. None: all take part.
            iteration: the running iteration, from 1.
            blind_logprobs: (n, T) behind changed pictures, required and with gradient as ``blind`` says.
            blind_entropy: (n, T), nats, likewise; required if ``blind.gradient``.
            drawn: required if ``draws`` asks for them.

        Returns:
            The scalar loss, and metrics without gradient: to be summed over micro-batches and processes,
            except ``max/…`` and ``min/…``, of which the extreme is to be taken.
        """
        prepared = prepared or {}
        if taking_part is not None:
            logprobs = torch.where(taking_part, logprobs, logprobs.detach())
        check_values(self, mask, reference_logprobs, entropy, prepared)
        available = part_inputs(
            logprobs, old_logprobs, advantages, mask, lengths, reference_logprobs, entropy
        )
        available |= {"max_tokens": self.max_tokens, **self.clock(iteration)}
        available |= blind_inputs(self.blind, logprobs, mask, blind_logprobs, blind_entropy)
        available |= drawn_inputs(drawn, mask)
        zero = torch.zeros_like(available["log_ratio"])
        prepared = {name: torch.where(mask, values.to(zero), zero) for name, values in prepared.items()}
        terms, clipped = self._surrogate(available, prepared)
        penalty = self._penalty(available, prepared)
        weights = self.aggregation(available)
        if taking_part is not None:
            penalty, terms = (torch.where(taking_part, values, zero) for values in (penalty, terms))
        loss = (weights * (penalty - terms)).sum()
        metrics = token_metrics(available, clipped)
        metrics["penalty"] = (weights * penalty).detach().sum()
        return loss, metrics

    def _surrogate(self, available: dict[str, Any], prepared: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return weighted terms and clip flags, (n, T) each; adds ``token_weight`` to ``available``."""
        own = {"prepared": prepared[self.surrogate.where]} if self.surrogate.where in prepared else {}
        result = self.call(self.surrogate, {**available, **own})
        # A user's function may return the terms alone.
        no_clip = torch.zeros_like(available["mask"])
        terms, clipped = result if isinstance(result, tuple) else (result, no_clip)
        if self.token_weights:
            weights = [p(available) if p.every_step else prepared[p.where] for p in self.token_weights]
            available["token_weight"] = reduce(torch.mul, weights)
            terms = terms * available["token_weight"]
        return terms, clipped

    def _penalty(self, available: Mapping[str, Any], prepared: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the regularizers, (n, T)."""
        total = torch.zeros_like(available["log_ratio"])
        for part in self.regularizers:
            own = {"prepared": prepared[part.where]} if part.where in prepared else {}
            total = total + self.call(part, {**available, **own})
        return total
