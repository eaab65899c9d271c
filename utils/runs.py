"""Find a run by what a user types, and say which names a run may have."""

import difflib
import os
import unicodedata
from pathlib import Path

from utils.errors import UserError
from utils.files import try_lock
from utils.terminal import flag, quote, script_command

# config.json is the first to be removed and written: without it the rest is no run to resume.
RUN_FILES = ("config.json", "log.jsonl", "last.pt", "last.prev.pt", "best.pt")
EXPERIMENTS = Path("experiments")
PROJECTS_EXPERIMENTS = Path(__file__).resolve().parent.parent / EXPERIMENTS
# What lies in a run's folder, so that its path is taken for that of the run.
_CONTENTS = (*RUN_FILES, "visualizations", "metrics.json", "predictions.csv")
MAX_NAME_BYTES = 200  # file systems take 255, and some that encrypt take less
_RESERVED_CHARACTERS = '<>:"|?*\\'
_DEVICES = ("con", "prn", "aux", "nul", "clock$")


def find_run(text: str | Path, checkpoint: str | None = None) -> Path:
    """Return the folder of the run that a path or a bare name stands for.

    A path is taken as it is typed, or below the project's folder. A bare name may stand for a
    folder here, in experiments/, or in the project's own experiments/. The path of what lies in a
    run's folder stands for the run; with `checkpoint`, it must not be another checkpoint than that.
    Raises FileNotFoundError where there is no run, and UserError where there are two.
    """
    places = _places(str(text), checkpoint)
    runs: list[Path] = []
    for place in places:
        if is_run(place) and not any(place.samefile(run) for run in runs):
            runs.append(place)
    if len(runs) > 1:
        raise UserError(
            f"{str(text)!r} may be {_typed(runs[0])} or {_typed(runs[1])}: give one of these paths"
        )
    if runs:
        return runs[0]
    raise FileNotFoundError(_explain_absence(str(text), places))


def is_run(folder: Path) -> bool:
    """Tell whether a folder holds a run, or a part of one."""
    names = (*RUN_FILES, "visualizations/metrics.json")
    return any((folder / name).exists() for name in names)


def find_checkpoint(text: str | Path, name: str) -> Path:
    """Return the path of a run's best.pt or last.pt.

    Raises FileNotFoundError, whose message says what the run has in its place.
    """
    folder = find_run(text, name)
    path = folder / f"{name}.pt"
    if path.is_file():
        return path
    raise FileNotFoundError(f"{folder} has no {name}.pt{_explain_missing(folder, name)}")


def command_to_test(folder: str | Path) -> str:
    """Return the command that tests a run."""
    return script_command("test_with_viz.py", *flag("--experiment", folder))


def command_to_train(name: str, *flags: str) -> str:
    """Return the command that trains a run of this name."""
    return script_command("train_with_distortions.py", *flag("--experiment_name", name), *flags)


def command_to_resume(folder: Path) -> str:
    """Return the command that goes on with a run, from whichever folder it is to be given."""
    folder = folder.resolve()
    command = command_to_train(folder.name, "--resume")
    if folder.parent.name != EXPERIMENTS.name or folder.parent == EXPERIMENTS.resolve():
        return command
    script = PROJECTS_EXPERIMENTS.with_name("train_with_distortions.py")
    command = quote("python", script, *flag("--experiment_name", folder.name), "--resume")
    return f"{quote('cd', folder.parent.parent)} && {command}"


def all_runs() -> list[Path]:
    """List the folders of the runs in experiments/ here, or else in the project's own."""
    for experiments in (EXPERIMENTS, PROJECTS_EXPERIMENTS):
        runs = [experiments / name for name in _names_in(experiments)]
        runs = [folder for folder in runs if is_run(folder)]
        if runs:
            return runs
    return []


def check_new_name(name: str) -> None:
    """Raise UserError where a folder of this name could not be had on every system.

    It also does where the name differs from that of an earlier run only in case, or in how its
    letters are encoded: such folders are one on Windows and macOS. A name that is there passes.
    """
    if name in _names_in(EXPERIMENTS):
        return
    problem = _problem_of_name(name)
    if problem:
        raise UserError(f"--experiment_name {name!r} {problem}")
    for other in _names_in(EXPERIMENTS):
        if other != name and _folded(other) == _folded(name):
            raise UserError(
                f"--experiment_name {name!r}: there is {other!r} in {EXPERIMENTS} already, which "
                "on Windows and macOS is the same folder; give that name or a more different one"
            )


def check_plain_name(name: str) -> None:
    """Raise UserError where this is no name of a folder in experiments/, but a path or nothing."""
    parts = Path(name).parts
    if len(parts) > 1 and parts[-2] == EXPERIMENTS.name:
        raise UserError(
            f"--experiment_name {name!r} must be a plain name, without the folder: give "
            f"{' '.join(flag('--experiment_name', parts[-1]))}"
        )
    if name in ("", ".", "..") or Path(name).name != name or "\0" in name:
        raise UserError(f"--experiment_name {name!r} must be a plain name, without / or ..")


def check_experiments_folder() -> None:
    """Raise UserError where experiments/ is something else than a folder."""
    if EXPERIMENTS.is_symlink() and not EXPERIMENTS.exists():
        target = os.readlink(EXPERIMENTS)
        raise UserError(
            f"{EXPERIMENTS} is a link to {target}, which is not there; make that folder"
        )
    if EXPERIMENTS.exists() and not EXPERIMENTS.is_dir():
        raise UserError(
            f"{EXPERIMENTS} is a file, where the folder of all runs belongs; move it away"
        )


def _problem_of_name(name):
    """Return what is wrong with a name on some system, or None."""
    for character in name:
        if character in _RESERVED_CHARACTERS:
            return f"has a {character}, which Windows and Google Drive do not take; leave it out"
    # Where the locale is not UTF-8, Python has other characters for the bytes that were typed.
    spelled = name.encode("utf-8", "surrogateescape")
    if not spelled.decode("utf-8", "surrogateescape").isprintable():
        return "has a character that cannot be shown; leave it out"
    if name != name.strip() or name.endswith("."):
        return "begins or ends with a space or ends with a dot, which Windows drops; leave it out"
    stem = name.split(".")[0].rstrip().casefold()
    is_port = len(stem) == 4 and stem[:3] in ("com", "lpt") and stem[3].isdigit()
    if stem in _DEVICES or is_port:
        return "is the name of a device on Windows; give another"
    if len(spelled) > MAX_NAME_BYTES:
        return f"has more than {MAX_NAME_BYTES} bytes; give a shorter one"
    return None


def _places(text, checkpoint):
    """List the folders that a text may stand for."""
    path = _without_contents(_as_path(text), checkpoint)
    is_bare = path.name == str(path) and not text.startswith((f".{os.sep}", "./", ".\\"))
    candidates = [path]
    if is_bare and str(path) not in ("", ".", ".."):
        candidates += [EXPERIMENTS / path, PROJECTS_EXPERIMENTS / path]
    elif path.parts[:1] == (EXPERIMENTS.name,) and not path.exists():
        candidates.append(PROJECTS_EXPERIMENTS.parent / path)
    return [_as_spelled(candidate) for candidate in candidates]


def _as_path(text):
    """Return the path of a text; backslashes separate folders where no folder has them."""
    path = Path(text)
    if "\\" in text and not path.exists():
        return Path(text.replace("\\", "/"))
    return path


def _without_contents(path, checkpoint):
    """Return the run's folder for the path of a file or folder inside it."""
    while path.name in _CONTENTS and path.parent != path and not is_run(path):
        other = checkpoint and path.suffix == ".pt" and path.stem != checkpoint
        if other and path.stem in ("best", "last"):
            raise UserError(
                f"{path} is not the {checkpoint}.pt that --checkpoint {checkpoint} stands for; "
                f"give {path.parent} and --checkpoint {path.stem}"
            )
        path = path.parent
    return path


def _as_spelled(path):
    """Return a path as its folder is spelled on the disk: macOS writes é as two characters."""
    if path.exists() or path.name.isascii():
        return path
    wanted = unicodedata.normalize("NFC", path.name)
    for name in _names_in(path.parent):
        if unicodedata.normalize("NFC", name) == wanted:
            return path.with_name(name)
    return path


def _explain_absence(text, places):
    """Return why there is no run, from what is at the places where it could be."""
    for place in places:
        if place.is_dir():
            return f"{_typed(place)} is no run: {_describe_contents(place)}{_suggestions(text)}"
        if place.exists():
            return f"{_typed(place)} is a file, not a run's folder{_suggestions(text)}"
        if place.is_symlink():
            return f"{_typed(place)} is a link to {os.readlink(place)}, which is not there"
    looked = ", ".join(_typed(place) for place in dict.fromkeys(places))
    return f"no run called {text!r}: looked in {looked}{_suggestions(text)}"


def _describe_contents(folder):
    names = _names_in(folder)
    if not names:
        return "it is empty"
    shown = ", ".join(map(repr, names[:3])) + (", …" if len(names) > 3 else "")
    return f"it holds {shown}, but neither config.json nor a checkpoint"


def _suggestions(text):
    """Return the end of a message: the runs that there are, or how to train one."""
    runs = [folder.name for folder in all_runs()]
    if not runs:
        name = Path(text).name
        name = "my_run" if _problem_of_name(name) or name in ("", "..") else name
        return f"; no run was trained here yet, train one: {command_to_train(name)}"
    by_folded = {_folded(name): name for name in runs}
    close = difflib.get_close_matches(_folded(Path(text).name), by_folded, n=5, cutoff=0.5)
    names = list(dict.fromkeys([*(by_folded[name] for name in close), *runs]))
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"; runs there are: {', '.join(names[:8])}{more}"


def _explain_missing(folder, name):
    """Return the end of a message: what a run without this checkpoint has."""
    other = "last" if name == "best" else "best"
    if (folder / f"{other}.pt").is_file():
        return f", but {other}.pt: --checkpoint {other} takes that"
    if _is_locked(folder):
        return ": it is being trained, and its first checkpoint is not written yet; wait for it"
    if (folder / "config.json").is_file():
        resume = command_to_resume(folder)
        return f": its training ended before its first checkpoint; go on with it: {resume}"
    return f", and no other checkpoint: {_describe_contents(folder)}"


def _is_locked(folder):
    """Tell whether a process trains into a folder now."""
    try:
        with open(folder / "lock", "rb") as lock:
            return not try_lock(lock)
    except OSError:
        return False


def _names_in(folder):
    """List the names in a folder; none where it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _folded(name):
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _typed(path):
    """Return a path as it is typed to be taken as it is: a bare name with ./ before it."""
    return str(path) if len(path.parts) != 1 or path.is_absolute() else f".{os.sep}{path}"
