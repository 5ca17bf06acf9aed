"""The error of this package that is the user's to mend."""


class DataError(ValueError):
    """Data that cannot be used; the message says what, where and what to do."""
