"""A run watches itself: signs of a collapse, what they probably mean, and what is done about them."""

from mm_cpgd.guard.guard import Guard, Review
from mm_cpgd.guard.rollback import Keeper, Snapshots
from mm_cpgd.guard.signs import SIGNS, Sign
from mm_cpgd.guard.watch import Alarm, halved_at, replay, watch

__all__ = ["SIGNS", "Alarm", "Guard", "Keeper", "Review", "Sign", "Snapshots", "halved_at", "replay", "watch"]
