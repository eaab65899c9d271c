"""What every script's command line shares: types of flags, and one line in place of a traceback."""

import argparse
import signal
import sys
from collections.abc import Callable
from typing import Any

from utils.errors import UserError

MAX_SEED = 2**32 - 1  # scikit-learn takes no larger one
TRY_AGAIN = "give the same command again"


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show the script's docstring as it stands, and each flag's default where its help has none."""

    def _get_help_string(self, action):
        if action.required:
            return f"{action.help} (required)"
        return action.help if action.default is None else super()._get_help_string(action)


def int_in_range(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return a flag's type: a whole number from low to high."""
    return _number_in_range(int, "whole number", low, high)


def int_or_auto(low: int) -> Callable[[str], int | str]:
    """Return a flag's type: a whole number from low on, or 'auto'."""
    parse_number = int_in_range(low)
    return lambda text: text if text == "auto" else parse_number(text)


def float_in_range(low: float, high: float | None = None) -> Callable[[str], float]:
    """Return a flag's type: a number from low to high."""
    return _number_in_range(float, "number", low, high)


def _number_in_range(number_type, name, low, high):
    expected = f"a {name} of {low} or more" if high is None else f"a {name} from {low} to {high}"

    def parse(text):
        try:
            value = number_type(text)
        except ValueError:
            value = None
        # nan is neither below nor above, so it is asked for what it is not.
        if value is None or not value >= low or (high is not None and not value <= high):
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
        return value

    return parse


def run_script(
    main: Callable[[argparse.Namespace], Any],
    parse_args: Callable[[], argparse.Namespace],
    how_to_go_on: Callable[[argparse.Namespace | None], str] = lambda args: TRY_AGAIN,
) -> None:
    """Run main(parse_args()), and end with one line on stderr where it cannot go on.

    A user's mistake or a failing disk gives exit status 1, Ctrl-C and SIGTERM give 130.
    how_to_go_on(args) returns the command that comes next; args is None before they were read.
    """
    previous_handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    args = None
    try:
        args = parse_args()
        main(args)
    except UserError as problem:
        sys.exit(f"error: {problem}")
    except OSError as problem:
        if problem.errno is None:  # one of ours, with its way out
            sys.exit(f"error: {problem}")
        sys.exit(
            f"error: {problem.filename}: {problem.strerror}; "
            f"when that is mended: {how_to_go_on(args)}"
        )
    except KeyboardInterrupt:
        print(f"\ninterrupted; to go on: {how_to_go_on(args)}", file=sys.stderr)
        sys.exit(130)
    finally:
        signal.signal(signal.SIGTERM, previous_handler)


def exit_on_interrupt(kind, problem, traceback) -> None:
    """Serve as sys.excepthook while a script imports, so that Ctrl-C gives one line there too."""
    if issubclass(kind, KeyboardInterrupt):
        print(f"\ninterrupted; to go on: {TRY_AGAIN}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, problem, traceback)
