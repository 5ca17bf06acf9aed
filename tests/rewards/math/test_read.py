"""Parsing of gold answers."""

from __future__ import annotations

from rewards import Status, verify


def test_a_worked_solution_is_read_at_its_end() -> None:
    gold = "Because the triangles are congruent, BD equals CE, which is 7 cm long. Therefore, fill in 7."
    assert verify(r"\boxed{7}", gold).status is Status.CORRECT
    assert verify(r"\boxed{8}", gold).status is Status.WRONG
