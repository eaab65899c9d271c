"""Define the exceptions that scripts print as one line instead of a traceback."""


class UserError(ValueError):
    """Reports a mistake in the user's input.

    The message names the value, what was expected and what to do.
    """


class Damaged(UserError):
    """Reports a file that was changed or cut short after it was written."""
