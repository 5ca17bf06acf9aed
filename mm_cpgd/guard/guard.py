"""Reaction of a run to collapse signals: warn, roll back with a smaller learning rate, or stop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mm_cpgd.config.schema import GuardConfig
from mm_cpgd.guard.signals import REWARD, CollapseSignal, select_signals
from mm_cpgd.guard.trend_tests import HELD_OUT, WINDOW, Finding, History, Row, fall_of, trim, value_of
from mm_cpgd.guard.watch import ROLLED_BACK_TO, after_rollback, new_alarms, signal_strengths, watch

HEALTHY_STRENGTH = 0.6
"""In a healthy iteration every actionable signal is below this share of its threshold."""
BEST_TOLERANCE = 1.0
"""In a healthy iteration held-out accuracy is within this many standard deviations of noise of its best.

The same holds for the reward if the accuracy is unknown, and for twice as many beside an evaluation.
"""
DRIFT = "policy/drift"
MIN_STEP_FACTOR = 0.01
"""Lower bound of a rollback's factor: the drift of a diverging run says little about the right step."""


@dataclass(frozen=True)
class Review:
    """The guard's decision after an iteration.

    Attributes:
        lines: messages for the user.
        metrics: metrics for the row, ``guard/…``.
        roll_back: restore the trusted snapshot.
        step_factor: factor of the learning rates at the rollback.
        stop: end the run with a checkpoint.
        healthy: no actionable signal is near its threshold, so the policy is worth a snapshot.
        verified: healthy, and the held-out accuracy was measured: the snapshot can be trusted at once.
    """

    lines: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    roll_back: bool = False
    step_factor: float = 1.0
    stop: bool = False
    healthy: bool = False
    verified: bool = False


class Guard:
    """Collapse detection over the recent rows; its decisions follow from the rows alone.

    Args:
        config: action, limits and factors, and the signals to ignore.
        completions: G, completions per prompt.

    Raises:
        UserError: ``config.ignore`` names an unknown signal.
    """

    def __init__(self, config: GuardConfig, *, completions: int) -> None:
        self.config = config
        self.completions = completions
        self.signals = select_signals(config.ignore)
        self.rollbacks = 0
        self.step_scale = 1.0
        self._rows: list[Row] = []
        self._last_seen: dict[str, int] = {}

    @property
    def alpha_scale(self) -> float:
        """Factor of alpha over all rollbacks."""
        return self.config.alpha_factor**self.rollbacks

    def review(self, row: Row, trusted: int | None) -> Review:
        """Decide what to do after a finished iteration.

        Args:
            row: its ``iteration`` and metrics, identical on all processes.
            trusted: the iteration after which the trusted snapshot was taken, None if there is none.
        """
        config = self.config
        if config.action == "off":
            return Review()
        self._rows = trim([*self._rows, row])
        found = signal_strengths(self._rows, completions=self.completions, signals=self.signals)
        alarms = watch(self._rows, completions=self.completions, signals=self.signals)
        new = new_alarms(alarms, self._last_seen)
        metrics = {"guard/alarms": float(len(alarms))}
        metrics |= {f"guard/{alarm.signal.name}": alarm.strength for alarm in alarms}
        lines = [f"guard: {alarm.line}" for alarm in new]
        must_act = any(alarm.signal.actionable for alarm in new)
        if not must_act or config.action == "warn":
            healthy = self._is_healthy(found)
            verified = healthy and value_of(row, HELD_OUT) is not None
            return Review(lines, metrics, healthy=healthy, verified=verified)
        if config.action == "rollback" and trusted is not None and self.rollbacks < config.max_rollbacks:
            return self._roll_back(lines, metrics, row, trusted)
        # A user who resumes knows about the alarm: earlier rows must not stop the run again.
        self._rows, self._last_seen = [], {}
        return Review([*lines, "guard: the run stops here"], metrics, stop=True)

    def _is_healthy(self, found: Sequence[tuple[CollapseSignal, Finding]]) -> bool:
        """Return whether no actionable signal is near, and held-out accuracy and reward are at their best."""
        if sum(row["iteration"] > 0 for row in self._rows) < self.config.settle:
            return False
        evaluated = [value_of(row, HELD_OUT) is not None for row in self._rows[-WINDOW:] if row["iteration"]]
        if any(evaluated) and not evaluated[-1]:
            return False  # the policy is evaluated often enough to trust only evaluated policies
        history = History(self._rows, self.completions)
        held_out, reward = fall_of(history, HELD_OUT, over=1), fall_of(history, REWARD, over=2)
        if held_out is not None and held_out.sigmas > BEST_TOLERANCE:
            return False
        # The first evaluation is always its own best, so the reward counts too, with a wider tolerance.
        tolerance = 2 * BEST_TOLERANCE if any(evaluated) else BEST_TOLERANCE
        if reward is not None and reward.sigmas > tolerance:
            return False
        return all(finding.strength < HEALTHY_STRENGTH for signal, finding in found if signal.actionable)

    def _roll_back(self, lines: list[str], metrics: dict[str, float], row: Row, trusted: int) -> Review:
        factor = self._step_factor([*self._rows[:-1], row], trusted)
        self.rollbacks += 1
        self.step_scale *= factor
        metrics[ROLLED_BACK_TO] = float(trusted)
        metrics["guard/rollbacks"] = float(self.rollbacks)
        metrics["guard/step_scale"] = self.step_scale
        metrics["guard/alpha_scale"] = self.alpha_scale
        past = [*self._rows[:-1], {**row, **metrics}]
        self._rows, self._last_seen = after_rollback(past, self._last_seen)
        factors = f"learning rates × {factor:.2g}"
        if self.config.alpha_factor != 1:
            factors += f", alpha × {self.config.alpha_factor:g}"
        line = (
            f"guard: rolled back to the policy after iteration {trusted}, {factors} "
            f"(rollback {self.rollbacks} of {self.config.max_rollbacks})"
        )
        return Review([*lines, line], metrics, roll_back=True, step_factor=factor)

    def _step_factor(self, rows: Sequence[Row], trusted: int) -> float:
        """Return the factor of the learning rates, from the largest drift since the trusted snapshot.

        For small steps the drift grows with the square of the step.
        """
        target, upper = self.config.target_drift, self.config.step_factor
        drifts = (value_of(row, DRIFT) for row in rows if row["iteration"] > trusted)
        largest = max((drift for drift in drifts if drift is not None), default=0.0)
        if not target or largest <= target:
            return upper
        return min(upper, max(math.sqrt(target / largest), MIN_STEP_FACTOR))

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later decisions depend on."""
        read = {signal.test.metric for signal in self.signals} | _CONTEXT
        rows = [{key: row[key] for key in row if key in read} for row in self._rows]
        return {
            "rows": rows,
            "seen": dict(self._last_seen),
            "rollbacks": self.rollbacks,
            "step_scale": self.step_scale,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of ``state_dict``."""
        self._rows = list(state["rows"])
        self._last_seen = dict(state["seen"])
        self.rollbacks = state["rollbacks"]
        self.step_scale = state["step_scale"]


_CONTEXT = {
    *("iteration", "reward/mean", "reward/std", "tokens/sampled", "completion/length_mean"),
    *("eval/accuracy", "eval/n", DRIFT),
}
