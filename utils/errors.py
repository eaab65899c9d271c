"""The exceptions that scripts print as a line instead of a traceback."""


class UserError(ValueError):
    """A mistake in what the user gave.

    The message names the value, what was expected and the way out.
    """


class Damaged(UserError):
    """A file that is not what was written."""
