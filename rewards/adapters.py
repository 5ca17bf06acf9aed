"""Adapters of rules and compositions to other trainers: TRL's ``reward_funcs``, verl's ``compute_score``.

Neither trainer is imported. Signatures: TRL 1.x, ``GRPOTrainer``; verl, ``custom_reward_function``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rewards.compose import Component, RewardSum, Scored
from rewards.example import RewardExample, gold_text, option_texts
from rewards.inputs import Message, conversation_text
from rewards.verdict import RuleError

# Arguments that TRL passes in addition to the data set's columns.
_NOT_COLUMNS = ("trainer_state", "log_extra", "log_metric", "environments")


def _as_sum(reward: str | Component | RewardSum, options: Mapping[str, Any] | None) -> RewardSum:
    if isinstance(reward, str):
        return RewardSum([Component(reward, options=options or {})])
    if options:
        raise RuleError(
            "options are for a rule given by name; a component has its own: Component(rule, options={…})"
        )
    return reward if isinstance(reward, RewardSum) else RewardSum([reward])


def _display_name(rewards: RewardSum, name: str | None) -> str:
    """Return a name for logs: the one given, else the components' names joined."""
    if name:
        return name
    names = [key.rpartition(":")[2] if ".py:" in key else key for key in rewards.rules]
    return re.sub(r"\W+", "_", "_and_".join(names)).strip("_")


def completion_text(completion: str | Sequence[Message]) -> str:
    """Return the completion's text; of a conversation, the assistant's last message."""
    return completion if isinstance(completion, str) else conversation_text(completion)


class TrlReward:
    """Reward function with the signature that TRL calls; see ``to_trl``."""

    def __init__(self, rewards: RewardSum, name: str, answer: str, choices: str) -> None:
        self.rewards = rewards
        self.answer = answer
        self.choices = choices
        # TRL names the reward's metrics after this attribute.
        self.__name__ = name

    def __call__(
        self,
        prompts: Sequence[Any] | None = None,
        completions: Sequence[str | Sequence[Message]] = (),
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Return the scores; None for a completion without a score, which TRL ignores.

        Raises:
            RuleError: the column of gold answers is missing, or a value in it is neither text nor number.
        """
        golds = columns.get(self.answer)
        if golds is None:
            known = sorted(set(columns) - set(_NOT_COLUMNS))
            raise RuleError(
                f"the data set has no column {self.answer!r} for the gold answers, it has {known}; "
                "name it: to_trl(…, answer='solution')"
            )
        texts = [completion_text(completion) for completion in completions]
        rows = [self._row(index, columns) if gold is not None else None for index, gold in enumerate(golds)]
        pairs = [(text, row) for text, row in zip(texts, rows, strict=True) if row is not None]
        scored = self.rewards.score([text for text, _ in pairs], [row for _, row in pairs])
        self._log(scored, columns.get("log_metric"))
        totals = iter(scored)
        return [None if row is None else next(totals).total for row in rows]

    def _row(self, index: int, columns: Mapping[str, Any]) -> RewardExample:
        values = {key: column[index] for key, column in columns.items() if key not in _NOT_COLUMNS}
        return RewardExample(
            answer=gold_text(values[self.answer], f"column {self.answer!r}"),
            choices=option_texts(values.get(self.choices), f"column {self.choices!r}"),
            id=str(values.get("id", "")),
            meta=values,
        )

    def _log(self, scored: Sequence[Scored], log_metric: Any) -> None:
        """Log to TRL the mean of each component and the share of completions without a score."""
        if log_metric is None or not scored:
            return
        log_metric(f"{self.__name__}/unscored", sum(one.total is None for one in scored) / len(scored))
        if len(self.rewards.rules) < 2:
            return
        for key in self.rewards.rules:
            scores = [s for one in scored if (s := one.components[key].score) is not None]
            if scores:
                log_metric(f"{self.__name__}/{key}", sum(scores) / len(scores))


def to_trl(
    reward: str | Component | RewardSum,
    *,
    options: Mapping[str, Any] | None = None,
    answer: str = "answer",
    choices: str = "choices",
    name: str | None = None,
) -> TrlReward:
    """Return a reward function for TRL's ``GRPOTrainer(reward_funcs=…)``. It can be pickled.

    Args:
        reward: a rule's name, a component, or a composition, whose weighted sum is returned.
        options: the rule's options, if ``reward`` is a name.
        answer: the data set's column of gold answers; a row without one (None) has no score.
        choices: the column of options, if there is one. Rules get all columns as ``example.meta``.
        name: name in TRL's log.

    Raises:
        RuleError: as ``RewardSum``.
    """
    rewards = _as_sum(reward, options)
    return TrlReward(rewards, _display_name(rewards, name), answer, choices)


class VerlReward:
    """Reward function with the signature of verl's ``compute_score``; see ``to_verl``."""

    def __init__(self, rewards: RewardSum, name: str, choices: str, unscored: float) -> None:
        self.rewards = rewards
        self.choices = choices
        self.unscored = unscored
        self.__name__ = name

    def __call__(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> dict[str, float]:
        """Return ``score`` and, for the log, ``scored`` (0 or 1) and each component's score by name.

        The keys are the same for every completion, as verl requires; a missing score is ``unscored``. Raises
        ``RuleError`` for a ground truth that is neither text nor number.
        """
        extra = dict(extra_info or {})
        row = RewardExample(
            answer=gold_text(ground_truth, f"ground_truth of {data_source!r}"),
            choices=option_texts(extra.get(self.choices), f"extra_info[{self.choices!r}]"),
            id=str(extra.get("index", "")),
            meta={**extra, "data_source": data_source},
        )
        scored = self.rewards.score_one(solution_str, row)
        components = {key: self._number(verdict.score) for key, verdict in scored.components.items()}
        totals = {"score": self._number(scored.total), "scored": float(scored.total is not None)}
        return {**components, **totals}

    def _number(self, score: float | None) -> float:
        return self.unscored if score is None else float(score)


def to_verl(
    reward: str | Component | RewardSum,
    *,
    options: Mapping[str, Any] | None = None,
    choices: str = "choices",
    unscored: float = 0.0,
) -> VerlReward:
    """Return a ``compute_score`` for verl's ``custom_reward_function``.

    Args:
        reward: as for ``to_trl``.
        options: the rule's options, if ``reward`` is a name.
        choices: the key of ``extra_info`` that holds the options, if any; all of ``extra_info`` is passed to
            the rule as ``example.meta``.
        unscored: score of a completion without one. verl has no missing scores: a completion whose gold
            answer cannot be scored is trained on with this score, so remove such rows beforehand
            (``mm-cpgd rewards audit``).

    Raises:
        RuleError: as ``RewardSum``.
    """
    rewards = _as_sum(reward, options)
    return VerlReward(rewards, _display_name(rewards, None), choices, unscored)
