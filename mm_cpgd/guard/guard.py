"""What a run does about the signs: warn, go back and tread more softly, or stop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mm_cpgd.guard.signs import REWARD, SIGNS, Sign
from mm_cpgd.guard.trend_tests import HELD_OUT, WINDOW, Finding, History, Row, fall_of, trimmed, value_of
from mm_cpgd.guard.watch import ROLLED_BACK_TO, after_rollback, newly, strengths, watch

Action = Literal["off", "warn", "rollback", "stop"]
# A copy is taken for good only while every sign that acts is below this share of its threshold.
CALM = 0.6
# And while held-out accuracy, or the reward where none is known, is at most so many standard deviations of
# noise below its best; twice as many for the reward beside an evaluation.
AT_BEST = 1.0
DRIFT = "policy/drift"
SMALLEST_FACTOR = 0.01
"""Of learning rates at one rollback: a drift that has run away says little of how far it will grow."""


@dataclass(frozen=True)
class Review:
    """What is to be done after an iteration.

    Attributes:
        lines: to tell the person.
        metrics: for the row, ``guard/…``.
        go_back: to the last good copy.
        step_factor: what learning rates are multiplied by when going back.
        stop: the run, with a checkpoint.
        calm: nothing is near an alarm, so that the policy is worth a copy.
        proven: its held-out accuracy is known, and as good as ever; no need for a trial.
    """

    lines: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    go_back: bool = False
    step_factor: float = 1.0
    stop: bool = False
    calm: bool = False
    proven: bool = False


class Guard:
    """Remembers the recent rows and decides; what it decides follows from the rows alone.

    Args:
        action: what to do about signs that act.
        completions: G, completions a prompt.
        max_rollbacks: of the whole run; the next alarm stops it.
        step_factor: learning rates are multiplied by it at each rollback, at most.
        target_drift: of an iteration, nats a token. Where the drift was far above, learning rates fall
            further: for small steps the drift grows with the step's square. 0: ``step_factor`` alone.
        alpha_factor: the policy drift's alpha likewise.
        settle: no copies in the first so many iterations, of the run and after a rollback to its start: a
            step that is too large does harm before it shows, and little is lost by beginning again.
        signs: what to look for.
    """

    def __init__(
        self,
        action: Action,
        *,
        completions: int,
        max_rollbacks: int = 3,
        step_factor: float = 0.1,
        target_drift: float = 0.001,
        alpha_factor: float = 1.0,
        settle: int = 8,
        signs: Sequence[Sign] = SIGNS,
    ) -> None:
        self.action = action
        self.completions = completions
        self.max_rollbacks = max_rollbacks
        self.step_factor = step_factor
        self.target_drift = target_drift
        self.alpha_factor = alpha_factor
        self.settle = settle
        self.signs = signs
        self.rollbacks = 0
        self.step_scale = 1.0
        self._rows: list[Row] = []
        self._seen: dict[str, int] = {}

    @property
    def alpha_scale(self) -> float:
        """What alpha has been multiplied by, over all rollbacks."""
        return self.alpha_factor**self.rollbacks

    def review(self, row: Row, good: int | None) -> Review:
        """Judge a finished iteration.

        Args:
            row: its ``iteration`` and metrics, the same on all processes.
            good: the iteration that the last good copy was taken after, None if there is none.
        """
        if self.action == "off":
            return Review()
        self._rows = trimmed([*self._rows, row])
        found = strengths(self._rows, completions=self.completions, signs=self.signs)
        alarms = watch(self._rows, completions=self.completions, signs=self.signs)
        new = newly(alarms, self._seen)
        metrics = {"guard/alarms": float(len(alarms))}
        metrics |= {f"guard/{alarm.sign.name}": alarm.strength for alarm in alarms}
        lines = [f"guard: {alarm.line}" for alarm in new]
        grave = any(alarm.sign.acts for alarm in new)
        if not grave or self.action == "warn":
            calm = self._calm(found)
            return Review(lines, metrics, calm=calm, proven=calm and value_of(row, HELD_OUT) is not None)
        if self.action == "rollback" and good is not None and self.rollbacks < self.max_rollbacks:
            return self._go_back(lines, metrics, row, good)
        # Whoever resumes knows: what led here is not held against the run.
        self._rows, self._seen = [], {}
        return Review([*lines, "guard: the run stops here"], metrics, stop=True)

    def _calm(self, found: Sequence[tuple[Sign, Finding]]) -> bool:
        """Whether no sign that acts is near, and held-out accuracy and reward are as good as ever."""
        if sum(row["iteration"] > 0 for row in self._rows) < self.settle:
            return False
        evaluated = [value_of(row, HELD_OUT) is not None for row in self._rows[-WINDOW:] if row["iteration"]]
        if any(evaluated) and not evaluated[-1]:
            return False  # where the policy is evaluated this often, only what was evaluated is trusted
        history = History(self._rows, self.completions)
        held_out, reward = fall_of(history, HELD_OUT, over=1), fall_of(history, REWARD, over=2)
        if held_out is not None and held_out.sigmas > AT_BEST:
            return False
        # A first evaluation is its own best: the reward has a say too, if less of one.
        if reward is not None and reward.sigmas > (2 * AT_BEST if any(evaluated) else AT_BEST):
            return False
        return all(finding.strength < CALM for sign, finding in found if sign.acts)

    def _go_back(self, lines: list[str], metrics: dict[str, float], row: Row, good: int) -> Review:
        factor = self._softening([*self._rows[:-1], row], good)
        self.rollbacks += 1
        self.step_scale *= factor
        metrics[ROLLED_BACK_TO] = float(good)
        metrics["guard/rollbacks"] = float(self.rollbacks)
        metrics["guard/step_scale"] = self.step_scale
        metrics["guard/alpha_scale"] = self.alpha_scale
        past = [*self._rows[:-1], {**row, **metrics}]
        self._rows, self._seen = after_rollback(past, self._seen)
        softer = f"learning rates × {factor:.2g}"
        if self.alpha_factor != 1:
            softer += f", alpha × {self.alpha_factor:g}"
        line = (
            f"guard: back to the policy after iteration {good}, {softer} "
            f"(rollback {self.rollbacks} of {self.max_rollbacks})"
        )
        return Review([*lines, line], metrics, go_back=True, step_factor=factor)

    def _softening(self, rows: Sequence[Row], good: int) -> float:
        """Return what learning rates are multiplied by, from the largest drift since the good copy."""
        drifts = (value_of(row, DRIFT) for row in rows if row["iteration"] > good)
        largest = max((drift for drift in drifts if drift is not None), default=0.0)
        if not self.target_drift or largest <= self.target_drift:
            return self.step_factor
        wanted = math.sqrt(self.target_drift / largest)
        return min(self.step_factor, max(wanted, SMALLEST_FACTOR))

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later decisions depend on."""
        watched = {sign.test.metric for sign in self.signs} | _CONTEXT
        rows = [{key: row[key] for key in row if key in watched} for row in self._rows]
        return {
            "rows": rows,
            "seen": dict(self._seen),
            "rollbacks": self.rollbacks,
            "step_scale": self.step_scale,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._rows = list(state["rows"])
        self._seen = dict(state["seen"])
        self.rollbacks = state["rollbacks"]
        self.step_scale = state["step_scale"]


_CONTEXT = {
    *("iteration", "reward/mean", "reward/std", "tokens/sampled", "completion/length_mean"),
    *("eval/accuracy", "eval/n", DRIFT),
}
