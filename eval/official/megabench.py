"""stub."""

from rewards import Verdict, Status


def grade(text, meta):
    return Verdict(None, Status.ERROR, None, "")
