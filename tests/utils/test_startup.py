"""The line that a script ends with where an import fails."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT
from utils import startup
from utils.errors import UserError

SCRIPTS = (
    "train_with_distortions",
    "test_with_viz",
    "display_viz_english",
    "summarize_runs",
    "distorted_dataset",
)
LIBGL = "libGL.so.1: cannot open shared object file: No such file or directory"
MISMATCH = "numpy.dtype size changed, may indicate binary incompatibility. Expected 96, got 88"


def raised(code, path="somewhere.py"):
    """Return what this code raises, as if it were in this file."""
    try:
        exec(compile(code, str(path), "exec"), {})
    except BaseException as problem:
        return problem
    raise AssertionError("nothing was raised")


def explain(problem):
    """Return the explanation without the traceback's file, which is removed."""
    line, path = re.fullmatch(
        r"(.*); its traceback is in (\S+), and --debug shows it", startup.explain(problem)
    ).groups()
    assert type(problem).__name__ in Path(path).read_text(encoding="utf-8")
    Path(path).unlink()
    return line


@pytest.mark.parametrize(
    "code, path, expected",
    (
        (
            "import surely_not_there",
            "cv2/__init__.py",
            "ModuleNotFoundError: No module named 'surely_not_there'; "
            "install what requirements.txt lists: pip install -r ",
        ),
        (
            "import models.not_there",
            ROOT / "test_with_viz.py",
            "ModuleNotFoundError: No module named 'models.not_there', in ",
        ),
        (
            f"raise ImportError({LIBGL!r})",
            "/lib/cv2/__init__.py",
            f"ImportError: {LIBGL}; pip uninstall -y opencv-python, then pip install "
            "--force-reinstall opencv-python-headless",
        ),
        (
            f"raise ImportError({LIBGL!r})",
            "/lib/torch/__init__.py",
            f"ImportError: {LIBGL}; install that library of the system",
        ),
        (
            f"raise ValueError({MISMATCH!r})",
            "/lib/sklearn/__init__.py",
            f"ValueError: {MISMATCH}; packages do not fit each other: pip install -r",
        ),
        (
            "raise DeprecationWarning('old')",
            "/lib/torch/__init__.py",
            "DeprecationWarning: old; -W or PYTHONWARNINGS made this warning an error",
        ),
        ("\n1/0", ROOT / "distortions" / "extra.py", "ZeroDivisionError: division by zero, in "),
        ("1/0", "/lib/torch/__init__.py", "ZeroDivisionError: division by zero"),
    ),
)
def test_the_line_says_what_mends_it(code, path, expected):
    assert explain(raised(code, path)).startswith(expected)


def test_an_error_in_the_project_names_its_line(monkeypatch):
    monkeypatch.chdir(ROOT)

    line = explain(raised("\n\n1/0", ROOT / "distortions" / "extra.py"))

    assert line == "ZeroDivisionError: division by zero, in distortions/extra.py, line 3"


def test_a_syntax_error_names_its_line(monkeypatch):
    monkeypatch.chdir(ROOT)

    line = explain(raised("\ndef f(:", ROOT / "distortions" / "extra.py"))

    assert line == "SyntaxError in distortions/extra.py, line 2: invalid syntax"


def test_a_users_mistake_is_printed_as_it_is():
    assert startup.explain(UserError("rain: no levels")) == "rain: no levels"


@pytest.mark.parametrize("name", ("random", "queue", "numpy", "cv2"))
def test_a_file_that_hides_a_module_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"{name}.py"

    line = explain(raised("import nothing.of_it", path))

    assert line.endswith(f"; {name}.py takes the place of the module {name!r}: rename it")


def test_ctrl_c_among_imports_is_one_line(capsys):
    startup.print_import_error(KeyboardInterrupt, KeyboardInterrupt(), None)

    assert capsys.readouterr().err == f"\ninterrupted; to go on: {startup.TRY_AGAIN}\n"


@pytest.mark.parametrize("flags, has_traceback", (([], False), (["--debug"], True)))
def test_debug_shows_the_traceback(monkeypatch, capsys, flags, has_traceback):
    problem = raised("1/0")
    monkeypatch.setattr(sys, "argv", ["train_with_distortions.py", *flags])
    monkeypatch.setattr(startup, "keep_traceback", lambda problem: "kept")

    startup.print_import_error(type(problem), problem, problem.__traceback__)

    error = capsys.readouterr().err
    assert ("Traceback" in error) == has_traceback
    assert error.splitlines()[-1].startswith("error: ZeroDivisionError: division by zero, in ")
    assert error.endswith("; kept\n")


def test_a_notebook_keeps_its_own_hook(monkeypatch):
    before = sys.excepthook
    monkeypatch.setattr("builtins.__IPYTHON__", True, raising=False)

    startup.explain_import_errors()

    assert sys.excepthook is before


@pytest.fixture(scope="module")
def broken_project(module_folder):
    """Return a folder with the scripts, of whose packages only utils is there."""
    for name in SCRIPTS:
        (module_folder / f"{name}.py").write_bytes((ROOT / f"{name}.py").read_bytes())
    (module_folder / "utils").mkdir()
    for path in (ROOT / "utils").glob("*.py"):
        (module_folder / "utils" / path.name).write_bytes(path.read_bytes())
    return module_folder


def spoil(project, code):
    """Let the first slow import of every script run this code."""
    for package in ("torch", "evaluation"):
        (project / package).mkdir(exist_ok=True)
        (project / package / "__init__.py").write_text(code)


def start(project, name, *python_flags, folder=None, **environment):
    """Start a script, and return (exit status, stderr)."""
    command = [sys.executable, *python_flags, str(project / f"{name}.py"), "--help"]
    done = subprocess.run(
        command, cwd=folder, env={"PATH": "", **environment}, capture_output=True, encoding="utf-8"
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_whose_imports_fail_prints_one_line(broken_project, tmp_path, name):
    """Each has an import of its own that fails, before torch or after it."""
    spoil(broken_project, "import surely_not_there")

    status, error = start(broken_project, name, folder=tmp_path, TMPDIR=str(tmp_path))

    assert status == 1
    assert error.startswith("error: ModuleNotFoundError: No module named 'surely_not_there'; ")
    assert error.count("\n") == 1
    assert len(list(tmp_path.glob("traceback_*.log"))) == 1


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize(
    "python_flags, environment",
    ((["-I"], {}), (["-P"], {}), ([], {"PYTHONSAFEPATH": "1"})),
    ids=("-I", "-P", "PYTHONSAFEPATH"),
)
def test_python_that_does_not_look_beside_a_script(tmp_path, name, python_flags, environment):
    status, error = start(ROOT, name, *python_flags, folder=tmp_path, **environment)

    assert status == 1
    assert error.startswith("error: No module named 'utils'; run it as: python '")
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ("random", "queue", "tempfile"))
def test_a_module_of_python_that_a_file_hides(broken_project, tmp_path, name):
    """The file beside the scripts is named even where the traceback cannot be kept."""
    path = broken_project / f"{name}.py"
    path.write_text("")
    spoil(broken_project, f"from {name} import Something")

    status, error = start(broken_project, "train_with_distortions", TMPDIR=str(tmp_path))

    path.unlink()
    assert status == 1
    assert f"{path} takes the place of the module {name!r}: rename it; " in error
    assert error.count("\n") == 1
