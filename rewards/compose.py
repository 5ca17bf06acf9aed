"""Composition of rules into one reward: a weighted sum with gates and limits; each component is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from rewards.messages import nearest
from rewards.registry import BoundRule, get_rule
from rewards.verdict import RuleError, Status, Verdict
from rewards.workers.pool import PoolError, map_in_threads, shared_pool
from rewards.workers.rule_messages import Outcome
from rewards.workers.rule_processes import RuleFailed, RuleProcesses, RuleTimeout
from rewards.workers.rule_worker import describe, trace_of

# Metrics under reward/ beside the components' means.
RESERVED_NAMES = ("mean", "std", "unscored", "failed")


@dataclass(frozen=True)
class Component:
    """One rule of the sum.

    Attributes:
        rule: the rule's name, as for ``get_rule``.
        weight: factor of its score in the sum; 0 only logs it, a negative one makes it a penalty.
        options: the rule's options.
        name: name in the log; if None, the name of the rule or its function. With different names one rule
            can be used twice with different options.
        when: name of another component, the gate; below ``at_least`` there, this component counts 0.
        at_least: score that the gate must reach.
        min: lower limit of the score.
        max: upper limit of the score.
        on_error: if the rule raises, "skip" excludes the completion from the update, "stop" ends the run.
        timeout: limit in seconds for one completion, for rules in a file or an installed package: these then
            run in processes of their own. None: in this process, without a limit. The built-in rules are
            bounded themselves and always run in this process.
    """

    rule: str
    weight: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    when: str | None = None
    at_least: float = 1.0
    min: float | None = None
    max: float | None = None
    on_error: Literal["skip", "stop"] = "skip"
    timeout: float | None = None

    @property
    def key(self) -> str:
        """Name of the component in the log and in the ``when`` of others."""
        if self.name is not None:
            return self.name
        # Of path/to/file.py:function only the function: metric names hold no paths.
        file, _, function = self.rule.rpartition(":")
        return function if file.endswith(".py") else self.rule


def check_components(components: Sequence[Component]) -> None:
    """Raise ``RuleError`` for no component, a repeated or reserved name, an invalid number, no weight."""
    if not components:
        raise RuleError("no reward rule is given; name at least one under rewards")
    keys = [one.key for one in components]
    for one in components:
        _check_numbers(one)
        if keys.count(one.key) > 1:
            raise RuleError(
                f"component {one.key!r} is given twice; give one a name of its own (name: …), or keep one"
            )
        if one.key in RESERVED_NAMES or not one.key.strip():
            raise RuleError(
                f"a component cannot be called {one.key!r}, which the log uses; give it a name (name: …)"
            )
    if not any(one.weight for one in components):
        raise RuleError("every reward has weight 0, so nothing would be learned; give one a weight")


def _check_numbers(one: Component) -> None:
    for what in ("weight", "at_least", "min", "max", "timeout"):
        value = getattr(one, what)
        if value is None and what in ("min", "max", "timeout"):
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise RuleError(f"{what} of the reward {one.key!r} is {value!r}; it must be a finite number")
    if one.min is not None and one.max is not None and one.min > one.max:
        raise RuleError(f"min {one.min:g} of the reward {one.key!r} is above its max {one.max:g}; swap them")
    if one.timeout is not None and one.timeout <= 0:
        raise RuleError(f"timeout of the reward {one.key!r} is {one.timeout:g}; it must be above 0 seconds")
    if one.on_error not in ("skip", "stop"):
        raise RuleError(f"on_error of the reward {one.key!r} is {one.on_error!r}; it is skip or stop")


def evaluation_order(components: Mapping[str, Component]) -> list[str]:
    """Return the names in an order in which each comes after its gate.

    Raises:
        RuleError: a gate that is unknown, circular or can never open.
    """
    order: list[str] = []
    for key in components:
        chain = _chain(key, components)
        order += [one for one in reversed(chain) if one not in order]
    return order


def _chain(key: str, components: Mapping[str, Component]) -> list[str]:
    """Return the component, its gate, the gate's gate, and so on."""
    chain = [key]
    while (gate := components[chain[-1]].when) is not None:
        _check_gate(components[chain[-1]], components)
        if gate in chain:
            loop = " → ".join([*chain[chain.index(gate) :], gate])
            raise RuleError(f"the gates of the rewards form a cycle: {loop}; remove one of these when: keys")
        chain.append(gate)
    return chain


def _check_gate(one: Component, components: Mapping[str, Component]) -> None:
    gate = components.get(one.when or "")
    if gate is None:
        raise RuleError(
            f"reward {one.key!r} has the gate {one.when!r}, and no component has that name: "
            f"{nearest(one.when or '', components)} (or add one, with weight 0 if it is only a gate)"
        )
    if gate.max is not None and gate.max < one.at_least:
        raise RuleError(
            f"reward {one.key!r} needs {one.when!r} to be at least {one.at_least:g}, but the max of that is "
            f"{gate.max:g}; lower at_least"
        )


@dataclass(frozen=True)
class Scored:
    """The reward of one completion.

    Attributes:
        total: the weighted sum of the components' scores; None if a component with a weight other than 0 has
            no score, which excludes the completion from averages and advantages.
        components: each component's verdict by name; its score is clipped and gated, but not weighted.
    """

    total: float | None
    components: dict[str, Verdict] = field(default_factory=dict)


class RewardSum:
    """A weighted sum of reward rules.

    A rule that raises yields a verdict with status ``error`` and no score: the completion is not trained on,
    and the caller counts it. Rules may be called from several threads concurrently.

    Args:
        components: each a ``Component`` or a tuple (rule, weight, options).

    Attributes:
        rules: the bound rules by the components' names, in the order given.
        weights: the weights by the same names.
        failures: of each component whose rule has failed, its newest error and traceback.

    Raises:
        RuleError: no component, a repeated name, a gate that is unknown, circular or can never open, a weight
            that is not a number, or what ``get_rule`` raises.
    """

    def __init__(self, components: Sequence[Component | tuple[str, float, Mapping[str, Any]]]) -> None:
        given = [one if isinstance(one, Component) else Component(*one) for one in components]
        check_components(given)
        self.components = {one.key: one for one in given}
        self.weights = {one.key: float(one.weight) for one in given}
        self.rules: dict[str, BoundRule] = {one.key: get_rule(one.rule, one.options) for one in given}
        self.failures: dict[str, str] = {}
        self._order = evaluation_order(self.components)
        self._callers = {key: _caller(rule, self.components[key].timeout) for key, rule in self.rules.items()}

    def score_one(self, completion: str, example: Any) -> Scored:
        """Score one completion. Raises ``RuleError`` if a rule raises whose ``on_error`` is "stop"."""
        return self._score_one(completion, example, {})

    def _score_one(self, completion: str, example: Any, known: Mapping[str, Outcome]) -> Scored:
        """Score one completion; of some rules the outcome may be known."""
        counted: dict[str, Verdict] = {}
        for key in self._order:
            component = self.components[key]
            found = self._apply_rule(component, completion, example, known.get(key))
            verdict = _clipped(found, component)
            counted[key] = verdict if component.when is None else _gated(verdict, component, counted)
        verdicts = {key: counted[key] for key in self.rules}
        return Scored(self._total(verdicts), verdicts)

    def _apply_rule(
        self, component: Component, completion: str, example: Any, known: Outcome | None
    ) -> Verdict:
        try:
            if isinstance(known, Exception):
                raise known
            return self._callers[component.key](completion, example) if known is None else known
        except PoolError:  # a broken installation: every completion would fail the same way
            raise
        except (Exception, SystemExit) as error:
            if isinstance(error, RuleFailed):  # described in the rule's own process
                what, trace = str(error), error.trace
            else:
                what, trace = describe(error), trace_of(error)
            where = f"rule {component.rule!r} failed on example {getattr(example, 'id', '')!r}: {what}"
            self.failures[component.key] = f"{where}\n{trace}".rstrip()
            if component.on_error == "stop":
                raise RuleError(
                    f"{where}; fix the rule, or set its on_error to skip to leave such completions out"
                ) from error
            status = Status.TIMEOUT if isinstance(error, RuleTimeout) else Status.ERROR
            return Verdict(None, status, None, what)

    def _total(self, verdicts: Mapping[str, Verdict]) -> float | None:
        total = 0.0
        for name, weight in self.weights.items():
            score = verdicts[name].score
            if weight and score is None:
                return None
            total += weight * (score or 0.0)
        return total

    def __reduce__(self) -> tuple[type[RewardSum], tuple[list[Component]]]:
        """Return the call that builds it again in another process."""
        return RewardSum, (list(self.components.values()),)

    def score(self, completions: Sequence[str], examples: Sequence[Any]) -> list[Scored]:
        """Score completions against their examples, in order. Raises ``ValueError`` if the numbers differ."""
        if len(completions) != len(examples):
            raise ValueError(f"{len(completions)} completions but {len(examples)} examples")
        if any(component.rule == "accuracy" for component in self.components.values()):
            shared_pool().warm_up()
        known = self._outcomes_of_processes(completions, examples)
        rows = [
            (completion, example, {key: outcomes[row] for key, outcomes in known.items()})
            for row, (completion, example) in enumerate(zip(completions, examples, strict=True))
        ]
        if len(known) == len(self.rules):  # nothing is left that a thread could wait for
            return [self._score_one(*row) for row in rows]
        return map_in_threads(lambda row: self._score_one(*row), rows)

    def _outcomes_of_processes(
        self, completions: Sequence[str], examples: Sequence[Any]
    ) -> dict[str, list[Outcome]]:
        """Return for each rule in processes of its own the outcomes of all completions, in order.

        After a failure that ends the run, the rules that follow are left out.
        """
        found: dict[str, list[Outcome]] = {}
        for key, caller in self._callers.items():
            if isinstance(caller, RuleProcesses):
                caller.begin()
                stop = self.components[key].on_error == "stop"
                found[key] = caller.score(completions, examples, stop=stop)
                if stop and any(isinstance(one, Exception) for one in found[key]):
                    break
        return found


def _caller(rule: BoundRule, timeout: float | None) -> Callable[[str, Any], Verdict]:
    """Return what scores a completion: the rule itself, or a process of its own with a time limit."""
    return rule if timeout is None or not rule.is_users else RuleProcesses(rule, timeout)


def _clipped(verdict: Verdict, component: Component) -> Verdict:
    low = -math.inf if component.min is None else component.min
    high = math.inf if component.max is None else component.max
    if verdict.score is None or low <= verdict.score <= high:
        return verdict
    score = min(max(verdict.score, low), high)
    return replace(verdict, score=score, reason=f"{verdict.reason} ({verdict.score:g} clipped to {score:g})")


def _gated(verdict: Verdict, component: Component, counted: Mapping[str, Verdict]) -> Verdict:
    """Return the verdict, with score 0 if the gate is closed, and no score if the gate has none."""
    gate = counted[component.when or ""]
    if verdict.score is None:
        return verdict
    if gate.score is None:
        return Verdict(None, gate.status, verdict.extracted, f"{component.when} has no score: {gate.reason}")
    if gate.score >= component.at_least or verdict.score == 0:
        return verdict
    needed = f"{component.when} is {gate.score:g}, at least {component.at_least:g} is needed"
    reason = f"does not count: {needed} (otherwise {verdict.score:g}: {verdict.reason})"
    return replace(verdict, score=0.0, status=Status.WRONG, reason=reason)
