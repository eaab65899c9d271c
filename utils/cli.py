"""Parse flags, and end every script with one line of text in place of a traceback."""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from utils.errors import Failed, UserError, describe_exception
from utils.startup import TRY_AGAIN, explain, keep_traceback
from utils.terminal import accept_any_encoding, quote

MAX_SEED = 2**32 - 1  # scikit-learn takes no larger seed


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Print the script's docstring with its line breaks, and the default of each flag."""

    def _get_help_string(self, action):
        if action.required:
            return f"{action.help} (required)"
        return action.help if action.default is None else super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """Refuse empty values: pathlib takes an empty path for the folder that one is in."""

    def _get_values(self, action, arg_strings):
        if any(not text.strip() for text in arg_strings):
            raise argparse.ArgumentError(
                action, "an empty value; give one, or set the variable that was to hold it"
            )
        return super()._get_values(action, arg_strings)


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a script's parser, with the flag that all scripts have."""
    parser = _Parser(description=description, formatter_class=HelpFormatter)
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
    return lambda text: _word_or_number(text, "auto", low)


def int_or_all(text: str) -> int | str:
    """Read a flag's value: 'all', or a whole number of 1 or more."""
    return _word_or_number(text, "all", 1)


def _word_or_number(text, word, low):
    if text == word:
        return text
    try:
        return int_in_range(low)(text)
    except argparse.ArgumentTypeError as problem:
        raise argparse.ArgumentTypeError(f"{problem}, or {word!r}") from None


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

    The exit status is 1 after an error, and 130 after Ctrl-C, SIGTERM or the end of the terminal.
    The traceback of an exception that nobody foresaw is written to a file that the line names.
    next_step(args) returns the command that the user should give next; args is None if the flags
    are not parsed yet.
    """
    accept_any_encoding()
    previous_handlers = {
        number: signal.signal(number, signal.default_int_handler) for number in _ending_signals()
    }
    args = None
    try:
        args = parse_args()
        main(args)
        sys.stdout.flush()  # so that a closed pipe is noticed here
    except Failed as problem:
        _exit(args, f"{problem}; {keep_traceback(problem)}")
    except UserError as problem:
        _exit(args, str(problem))
    except OSError as problem:
        _exit_after_os_error(args, problem, next_step)
    except KeyboardInterrupt:
        _print_on_stderr(f"\ninterrupted; to go on: {next_step(args)}")
        sys.exit(130)
    except (ImportError, SyntaxError) as problem:  # of a library that is imported late
        _exit(args, explain(problem))
    except Exception as problem:
        where = keep_traceback(problem)
        _exit(args, f"{describe_exception(problem)}; this is a defect of the program: {where}")
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
        _discard_unwritten()


def _ending_signals():
    """List the signals that end a script as Ctrl-C does; nohup's choice to ignore one is kept."""
    numbers = [signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        numbers.append(signal.SIGHUP)  # the terminal was closed; Windows has none
    return numbers


def _exit(args: argparse.Namespace | None, message: str) -> NoReturn:
    """End with status 1 and one line on stderr, after the traceback where --debug asks for it."""
    if getattr(args, "debug", False):
        with suppress(OSError):
            traceback.print_exc()
    sys.exit(f"error: {message}")


def _exit_after_os_error(args, problem, next_step):
    """End after an error of the system, or after one that this project raised as such."""
    if problem.errno is None:  # raised by this project, with its own advice
        _exit(args, str(problem))
    if isinstance(problem, BrokenPipeError) and problem.filename is None:
        # The process that read the output has ended, as in `… | head`.
        if args is not None:
            _print_on_stderr(
                f"stopped: the output has no reader any more; to go on: {next_step(args)}"
            )
        sys.exit(1)
    place = problem.filename or "standard output"
    _exit(args, f"{place}: {problem.strerror}; once this is fixed: {next_step(args)}")


def _print_on_stderr(message):
    """Print a line, unless nobody can read it: the terminal or the pipe may be gone."""
    with suppress(OSError):
        print(message, file=sys.stderr, flush=True)


def _discard_unwritten():
    """Let what stdout cannot write go nowhere, or Python would complain about it at its end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):  # a notebook's stream has no number
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


def command_line() -> str:
    """Return the command that started this process, as a user types it."""
    specification = sys.modules["__main__"].__spec__
    script = Path(sys.argv[0]).name
    start = ["python", "-m", specification.name] if specification else ["python", script]
    return quote(*start, *sys.argv[1:])
