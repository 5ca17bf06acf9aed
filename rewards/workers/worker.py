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
    # Loads what sympy imports at first use, so that it counts for neither the limit of memory nor of time.
    compare({"answer": r"\sin 2x+x/(x+1)", "gold": r"2\sin x\cos x+1-1/(x+1)"})
    _confine(memory)
    replies.write('"ready"\n')
    replies.flush()
    serve(sys.stdin, replies)
