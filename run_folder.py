"""A run's folder: what may be replaced, when, its log, and what was measured of it."""

import itertools
import json
import shutil
from pathlib import Path

from errors import UserError
from models.checkpoint import with_nan, without_nan, write_atomically, write_json

# config.json is the first to be removed and written: without it the rest is no run that could be resumed.
RUN_FILES = ("config.json", "log.jsonl", "last.pt", "best.pt")


def refuse_to_mix(folder):
    """Raise UserError where the folder holds a run, whole or in part."""
    if any((folder / name).exists() for name in RUN_FILES):
        raise UserError(
            f"{folder} holds a run already; --resume goes on with it, --overwrite replaces it, "
            "another --experiment_name leaves it alone"
        )


def has_begun(folder):
    """Whether there is a checkpoint to go on from. Without one, a run that is no further begins again."""
    if (folder / "last.pt").is_file():
        return True
    if len(read_log(folder)) > 1 or (folder / "visualizations").exists():
        raise UserError(f"{folder} has no last.pt to go on from; --overwrite starts the run anew")
    return False


def start(folder, config):
    """Leave config.json alone in the folder; files that are not a run's stay."""
    for name in RUN_FILES:
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "visualizations", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)


def append_log(folder, line):
    """Add a dict as a line of JSON."""
    with open(folder / "log.jsonl", "a") as log:
        log.write(json.dumps(without_nan(line)) + "\n")


def read_log(folder):
    return read_lines(folder / "log.jsonl")


def read_lines(path):
    """The lines of a log as dicts; a last line that was cut short is left out, and a missing file has none."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def trim_log(folder, epochs):
    """Drop what was logged after the checkpoint, a half line too; those epochs will run again."""
    path = folder / "log.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    if len(lines) < epochs:
        raise UserError(f"{path} has {len(lines)} lines for {epochs} epochs, so the run cannot go on; start a new one")
    if len(lines) > epochs:
        write_atomically(path, lambda file: file.writelines(lines[:epochs]))


def read_metrics(folder):
    """What test_with_viz.py measured of a run, nan where it could not be computed."""
    folder = Path(folder)
    path = folder / "visualizations" / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; run: python test_with_viz.py --experiment {folder}")
    return with_nan(json.loads(path.read_text()))


def changes_at_refits(folder):
    """{epoch of a refit: the change of validation SRCC from the epoch before it}."""
    changes = changes_of_srcc(folder)
    return {line["epoch"]: changes[line["epoch"]] for line in read_log(Path(folder)) if line["refit"]}


def changes_of_srcc(folder):
    """{epoch: the change of validation SRCC from the epoch before it}."""
    log = with_nan(read_log(Path(folder)))
    return {after["epoch"]: after["srcc"] - before["srcc"] for before, after in itertools.pairwise(log)}
