"""Guard: detection of a training collapse in a run's metrics, and the reaction to it."""

from mm_cpgd.guard.guard import Guard, Review
from mm_cpgd.guard.rollback import RollbackController, Snapshots
from mm_cpgd.guard.signals import SIGNALS, CollapseSignal
from mm_cpgd.guard.watch import Alarm, halved_at, replay, watch

__all__ = [
    "SIGNALS",
    "Alarm",
    "CollapseSignal",
    "Guard",
    "Review",
    "RollbackController",
    "Snapshots",
    "halved_at",
    "replay",
    "watch",
]
