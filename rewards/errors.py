"""The error of this package that is the user's to mend."""


class RuleError(ValueError):
    """A reward rule that is unknown, malformed or misconfigured; the message says what to do."""
