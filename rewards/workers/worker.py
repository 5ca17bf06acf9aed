"""Worker process that runs sympy: requests on standard input, replies on standard output, a JSON line each.

Started by ``rewards.workers.pool`` only. The process ends when its input ends, which also happens when the
parent is killed. During a comparison a kernel timer ends it if the parent does not.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from typing import TextIO

MEMORY = 1 << 30
_GRACE = 1.0


def _confine(memory: int) -> None:
    """Limit memory, disable core files, and ignore Ctrl-C, which the parent handles."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def compare(request: dict[str, object]) -> dict[str, object]:
    """Compare one pair. The reply holds ``equal``, or the reason for no result under its own key."""
    from rewards.math.decide import Incomparable, decide_fully

    try:
        ordered = bool(request.get("ordered", True))
        return {"equal": decide_fully(str(request["answer"]), str(request["gold"]), ordered)}
    except MemoryError:
        return {"exhausted": "out of memory"}
    except Incomparable as error:
        return {"incomparable": str(error)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}


# One comparison by values, one that sympy has to decide. They also load what sympy imports at first use, so
# that it counts for neither the limit of memory nor of time.
_TESTS = ((r"\sin 2x+x/(x+1)", r"2\sin x\cos x+1-1/(x+1)"), ("(n+1)!", "(n+1)n!"))


def self_test() -> str | None:
    """Return why sympy does not work in this process, or None if it does.

    An exception of sympy on an answer is a property of the answer; on these it is one of the installation,
    which would otherwise score every such answer as wrong.
    """
    try:
        import sympy

        from rewards.math.decide import decide_fully

        for answer, gold in _TESTS:
            if not decide_fully(answer, gold):
                return f"sympy {sympy.__version__} does not find {answer} equal to {gold}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    return None


def serve(requests: TextIO, replies: TextIO) -> None:
    """Reply to each request line until the input ends."""
    for line in requests:
        request = json.loads(line)
        # The default action of SIGALRM ends the process even inside one long multiplication.
        signal.setitimer(signal.ITIMER_REAL, float(request["limit"]) + _GRACE)
        reply = compare(request)
        signal.setitimer(signal.ITIMER_REAL, 0)
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def main(memory: int = MEMORY) -> None:
    """Load sympy, report readiness, and serve. Only replies are written to the pipe."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    broken = self_test()
    _confine(memory)
    replies.write(json.dumps({"broken": broken} if broken else {"ready": True}) + "\n")
    replies.flush()
    if not broken:
        serve(sys.stdin, replies)
