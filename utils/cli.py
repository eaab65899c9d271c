"""What every script's command line shares: value types for flags, and one line instead of a traceback for mistakes."""

import argparse
import signal
import sys

from utils.errors import UserError

MAX_SEED = 2**32 - 1  # scikit-learn takes no larger one
AGAIN = "give the same command again"


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The script's docstring as it stands, and each flag's default where its help does not name it."""

    def _get_help_string(self, action):
        if action.required:
            return f"{action.help} (required)"
        return action.help if action.default is None else super()._get_help_string(action)


def whole(low, high=None):
    """A flag's type: a whole number from low to high."""
    return _number(int, "whole number", low, high)


def whole_or_auto(low):
    """A flag's type: a whole number from low on, or 'auto'."""
    number = whole(low)
    return lambda text: text if text == "auto" else number(text)


def real(low, high=None):
    """A flag's type: a number from low to high."""
    return _number(float, "number", low, high)


def _number(kind, name, low, high):
    expected = (
        f"a {name} from {low} to {high}" if high is not None else f"a {name} of {low} or more"
    )

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not value >= low or (high is not None and not value <= high):
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
        return value

    return parse


def run_script(main, parse_args, how_to_go_on=lambda args: AGAIN):
    """Run main(parse_args()). A user's mistake or a failing disk gives one line on stderr and exit status 1, Ctrl-C
    and SIGTERM one and 130: how_to_go_on(args) says which command comes next."""
    terminate = signal.signal(signal.SIGTERM, signal.default_int_handler)
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
            f"error: {problem.filename}: {problem.strerror}; when that is mended: {how_to_go_on(args)}"
        )
    except KeyboardInterrupt:
        print(f"\ninterrupted; to go on: {how_to_go_on(args)}", file=sys.stderr)
        sys.exit(130)
    finally:
        signal.signal(signal.SIGTERM, terminate)


def tell_interrupt(kind, problem, traceback):
    """A sys.excepthook for a script's imports, which take seconds: Ctrl-C gives one line there too."""
    if issubclass(kind, KeyboardInterrupt):
        print(f"\ninterrupted; to go on: {AGAIN}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, problem, traceback)
