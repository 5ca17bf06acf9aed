"""Names of the protocols that a benchmark can be scored by, and lookup of its judges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from eval.benchmark import Benchmark, ByJudge
from mm_cpgd.errors import UserError
from rewards.messages import nearest

PROTOCOLS = ("official", "verifier", "judge")
# Judges of every benchmark, besides its own.
GENERAL, WHOLE = "general", "whole"
_JUDGE = "judge"


def protocol_names(benchmark: Benchmark) -> list[str]:
    """Return the protocols of a benchmark: official, verifier, judge, and judge:NAME for each named judge."""
    return [*PROTOCOLS, *(f"{_JUDGE}:{name}" for name in sorted({GENERAL, WHOLE, *benchmark.judges}))]


def checked_protocols(protocols: Sequence[str], benchmark: Benchmark) -> list[str]:
    """Return the names without duplicates.

    Raises:
        UserError: no name, or the benchmark has no such protocol.
    """
    known = protocol_names(benchmark)
    unknown = [name for name in protocols if name not in known]
    if unknown:
        hint = f"it has {', '.join(known)}" if is_judge(unknown[0]) else nearest(unknown[0], known)
        raise UserError(f"{benchmark.name} has no protocol {unknown[0]!r}: {hint}")
    if not protocols:
        raise UserError(f"no protocol is named: {nearest('', known)}")
    return list(dict.fromkeys(protocols))


def is_judge(protocol: str) -> bool:
    """Return whether a protocol needs a judge."""
    return protocol.partition(":")[0] == _JUDGE


def judges_of(benchmark: Benchmark, protocols: Iterable[str]) -> dict[str, ByJudge]:
    """Return the judge of each protocol that needs one. Raises ``UserError`` for an unknown name."""
    return {name: find_judge(benchmark, name) for name in protocols if is_judge(name)}


def judge_rules(benchmark: Benchmark, protocols: Iterable[str]) -> dict[str, str]:
    """Return the rule of each judge: the NAME of ``judge:NAME``, also where ``judge`` alone was requested.

    "own" is a benchmark's judge that has no other name.
    """
    judges = judges_of(benchmark, protocols)
    every = _judges(benchmark) if judges else {}
    named = {one.partition(":")[2]: judge for one, judge in every.items() if ":" in one}
    return {
        protocol: protocol.partition(":")[2]
        or next((name for name, one in named.items() if one is judge), "own")
        for protocol, judge in judges.items()
    }


def find_judge(benchmark: Benchmark, protocol: str) -> ByJudge:
    """Return the judge of a protocol. Raises ``UserError`` if the benchmark has none of that name."""
    known = _judges(benchmark)
    if protocol not in known:
        raise UserError(f"{benchmark.name} has no judge {protocol!r}: {nearest(protocol, known)}")
    return known[protocol]


def _judges(benchmark: Benchmark) -> dict[str, ByJudge]:
    """Return all judges of a benchmark by protocol, sorted by name."""
    from eval.judges.whole import judge_whole
    from eval.scoring.judge import judge_response

    named = {GENERAL: judge_response, WHOLE: judge_whole, **benchmark.judges}
    own = {_JUDGE: benchmark.judge or judge_response}
    return own | {f"{_JUDGE}:{name}": judge for name, judge in sorted(named.items())}
