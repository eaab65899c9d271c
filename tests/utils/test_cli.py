"""Types of flags, and the line that a script ends with."""

import argparse
import errno
import io
import signal
import sys
from pathlib import Path

import pytest

from utils import cli
from utils.cli import (
    HelpFormatter,
    float_in_range,
    int_in_range,
    int_or_all,
    int_or_auto,
    run_script,
)
from utils.errors import Failed, UserError

ENDING_SIGNALS = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


@pytest.mark.parametrize(
    "parse, text, message",
    (
        (int_in_range(1), "0", "'0' is not a whole number of 1 or more"),
        (int_or_all, "alle", "'alle' is not a whole number of 1 or more, or 'all'"),
        (int_or_auto(4), "3", "'3' is not a whole number of 4 or more, or 'auto'"),
        (int_in_range(1), "2.5", "'2.5' is not a whole number"),
        (int_in_range(2, 512), "600", "'600' is not a whole number from 2 to 512"),
        (int_or_auto(2), "1", "'1' is not a whole number of 2 or more"),
        (int_or_auto(2), "automatic", "'automatic' is not a whole number"),
        (float_in_range(0), "nan", "'nan' is not a number of 0 or more"),
        (float_in_range(0), "much", "'much' is not a number"),
        (float_in_range(0, 1), "1.5", "'1.5' is not a number from 0 to 1"),
    ),
)
def test_flags_refuse_values_out_of_range(parse, text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        parse(text)


@pytest.mark.parametrize(
    "parse, text, expected",
    (
        (int_in_range(1), "7", 7),
        (int_in_range(2, 512), "512", 512),
        (float_in_range(0), "1e-3", 1e-3),
        (int_or_auto(2), "auto", "auto"),
        (int_or_auto(2), "2", 2),
    ),
)
def test_flags_take_values_in_range(parse, text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize("value", ("", " "))
@pytest.mark.parametrize("flag", ("--path", "--names", "more"))
def test_an_empty_value_is_refused(capsys, flag, value):
    parser = cli.make_parser("")
    parser.add_argument("--path")
    parser.add_argument("--names", nargs="+")
    parser.add_argument("more", nargs="*")

    with pytest.raises(SystemExit):
        parser.parse_args([value] if flag == "more" else [flag, value])

    assert f"argument {flag}: an empty value" in capsys.readouterr().err


def test_help_shows_defaults_and_required_flags():
    parser = argparse.ArgumentParser(description="one\ntwo", formatter_class=HelpFormatter)
    parser.add_argument("--given", default=5, help="has a default")
    parser.add_argument("--none", help="has none")
    parser.add_argument("--needed", required=True, help="must be there")

    text = parser.format_help()

    assert "one\ntwo" in text
    assert "has a default (default: 5)" in text
    assert "must be there (required)" in text
    assert text.count("default:") == 1


def raising(problem):
    """Return a script's main that raises the problem."""

    def main(args):
        raise problem

    return main


def test_a_users_mistake_is_one_line():
    with pytest.raises(SystemExit, match="^error: --lr 0 is too small$"):
        run_script(raising(UserError("--lr 0 is too small")), lambda: None)


@pytest.mark.parametrize("kind", (ValueError, TypeError, RecursionError, MemoryError))
def test_a_defect_is_one_line_and_a_traceback_in_a_file(kind):
    with pytest.raises(SystemExit) as end:
        run_script(raising(kind("a bug")), lambda: None)

    message = (
        f"error: {kind.__name__}: a bug; this is a defect of the program: its traceback is in "
    )
    assert end.value.code.startswith(message)
    path = Path(end.value.code.removeprefix(message).split(", and")[0])
    assert f"{kind.__name__}: a bug" in path.read_text()
    path.unlink()


def test_debug_shows_the_traceback(capsys):
    with pytest.raises(SystemExit):
        run_script(raising(UserError("no such type")), lambda: argparse.Namespace(debug=True))

    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_what_failed_in_a_users_code_has_its_traceback_in_a_file():
    def main(args):
        try:
            {}["haze"]
        except KeyError as problem:
            raise Failed("the distortion fog failed: KeyError: 'haze'") from problem

    with pytest.raises(SystemExit, match="error: the distortion fog failed: KeyError: 'haze'; its"):
        run_script(main, lambda: None)


def test_a_disk_error_names_file_and_next_step():
    problem = OSError(errno.ENOSPC, "No space left on device", "log.jsonl")

    with pytest.raises(SystemExit) as end:
        run_script(raising(problem), lambda: None, lambda args: "do this")

    assert end.value.code == (
        "error: log.jsonl: No space left on device; once this is fixed: do this"
    )


def test_an_own_file_error_is_printed_as_it_is():
    with pytest.raises(SystemExit, match="^error: no such folder$"):
        run_script(raising(FileNotFoundError("no such folder")), lambda: None)


def test_ctrl_c_exits_with_130(capsys):
    with pytest.raises(SystemExit) as end:
        run_script(raising(KeyboardInterrupt()), lambda: None)

    assert end.value.code == 130
    assert capsys.readouterr().err == f"\ninterrupted; to go on: {cli.TRY_AGAIN}\n"


@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_other_signals_exit_like_ctrl_c(number, capsys):
    """SIGHUP comes where a terminal or an ssh connection is closed."""
    before = signal.signal(number, signal.SIG_DFL)  # nohup would have it ignored
    try:
        with pytest.raises(SystemExit) as end:
            run_script(lambda args: signal.raise_signal(number), lambda: None)
    finally:
        signal.signal(number, before)

    assert end.value.code == 130
    assert capsys.readouterr().err.startswith("\ninterrupted; to go on: ")


@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_the_signal_handler_is_put_back(number):
    before = signal.getsignal(number)

    run_script(lambda args: None, lambda: None)

    assert signal.getsignal(number) == before


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no nohup")
def test_nohup_is_kept():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    finished = []

    def main(args):
        signal.raise_signal(signal.SIGHUP)
        finished.append(True)

    try:
        run_script(main, lambda: None)
    finally:
        signal.signal(signal.SIGHUP, before)

    assert finished


def test_a_closed_terminal_ends_like_an_open_one(monkeypatch):
    """Where SIGHUP came, nothing can be printed any more."""

    class Gone(io.StringIO):
        def write(self, text):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Gone())

    with pytest.raises(SystemExit) as end:
        run_script(raising(KeyboardInterrupt()), lambda: None)

    assert end.value.code == 130


def test_a_library_that_is_missing_late_is_no_defect(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # for the traceback
    problem = ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")

    with pytest.raises(SystemExit, match="install what requirements.txt lists: pip install -r"):
        run_script(raising(problem), lambda: None)


def test_a_broken_pipe_that_has_a_name_is_one_line():
    problem = BrokenPipeError(errno.EPIPE, "Broken pipe", "fifo")

    with pytest.raises(SystemExit, match="^error: fifo: Broken pipe; once this is fixed"):
        run_script(raising(problem), lambda: None)
