"""The Makefile's targets, as `make help` lists them."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@needs_make
def test_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)", text, re.MULTILINE)[1].split()

    listed = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True).stdout

    assert [line.split()[1] for line in listed.splitlines()] == targets
    assert all(len(line.split()) > 2 for line in listed.splitlines())
    assert targets == re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE)


@pytest.fixture
def project(tmp_path):
    """Return a project in a folder with a space, whose python writes down how it is called."""
    folder = tmp_path / "My Drive" / "quality's"
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / name, folder)
    write_stub(folder / ".venv" / "bin" / "python", folder / "calls")
    for name in ("installed", "installed-dev"):
        (folder / ".venv" / name).touch()
    return folder


def write_stub(path, calls):
    """Write a program that appends its arguments to a file, each with a null behind it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" . >> {shlex.quote(str(calls))}\n")
    path.chmod(0o755)


def make(project, *arguments, **environment):
    """Run make, and return the calls of python: a list of words for each."""
    subprocess.run(
        ["make", "-s", *arguments], cwd=project, env={**os.environ, **environment}, check=True
    )
    words = (project / "calls").read_bytes().decode("utf-8", "surrogateescape")
    return [call.split("\0") for call in words.removesuffix("\0.\0").split("\0.\0")]


AWKWARD = (
    "My Drive/pics",
    "it's",
    'a "quoted" word',
    "$HOME",
    "$(HOME)",
    "a$$b",
    "`ls`",
    "a;b & c | d",
    "*",
    "-x",
    "#1",
    "back\\slash",
    "图像",
    "caf\udce9",
    "two\nlines",
    "percent % sign",
)


@needs_make
@pytest.mark.parametrize("value", AWKWARD)
@pytest.mark.parametrize("from_environment", (False, True))
def test_any_folder_of_references_reaches_training(project, value, from_environment):
    where = {"REFERENCES": value} if from_environment else {}
    typed = [] if from_environment else [f"REFERENCES={value}"]

    calls = make(project, "quickstart", *typed, **where)

    assert [call[0] for call in calls] == ["train_with_distortions.py", "test_with_viz.py"]
    assert f"--references={value}" in calls[0]
    assert calls[0][-1] == "--overwrite"


@needs_make
@pytest.mark.parametrize("value", ("my run", "it's", "$HOME", "-x"))
def test_any_name_of_the_quick_run_is_trained_and_tested(project, value):
    train, test = make(project, "quickstart", f"QUICK={value}")

    assert f"--experiment_name={value}" in train
    assert test == ["test_with_viz.py", f"--experiment=experiments/{value}"]


@needs_make
def test_results_are_of_all_seeds(project):
    calls = make(project, "results", "SEEDS=3 14", "REFERENCES=a b")

    assert [call[0] for call in calls[:-1]] == ["train_with_distortions.py", "test_with_viz.py"] * 2
    assert calls[2][1:6] == ["--experiment_name", "full_seed14", "--seed", "14", "--references=a b"]
    runs = ["experiments/full_seed3", "experiments/full_seed14"]
    assert calls[-1] == ["summarize_runs.py", *runs, "--output", "results/full_command.json"]


@needs_make
def test_the_environment_is_made_by_a_python_with_a_space(project):
    python = project / "my python" / "python3"
    write_stub(python, project / "calls")
    (project / ".venv" / "installed").unlink()

    calls = make(project, "tables", f"PYTHON={python}")

    assert calls[0] == ["-m", "venv", ".venv"]
    assert calls[1][:3] == ["-m", "pip", "install"]
    assert calls[2] == ["-m", "docs.make_tables"]
