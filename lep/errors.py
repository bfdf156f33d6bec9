"""The two ways a command of `lep` ends badly: the user's mistake (exit code 2) and a failure (exit code 1)."""


class LepError(Exception):
    """Something failed although the request was sound: a full disk, a broken file, a check that does not hold."""

    exit_code = 1


class UserError(LepError):
    """The request itself cannot be met. The message says the value, what is allowed and what to do next."""

    exit_code = 2


class NotFiniteError(LepError):
    """A loss or gradient that is no finite number."""
