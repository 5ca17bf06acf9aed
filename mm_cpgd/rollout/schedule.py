"""Schedule of a call's completions over the places that decode them, and of their prompts over slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Starts:
    """Completions that begin together.

    Attributes:
        places: of each.
        completions: of each, g of prompt p has number p · G + g.
        seats: of each, see ``SharedCache``.
        prompts: those that have to be loaded first.
        slots: of these prompts.
    """

    places: list[int] = field(default_factory=list)
    completions: list[int] = field(default_factory=list)
    seats: list[int] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)


class Schedule:
    """Which completion each place decodes; they begin in order.

    Args:
        prompts: number of prompts.
        copies: G, completions of each.
        places: N.
        slots: P, prompts that can be loaded at a time.
    """

    def __init__(self, prompts: int, copies: int, places: int, slots: int) -> None:
        self.copies = copies
        self.count = prompts * copies
        self.next = 0
        self.owner: list[int | None] = [None] * places
        self.free_slots = list(range(slots))
        self.slot_of: dict[int, int] = {}
        self.left = [copies] * prompts

    @property
    def waiting(self) -> int:
        """Completions that have not begun."""
        return self.count - self.next

    @property
    def running(self) -> list[int]:
        """Places whose completion has not been ended."""
        return [place for place, owner in enumerate(self.owner) if owner is not None]

    def ended_prompts(self, first: int) -> int:
        """Return how many prompts from ``first`` on, in order, have no completion that runs or waits."""
        left = self.left[first:]
        return next((number for number, count in enumerate(left) if count), len(left))

    def start(self) -> Starts:
        """Give the free places to the next completions, as far as their prompts find slots."""
        starts = Starts()
        for place, owner in enumerate(self.owner):
            if owner is not None:
                continue
            if not self.waiting:
                break
            prompt = self.next // self.copies
            if prompt not in self.slot_of:
                if not self.free_slots:
                    break
                self.slot_of[prompt] = self.free_slots.pop(0)
                starts.prompts.append(prompt)
                starts.slots.append(self.slot_of[prompt])
            starts.places.append(place)
            starts.completions.append(self.next)
            starts.seats.append(self.slot_of[prompt] * self.copies + self.next % self.copies)
            self.owner[place] = self.next
            self.next += 1
        return starts

    def end(self, places: Sequence[int]) -> list[int]:
        """Free these places, and the slots of prompts without other completions; return the completions."""
        ended = []
        for place in places:
            completion = self.owner[place]
            assert completion is not None
            self.owner[place] = None
            ended.append(completion)
            prompt = completion // self.copies
            self.left[prompt] -= 1
            if not self.left[prompt]:
                self.free_slots.append(self.slot_of.pop(prompt))
        return ended

    def keep(self, places: Sequence[int]) -> None:
        """Go on with these places alone; nothing may be waiting."""
        assert not self.waiting
        self.owner = [self.owner[place] for place in places]
