"""The errors that are the user's to mend: one message, exit status 2, no traceback."""

from data.errors import DataError
from rewards.errors import RuleError


class UserError(ValueError):
    """A mistake in a config, a path or a model; the message says what, where and what to do."""


USER_ERRORS = (UserError, DataError, RuleError)
