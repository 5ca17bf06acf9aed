"""Process that scores completions with one rule of a user: it may end, hang or be killed alone.

Started by ``rewards.workers.rule_processes`` only. Requests are pickles on standard input, each with one
completion or several. There is a reply to each of them as soon as it is scored, a JSON line on standard
output. The process ends when its input ends; a kernel timer ends it if a rule hangs after the parent is gone.
What the rule prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rewards.registry import BoundRule, get_rule
from rewards.verdict import RuleError

_GRACE = 1.0


def main() -> None:
    """Load the rule of the first request, report readiness, and score until the input ends."""
    # Private copies: a rule that reads standard input or prints must not touch the pipes.
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent handles it
    signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def reply(content: Mapping[str, Any]) -> None:
        replies.write(json.dumps(content) + "\n")
        replies.flush()

    reference, options = pickle.load(requests)
    try:
        rule = get_rule(reference, options)
    except BaseException as error:
        reply(_failure(error))
        return
    reply({"ready": True})
    while True:
        try:
            limit, examples, rows = pickle.load(requests)
        except EOFError:
            return
        for completion, number in rows:
            reply(_reply_to(rule, completion, examples[number], limit))


def _reply_to(rule: BoundRule, completion: bytes, example: bytes, limit: float) -> dict[str, Any]:
    """Score one completion, with an example of its own: a rule may change what it is given."""
    try:
        pair = pickle.loads(completion), pickle.loads(example)
    except Exception as error:  # a class that this process cannot import
        return _failure(error)
    # The default action of SIGALRM ends the process even inside a regular expression.
    signal.setitimer(signal.ITIMER_REAL, limit + _GRACE)
    found = _score(rule, *pair)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return found


def _score(rule: BoundRule, completion: str, example: Any) -> dict[str, Any]:
    try:
        verdict = rule(completion, example)
    except BaseException as error:  # SystemExit and KeyboardInterrupt are the rule's own here
        return _failure(error)
    return {
        "score": None if verdict.score is None else float(verdict.score),
        "status": verdict.status.value,
        "extracted": None if verdict.extracted is None else str(verdict.extracted),
        "reason": str(verdict.reason),
    }


def _failure(error: BaseException) -> dict[str, Any]:
    return {"error": describe(error), "trace": trace_of(error)}


def describe(error: BaseException) -> str:
    """Return an exception in one line of at most 300 characters."""
    return str(error)[:300] if isinstance(error, RuleError) else f"{type(error).__name__}: {error}"[:300]


def trace_of(error: BaseException) -> str:
    """Return the traceback as Python prints it, from the first frame outside of this package on."""
    own = str(Path(__file__).resolve().parents[1])
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename.startswith(own):
        frame = frame.tb_next
    # A result that is no score is reported by this package: it has no frame of the rule.
    return "".join(traceback.format_exception(type(error), error, frame))[-4000:] if frame else ""
