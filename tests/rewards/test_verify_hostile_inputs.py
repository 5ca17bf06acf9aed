"""Hostile completions: bounded time, no code run, no crash."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from rewards import Status, equivalent, verify
from rewards.workers.pool import shared_pool

_GRACE = 0.5
_LIMIT = 1.0
HOSTILE = {
    "tower": "9^{9^{9^9}}",
    "plain tower": "5^(5^(5^(5^5)))",
    "irrational tower": r"2^{\pi^{\pi^{\pi^{\pi}}}}",
    "tower with a long exponent": "9^9^910",
    "long decimal gold": "9" * 390 + ".12345",
    "binomial": r"\binom{10^9}{5*10^8}",
    "factorial": "(10^9)!",
    "iterated factorial": "3" + "!" * 50,
    "symbolic factorials": "x" + "!" * 100,
    "big expansion": "(x+y+z+w+1)^{100}",
    "brackets": "(" * 20_000 + ")" * 20_000,
    "open brackets": "[" * 20_000,
    "braces": r"\frac{" * 20_000,
    "digits": "9" * 200_000,
    "decimals": "0." + "9" * 200_000,
    "digits within bounds": "9" * 399,
    "exponent": "10^{400000}",
    "scientific": "1e999999999",
    "roots": r"\sqrt" * 900 + "2",
    "signs": "-" * 1_999 + "1",
    "slashes": "1/" * 900 + "1",
    "powers": "x^" * 900 + "1",
    "bars": "|" * 300,
    "items": "1," * 900,
    "numbered": "(1)" * 3_000,
    "text": r"\text{" * 400,
    "number macros": r"\number{{" * 220,
    "dollars": "$" * 100_000,
    "or": "or " * 600,
    "control": "\x00" * 1_000,
    "emoji": "🙂" * 500,
    "huge argument": r"\sin(10^{300})",
    "nested fractions": r"\frac{1}{" * 30 + "x" + "}" * 30,
    "line breaks": "\n" * 100_000,
    "boxes": r"\boxed{" * 20_000,
}
GOLDS = ["x^{2}+1", "1, 2"]


def _warm() -> None:
    """Load a worker and its spare first, so that only the verdict is timed even on a busy machine."""
    assert equivalent(r"\sin 2x", r"2\sin x\cos x", timeout=30)
    for worker in shared_pool()._idle:
        worker.wait_until_ready()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_is_not_right_and_is_decided_within_its_time(name: str) -> None:
    for gold in GOLDS:
        _warm()
        started = time.monotonic()
        verdict = verify(f"\\boxed{{{HOSTILE[name]}}}", gold, timeout=_LIMIT)
        assert time.monotonic() - started < _LIMIT + _GRACE
        assert verdict.score == 0.0
        assert verdict.reason


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_gold_is_decided_within_its_time(name: str) -> None:
    _warm()
    started = time.monotonic()
    verdict = verify("\\boxed{5}", HOSTILE[name], timeout=_LIMIT)
    assert time.monotonic() - started < _LIMIT + _GRACE
    assert verdict.status is not Status.CORRECT


@pytest.mark.parametrize(
    "code",
    [
        "__import__('os').system('touch {}')",
        "exec(\"open('{}','w')\")",
        "().__class__.__base__.__subclasses__()",
        r"\text{{__import__('os').system('touch {}')}}+1",
        r"x_{{__import__('os').system('touch {}')}}",
    ],
)
def test_code_in_an_answer_is_never_run(code: str, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    for gold in ("5", "x+1", r"\sqrt{2}"):
        assert verify(f"<answer>{code.format(trace)}</answer>", gold).score == 0.0
    assert not trace.exists()


_GUARDED = """
import builtins
import sympy.parsing.sympy_parser as parser
from rewards import equivalent

assert equivalent("sin(x)^2+cos(x)^2", "1", timeout=None)  # sympy imports more of itself at first use

def forbidden(*args, **kwargs):
    raise AssertionError(args)

# sympify reads text through parse_expr, which reads it through eval.
parser.parse_expr = builtins.eval = forbidden
for answer, gold in {pairs!r}:
    assert equivalent(answer, gold, timeout=None), answer
"""


def test_no_text_of_an_answer_reaches_an_evaluator() -> None:
    pairs = [(r"\sin 2x", r"2\sin x\cos x"), ("y=2/x", "xy=2"), (r"\sqrt{12}", r"2\sqrt3"), ("1/2", "0.5")]
    code = _GUARDED.format(pairs=pairs)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_completion_of_a_million_characters_is_read_quickly() -> None:
    started = time.monotonic()
    verify("<think>" + "because $x$ the answer is " * 40_000 + "</think>" + r"\boxed{4}", "5")
    assert time.monotonic() - started < _GRACE
