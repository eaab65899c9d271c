"""Parse flags, and end every script with one line of text in place of a traceback."""

import argparse
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from utils.errors import UserError

MAX_SEED = 2**32 - 1  # scikit-learn takes no larger seed
TRY_AGAIN = "give the same command again"


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Print the script's docstring with its line breaks, and the default of each flag."""

    def _get_help_string(self, action):
        if action.required:
            return f"{action.help} (required)"
        return action.help if action.default is None else super()._get_help_string(action)


def int_in_range(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return a flag's type: a whole number from low to high, both included."""
    return _number_in_range(int, "whole number", low, high)


def int_or_auto(low: int) -> Callable[[str], int | str]:
    """Return a flag's type: 'auto', or a whole number of low or more."""
    parse_number = int_in_range(low)
    return lambda text: text if text == "auto" else parse_number(text)


def float_in_range(low: float, high: float | None = None) -> Callable[[str], float]:
    """Return a flag's type: a number from low to high, both included."""
    return _number_in_range(float, "number", low, high)


def _number_in_range(number_type, name, low, high):
    expected = f"a {name} of {low} or more" if high is None else f"a {name} from {low} to {high}"

    def parse(text):
        try:
            value = number_type(text)
        except ValueError:
            value = None
        # Comparisons with nan are false, so that this refuses nan too.
        if value is None or not value >= low or (high is not None and not value <= high):
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
        return value

    return parse


def run_script(
    main: Callable[[argparse.Namespace], Any],
    parse_args: Callable[[], argparse.Namespace],
    next_step: Callable[[argparse.Namespace | None], str] = lambda args: TRY_AGAIN,
) -> None:
    """Run main(parse_args()), and print one line on stderr if it cannot continue.

    The exit status is 1 after a user's mistake or a disk error, and 130 after Ctrl-C or SIGTERM.
    next_step(args) returns the command that the user should give next; args is None if the flags
    are not parsed yet.
    """
    previous_handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    args = None
    try:
        args = parse_args()
        main(args)
    except UserError as problem:
        sys.exit(f"error: {problem}")
    except OSError as problem:
        if problem.errno is None:  # raised by this project, with its own advice
            sys.exit(f"error: {problem}")
        sys.exit(
            f"error: {problem.filename}: {problem.strerror}; when that is mended: {next_step(args)}"
        )
    except KeyboardInterrupt:
        print(f"\ninterrupted; to go on: {next_step(args)}", file=sys.stderr)
        sys.exit(130)
    finally:
        signal.signal(signal.SIGTERM, previous_handler)


def exit_on_interrupt(
    kind: type[BaseException], problem: BaseException, traceback: TracebackType | None
) -> None:
    """Print one line after Ctrl-C; a script sets this as sys.excepthook while it imports."""
    if issubclass(kind, KeyboardInterrupt):
        print(f"\ninterrupted; to go on: {TRY_AGAIN}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, problem, traceback)


def command_line() -> str:
    """Return the command that started this process, as a user types it."""
    specification = sys.modules["__main__"].__spec__
    script = Path(sys.argv[0]).name
    start = ["python", "-m", specification.name] if specification else ["python", script]
    return shlex.join([*start, *sys.argv[1:]])
