"""Which run a user's words stand for, what is said where there is none, and names of runs."""

import os
import shlex
import unicodedata
from pathlib import Path

import pytest

from utils import runs
from utils.errors import UserError
from utils.runs import (
    check_experiments_folder,
    check_new_name,
    check_plain_name,
    command_to_resume,
    find_checkpoint,
    find_run,
    is_run,
)

NFC = unicodedata.normalize("NFC", "é")
NFD = unicodedata.normalize("NFD", "é")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in an empty folder, beside a project that is empty too."""
    monkeypatch.setattr(runs, "PROJECTS_EXPERIMENTS", tmp_path / "project" / "experiments")
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def make_run(path, *names):
    """Make a folder with these files of a run."""
    Path(path).mkdir(parents=True, exist_ok=True)
    for name in names or ("config.json", "log.jsonl", "best.pt", "last.pt"):
        file = Path(path, name)
        file.parent.mkdir(exist_ok=True)
        file.touch()
    return Path(path)


@pytest.mark.parametrize(
    "text",
    (
        "base",
        "base/",
        "./experiments/base",
        "experiments/base",
        "experiments/base/",
        "experiments/base/.",
        "experiments//base",
        "experiments/base/best.pt",
        "experiments/base/config.json",
        "experiments/base/visualizations",
        "experiments/base/visualizations/",
        "experiments/base/visualizations/metrics.json",
        "base/best.pt",
        "experiments\\base",
        ".\\experiments\\base",
        "experiments\\base\\best.pt",
    ),
)
def test_a_run_has_many_spellings(here, text):
    run = make_run("experiments/base")
    make_run("experiments/base/visualizations", "metrics.json")

    assert find_run(text).samefile(run)


@pytest.mark.parametrize("text", ("base", "experiments/base", "experiments/base/best.pt"))
def test_a_run_of_the_project_is_found_from_everywhere(here, text):
    run = make_run(runs.PROJECTS_EXPERIMENTS / "base")

    assert find_run(text) == run


@pytest.mark.parametrize("text", (".", "../base", "best.pt", "visualizations"))
def test_a_run_is_found_from_its_own_folder(here, monkeypatch, text):
    run = make_run(here / "experiments" / "base")
    (run / "visualizations").mkdir()
    monkeypatch.chdir(run)

    assert find_run(text).samefile(run)


@pytest.mark.parametrize(
    "name", ("two words", "图像 质量", "-x", "$HOME", "it's", "über", "😀", "a.b")
)
def test_any_name_is_found(here, name):
    run = make_run(Path("experiments", name))

    assert find_run(name) == run
    assert find_run(run.resolve()) == run.resolve()


@pytest.mark.parametrize("typed, on_disk", ((NFC, NFD), (NFD, NFC)))
@pytest.mark.parametrize("prefix", ("", "experiments/"))
def test_both_encodings_of_an_accent_are_one_name(here, prefix, typed, on_disk):
    run = make_run(f"experiments/caf{on_disk}")

    assert find_run(f"{prefix}caf{typed}").samefile(run)


def test_of_two_runs_neither_is_taken(here):
    make_run("base")
    make_run("experiments/base")

    with pytest.raises(UserError, match="'base' may be ./base or experiments/base: give one of"):
        find_run("base")


@pytest.mark.parametrize("text, expected", (("./base", "base"), ("experiments/base",) * 2))
def test_a_path_is_taken_as_it_is_typed(here, text, expected):
    make_run("base")
    make_run("experiments/base")
    make_run(runs.PROJECTS_EXPERIMENTS / "base")

    assert find_run(text) == Path(expected)


def test_a_folder_that_is_no_run_does_not_hide_one(here):
    (here / "data").mkdir()
    run = make_run("experiments/data")

    assert find_run("data") == run


def test_a_link_to_a_run_is_the_same_run(here):
    make_run("experiments/base")
    (here / "base").symlink_to("experiments/base")

    assert find_run("base").samefile("experiments/base")


def test_where_no_run_is_known_training_is_the_advice(here):
    with pytest.raises(FileNotFoundError) as problem:
        find_run("base")

    message = str(problem.value)
    expected = "no run called 'base': looked in ./base, experiments/base, "
    assert message.startswith(f"{expected}{runs.PROJECTS_EXPERIMENTS / 'base'}; no run was trained")
    assert message.endswith("train_with_distortions.py --experiment_name base")


def test_other_runs_are_named_the_closest_first(here):
    for name in ("alpha", "resnet_seed0", "resnet_seed1", "zeta"):
        make_run(f"experiments/{name}")

    with pytest.raises(FileNotFoundError) as problem:
        find_run("Resnet_seed")

    names = str(problem.value).split("runs there are: ")[1].split(", ")
    assert set(names[:2]) == {"resnet_seed0", "resnet_seed1"}
    assert names[2:] == ["alpha", "zeta"]
    assert "train one" not in str(problem.value)


def make_nothing(path):
    """Leave the path free."""


def make_empty(path):
    path.mkdir()


def make_other(path):
    path.mkdir()
    (path / "cat.png").touch()


def make_file(path):
    path.touch()


def make_broken_link(path):
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    "make, message",
    (
        (make_nothing, "no run called 'experiments/base': looked in experiments/base, "),
        (make_empty, "experiments/base is no run: it is empty"),
        (make_other, "experiments/base is no run: it holds 'cat.png', but neither config.json"),
        (make_file, "experiments/base is a file, not a run's folder"),
        (make_broken_link, "experiments/base is a link to nowhere, which is not there"),
    ),
)
def test_the_message_says_what_is_there(here, make, message):
    (here / "experiments").mkdir()
    make(here / "experiments" / "base")

    with pytest.raises(FileNotFoundError) as problem:
        find_run("experiments/base")

    assert str(problem.value).startswith(message)


@pytest.mark.parametrize(
    "files, checkpoint, message",
    (
        (["config.json", "last.pt"], "best", "has no best.pt, but last.pt: --checkpoint last"),
        (["config.json", "best.pt"], "last", "has no last.pt, but best.pt: --checkpoint best"),
        (["config.json", "lock"], "best", "its training ended before its first checkpoint; go on"),
        (["log.jsonl"], "best", "and no other checkpoint: it holds 'log.jsonl'"),
    ),
)
def test_a_missing_checkpoint_says_what_there_is(here, files, checkpoint, message):
    make_run("experiments/base", *files)

    with pytest.raises(FileNotFoundError) as problem:
        find_checkpoint("base", checkpoint)

    assert message in str(problem.value)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such locks")
def test_a_run_under_way_is_waited_for(here):
    import fcntl

    run = make_run("experiments/base", "config.json", "lock")

    with open(run / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FileNotFoundError, match="best.pt: it is being trained"):
            find_checkpoint("base", "best")


def test_another_checkpoint_than_the_flag_says_is_refused(here):
    make_run("experiments/base")

    with pytest.raises(UserError, match="give experiments/base and --checkpoint last"):
        find_checkpoint("experiments/base/last.pt", "best")

    assert find_checkpoint("experiments/base/last.pt", "last") == Path("experiments/base/last.pt")


def test_what_a_test_alone_has_left_is_a_run(here):
    assert is_run(make_run("base", "visualizations/metrics.json"))
    assert not is_run(make_run("other", "visualizations/notes.txt"))


def test_going_on_elsewhere_changes_the_folder(here, tmp_path):
    run = make_run(tmp_path / "my project" / "experiments" / "base")

    command = shlex.split(command_to_resume(run))

    assert command[:3] == ["cd", str(tmp_path / "my project"), "&&"]
    assert command[-3:] == ["--experiment_name", "base", "--resume"]
    assert Path(command[4]).is_absolute()


@pytest.mark.parametrize(
    "name, message",
    (
        ("", "must be a plain name"),
        (".", "must be a plain name"),
        ("..", "must be a plain name"),
        ("../up", "must be a plain name"),
        ("a/b", "must be a plain name"),
        ("/tmp/a", "must be a plain name"),
        ("a/", "must be a plain name"),
        ("experiments/base", "without the folder: give --experiment_name base"),
        ("/home/me/experiments/-x/", "without the folder: give --experiment_name=-x"),
    ),
)
def test_a_path_is_no_name(here, name, message):
    with pytest.raises(UserError, match=message):
        check_plain_name(name)


@pytest.mark.parametrize(
    "name, message",
    (
        ("a:b", "has a :, which Windows"),
        ("a\\b", r"has a \\, which Windows"),
        ("what?", r"has a \?, which Windows"),
        ("a\nb", "has a character that cannot be shown"),
        ("a\tb", "has a character that cannot be shown"),
        ("a\udcff", "has a character that cannot be shown"),
        (" a", "begins or ends with a space"),
        ("a ", "begins or ends with a space"),
        ("a.", "ends with a dot"),
        ("CON", "is the name of a device on Windows"),
        ("nul.v2", "is the name of a device on Windows"),
        ("Com1", "is the name of a device on Windows"),
        ("a" * 300, "has more than 200 bytes"),
        ("图" * 80, "has more than 200 bytes"),
    ),
)
def test_a_name_that_some_system_refuses_is_refused(here, name, message):
    with pytest.raises(UserError, match=message) as problem:
        check_new_name(name)

    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    "name",
    (
        "resnet18",
        "two words",
        "图像 质量",
        "-x",
        "$a 'b'",
        "über",
        "a.b",
        "console",
        "com10",
        "x" * 200,
    ),
)
def test_other_names_are_taken(here, name):
    check_plain_name(name)
    check_new_name(name)


@pytest.mark.parametrize("name, other", (("base", "Base"), (f"caf{NFC}", f"caf{NFD}")))
def test_a_name_that_is_anothers_elsewhere_is_refused(here, name, other):
    make_run(f"experiments/{other}")

    with pytest.raises(UserError, match="which on Windows and macOS is the same folder"):
        check_new_name(name)


def test_the_name_of_an_old_run_passes(here):
    make_run("experiments/Base")
    make_run("experiments/base")
    make_run("experiments/a:b")

    check_new_name("base")
    check_new_name("a:b")


@pytest.mark.parametrize(
    "make, message",
    (
        (make_file, "experiments is a file, where the folder of all runs belongs"),
        (make_broken_link, "experiments is a link to nowhere, which is not there"),
    ),
)
def test_experiments_must_be_a_folder(here, make, message):
    make(here / "experiments")

    with pytest.raises(UserError, match=message):
        check_experiments_folder()
