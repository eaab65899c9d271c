"""Define the exceptions that scripts print as one line instead of a traceback."""


class UserError(ValueError):
    """Reports a mistake in the user's input.

    The message names the value, what was expected and what to do.
    """


class Damaged(UserError):
    """Reports a file that was changed or cut short after it was written."""


class Failed(UserError):
    """Reports an exception that nobody foresaw, in code or in a file that the message names.

    It is raised `from` that exception. A script keeps its traceback in a file.
    """


def describe_exception(problem: BaseException) -> str:
    """Return an exception's type and message in one line."""
    message = " ".join(str(problem).split())
    kind = type(problem).__name__
    return f"{kind}: {message}" if message else kind
