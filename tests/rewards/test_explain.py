"""Explanations of verdicts."""

from __future__ import annotations

import pytest

from rewards import explain


@pytest.mark.parametrize(
    ("completion", "gold", "choices", "decided_by"),
    [
        (r"\boxed{x+1}", "x+1", (), "the text"),
        (r"\boxed{2/4}", "0.5", (), "exact arithmetic"),
        (r"\boxed{x+1}", "x+2", (), "structure and values"),
        (r"\boxed{\sin 2x}", r"2\sin x\cos x", (), "sympy"),
        (r"\boxed{cat}", "dog", (), "the words"),
        (r"\boxed{B}", "C", (), "the letters"),
        (r"\boxed{B}", "yes", ("no", "yes"), "the options"),
        (r"\boxed{4}", "(not unique)", (), "the gold answer"),
        ("", "4", (), "extraction"),
    ],
)
def test_the_step_that_decided_is_named(
    completion: str, gold: str, choices: tuple[str, ...], decided_by: str
) -> None:
    assert explain(completion, gold, choices=choices).decided_by.startswith(decided_by)
