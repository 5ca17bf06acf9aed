"""Names of the protocols that a benchmark can be scored by, and lookup of its judges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from data import Example
from eval.benchmark import Ask, Benchmark, ByJudge, Response
from mm_cpgd.errors import UserError
from rewards import Status, Verdict
from rewards.messages import nearest

PROTOCOLS = ("official", "verifier", "judge")
# Judges of every benchmark, besides its own.
GENERAL, WHOLE = "general", "whole"
_JUDGE = "judge"
_NOT_JUDGED = Verdict(None, Status.NOT_JUDGED, None, "no judge was asked")


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
    named = {
        one.partition(":")[2]: find_judge(benchmark, one) for one in protocol_names(benchmark) if ":" in one
    }
    return {
        protocol: protocol.partition(":")[2]
        or next((name for name, one in named.items() if one is judge), "own")
        for protocol, judge in judges_of(benchmark, protocols).items()
    }


def in_turn(judges: Iterable[ByJudge]) -> ByJudge:
    """Return a judge that asks what each of several asks, for an estimate; its verdict is the last one's."""
    several = list(judges)

    def judge(example: Example, response: Response, ask: Ask) -> Verdict:
        verdict = _NOT_JUDGED
        for one in several:
            with suppress(Exception):
                verdict = one(example, response, ask)
        return verdict

    return judge


def find_judge(benchmark: Benchmark, protocol: str) -> ByJudge:
    """Return the judge of a protocol. Raises ``UserError`` if the benchmark has none of that name."""
    from eval.judges.whole import judge_whole
    from eval.scoring.judge import judge_response

    own = {_JUDGE: benchmark.judge or judge_response}
    general = {GENERAL: judge_response, WHOLE: judge_whole, **benchmark.judges}
    known = own | {f"{_JUDGE}:{name}": judge for name, judge in general.items()}
    if protocol not in known:
        raise UserError(f"{benchmark.name} has no judge {protocol!r}: {nearest(protocol, known)}")
    return known[protocol]
