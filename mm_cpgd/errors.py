"""The errors that are the user's to mend: one message, exit status 2, no traceback."""

from data.example import DataError
from rewards.verdict import RuleError


class UserError(ValueError):
    """A mistake in a config, a path or a model; the message says what, where and what to do."""


USER_ERRORS = (UserError, DataError, RuleError)


class RunEnded(Exception):
    """A run that ended before its time, with a message for a person and an exit status."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
