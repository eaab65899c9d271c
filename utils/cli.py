"""Parse flags, and end every script with one line of text in place of a traceback."""

import argparse
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from utils.errors import Failed, UserError, describe_exception
from utils.terminal import accept_any_encoding, quote

MAX_SEED = 2**32 - 1  # scikit-learn takes no larger seed
TRY_AGAIN = "give the same command again"


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Print the script's docstring with its line breaks, and the default of each flag."""

    def _get_help_string(self, action):
        if action.required:
            return f"{action.help} (required)"
        return action.help if action.default is None else super()._get_help_string(action)


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a script's parser, with the flag that all scripts have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=HelpFormatter)
    parser.add_argument(
        "--debug",
        action="store_true",
        help="show the traceback of an error, not its one line alone",
    )
    return parser


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

    The exit status is 1 after an error, and 130 after Ctrl-C or SIGTERM. The traceback of an
    exception that nobody foresaw is written to a file that the line names. next_step(args) returns
    the command that the user should give next; args is None if the flags are not parsed yet.
    """
    accept_any_encoding()
    previous_handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    args = None
    try:
        args = parse_args()
        main(args)
        if sys.stdout is not None:
            sys.stdout.flush()  # so that a closed pipe is noticed here
    except Failed as problem:
        _exit(args, f"{problem}; {_where_traceback_is(problem)}")
    except UserError as problem:
        _exit(args, str(problem))
    except BrokenPipeError as problem:
        if problem.filename is not None:
            raise
        _exit_without_reader(args, next_step)
    except OSError as problem:
        if problem.errno is None:  # raised by this project, with its own advice
            _exit(args, str(problem))
        place = problem.filename or "standard output"
        _exit(args, f"{place}: {problem.strerror}; once this is fixed: {next_step(args)}")
    except KeyboardInterrupt:
        print(f"\ninterrupted; to go on: {next_step(args)}", file=sys.stderr)
        sys.exit(130)
    except Exception as problem:
        where = _where_traceback_is(problem)
        _exit(args, f"{describe_exception(problem)}; this is a defect of the program: {where}")
    finally:
        signal.signal(signal.SIGTERM, previous_handler)


def _exit(args: argparse.Namespace | None, message: str) -> NoReturn:
    """End with status 1 and one line on stderr, after the traceback where --debug asks for it."""
    if getattr(args, "debug", False):
        traceback.print_exc()
    sys.exit(f"error: {message}")


def _exit_without_reader(args, next_step):
    """End after the process that read the output has ended, as in `… | head`."""
    # What is still buffered goes nowhere, or Python would complain about it at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if args is not None:
        with suppress(OSError):  # stderr may go to the same pipe
            message = f"stopped: the output has no reader any more; to go on: {next_step(args)}"
            print(message, file=sys.stderr, flush=True)
    sys.exit(1)


def _where_traceback_is(problem):
    """Write an exception's traceback to a file, and return the words that name it."""
    try:
        with tempfile.NamedTemporaryFile(
            "w",
            encoding="utf-8",
            errors="backslashreplace",
            prefix="traceback_",
            suffix=".log",
            delete=False,
        ) as file:
            file.writelines(traceback.format_exception(problem))
    except OSError as failure:
        return f"--debug shows its traceback (no file could be written: {failure.strerror})"
    return f"its traceback is in {file.name}, and --debug shows it"


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
    return quote(*start, *sys.argv[1:])
