"""Errors that a user can fix: the command line prints one message without a traceback, exit status 2."""

from data.example import DataError
from rewards.verdict import RuleError


class UserError(ValueError):
    """A mistake in a config, a path or a model; the message says what, where and what to do."""


USER_ERRORS = (UserError, DataError, RuleError)


class RunEnded(Exception):
    """A run that ended early, with a message for the user and an exit status."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ProcessLost(RunEnded):
    """Another process of the run has ended or hangs; this one ends without any further exchange.

    Attributes:
        everywhere: whether every process says so; otherwise the main process is there to say it.
    """

    def __init__(self, message: str, *, everywhere: bool) -> None:
        super().__init__(message)
        self.everywhere = everywhere


class EngineFailed(RunEnded):
    """A sampling engine that has ended and could not be waited for; what was learned can still be saved."""
