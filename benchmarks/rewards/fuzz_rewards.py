"""Fuzz test of the verifier with random texts, made of fragments of answers and deliberately malformed.

    python -m benchmarks.rewards.fuzz_rewards --inputs 100000 --seed 0

Exits with status 1, and the text, at the first exception, verdict past its limit or attempt to run code.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time

from rewards import Status, verify

_LIMIT, _GRACE = 0.5, 0.5
_FRAGMENT_TEXT = r"""
0 1 2 7 10 3.14 . , x y n e i + - * / ^ _ = < > ( ) [ ] { } | ! % $ $$ : ; \ & ' " ? # ~ @ or and 和
或 是 ° π √ √( ① ½ ² ∞ ≤ ∪ \frac \dfrac{ \sqrt \sqrt[3]{ \text{ \left( \right) \{ \} \pm \cup \infty
\sin \log_ \ln \angle \triangle \binom \overline{ \dot \boxed{ \sum_{k=1}^{ \prod \begin{pmatrix}
\end{pmatrix} \\ \lfloor \rfloor \vec{ \in \to \approx \circ ^{\circ} \quad \, \! \$ ** __ ` cm
miles square yuan per sets Yes not A B (1) A. is the answer Therefore fill in one 3:05 p.m. 1,000
1e9 <think> </think> <answer> </answer> <|im_end|> __import__('os') eval( exec( lambda: os.system
9^9^9 999! \u202e \x00
"""
_FRAGMENTS = _FRAGMENT_TEXT.split()
_FORBIDDEN = frozenset(["exec", "compile", "os.system", "subprocess.Popen", "os.exec"])
_armed = False


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    """Exit when code is compiled, run or started while this process computes a verdict."""
    if _armed and event in _FORBIDDEN and "rewards.workers.worker" not in repr(arguments):
        raise SystemExit(f"{event} during a verdict: {arguments!r:.200}")


def random_text(draw: random.Random) -> str:
    fragments = [draw.choice(_FRAGMENTS) for _ in range(draw.randint(0, 16))]
    text = draw.choice(["", " "]).join(fragments)
    if draw.random() < 0.1:
        text = text * draw.randint(2, 60)
    if draw.random() < 0.1:
        text = "".join(chr(draw.randint(1, 0x2FFF)) if draw.random() < 0.2 else c for c in text)
    return text


def main() -> None:
    global _armed
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, counts, longest = random.Random(options.seed), dict.fromkeys(Status, 0), 0.0
    verify(r"\boxed{\sin^2 x}", r"1-\cos^2 x")
    sys.addaudithook(_watch)
    started = time.monotonic()
    for count in range(options.inputs):
        text, gold = random_text(draw), draw.choice(["1", "x^{2}+1", "1, 2", "yes", random_text(draw)])
        completion = draw.choice([text, rf"\boxed{{{text}}}", f"<answer>{text}</answer>"])
        verify_started = time.monotonic()
        try:
            _armed = True
            verdict = verify(completion, gold, timeout=_LIMIT, choices=draw.choice([(), ("1", "x", text)]))
        except Exception as error:
            raise SystemExit(f"{error!r} at {completion!r} against {gold!r}") from error
        finally:
            _armed = False
        counts[verdict.status] += 1
        taken = time.monotonic() - verify_started
        longest = max(longest, taken)
        if taken > _LIMIT + _GRACE and verdict.status is not Status.TIMEOUT:
            raise SystemExit(f"{taken:.2f} s for {completion!r} against {gold!r}")
        if (count + 1) % 10_000 == 0:
            print(f"{count + 1:,} inputs, {time.monotonic() - started:.0f} s", flush=True)
    print({status.value: n for status, n in counts.items() if n}, f"longest {longest:.2f} s")
    print(f"memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB here, ", end="")
    print(f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MiB in the largest worker")


if __name__ == "__main__":
    main()
