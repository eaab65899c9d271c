"""A run's folder: what may be replaced, when and by whom, its log and last checkpoint, and what was measured of it."""

import copy
import itertools
import json
import math
import os
import shutil
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from evaluation.report import METRICS
from utils import distributed
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.errors import Damaged, UserError
from utils.files import (
    append_line,
    read_json,
    read_lines,
    try_lock,
    with_nan,
    write_atomically,
    write_json,
)

# config.json is the first to be removed and written: without it the rest is no run that could be resumed.
RUN_FILES = ("config.json", "log.jsonl", "last.pt", "last.prev.pt", "best.pt")


def refuse_to_mix(folder):
    """Raise UserError where the folder holds a run, whole or in part."""
    if any((folder / name).exists() for name in RUN_FILES):
        raise UserError(
            f"{folder} holds a run already; --resume goes on with it, --overwrite replaces it, "
            "another --experiment_name leaves it alone"
        )


@contextmanager
def locked(folder):
    """Keep other runs from training into the folder. Yields the lock, an open file; it dies with its process. Of several
    processes the first holds it for all."""
    with ExitStack() as stack:
        lock = None
        with distributed.first_before_others():
            if distributed.is_first():
                folder.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context(open(folder / "lock", "a"))
                if not try_lock(lock):
                    raise UserError(
                        f"{folder} is being trained by another process; "
                        "wait for its end, or give another --experiment_name"
                    )
        yield lock


@distributed.by_first
def refuse_if_lost(folder, lock):
    """Raise UserError where the folder was deleted or moved since it was locked, also if another has taken its place."""
    try:
        lost = not os.path.samestat(os.fstat(lock.fileno()), os.stat(folder / "lock"))
    except FileNotFoundError:
        lost = True
    if lost or not (folder / "config.json").exists():
        raise UserError(
            f"{folder} was deleted or moved while its run was under way, which stops here"
        )


def has_begun(folder):
    """Whether there is a checkpoint to go on from. Without one, a run that is no further begins again."""
    if any((folder / name).is_file() for name in ("last.pt", "last.prev.pt")):
        return True
    if len(read_log(folder)) > 1 or (folder / "visualizations").exists():
        raise UserError(f"{folder} has no last.pt to go on from; --overwrite starts the run anew")
    return False


@distributed.by_first
def start(folder, config, resume=False):
    """Leave config.json alone in the folder; files that are not a run's stay. With resume it is there all the time, so
    that a run that is killed in here can be resumed again."""
    for name in RUN_FILES[1:] if resume else RUN_FILES:
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "visualizations", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    remove_temporary(folder)
    write_json(folder / "config.json", config)


def remove_temporary(folder):
    """Half-written files that a kill has left."""
    for name in RUN_FILES:
        (folder / f"{name}.tmp").unlink(missing_ok=True)


class Saver:
    """Writes a run's checkpoints after an epoch, but not until `interval` seconds have passed since it last did:
    of short epochs they would take a good part of the time. A best.pt waits in memory until last.pt is written too. It
    goes first: a kill between the two leaves a best.pt of an epoch that is trained again."""

    def __init__(self, folder, interval):
        self._folder, self._interval, self._saved, self._best = folder, interval, -math.inf, None

    @distributed.by_first
    def keep(self, tested, trained, best, final):
        """After an epoch: what best.pt and last.pt hold, what last.pt holds besides, and whether this epoch is the best
        so far, or the final one, which does not wait."""
        due = final or time.monotonic() >= self._saved + self._interval
        if best:
            self._best = tested if due else copy.deepcopy(tested)
        if not due:
            return
        if self._best:
            _write(self._folder, "best", self._best)
        _write(self._folder, "last", {**tested, **trained})
        self._saved, self._best = time.monotonic(), None


@distributed.by_first
def save(folder, name, state):
    """Write best.pt or last.pt; the last.pt before it becomes last.prev.pt."""
    _write(folder, name, state)


def _write(folder, name, state):
    save_checkpoint(
        folder / f"{name}.pt", state, folder / "last.prev.pt" if name == "last" else None
    )


def load_last(folder):
    """What last.pt holds. Where it is damaged or missing, what last.prev.pt holds, which then takes its place."""
    problems = []
    for path in (folder / "last.pt", folder / "last.prev.pt"):
        try:
            state = load_checkpoint(path)
        except Damaged:
            problems.append(f"{path} is damaged")
        except FileNotFoundError:
            problems.append(f"{path} does not exist")
        else:
            if problems:
                print(
                    f"warning: {problems[0]}; going on from {path.name}, epoch {state['epoch'] + 1}",
                    flush=True,
                )
                os.replace(path, folder / "last.pt")
            return state
    raise UserError(f"{'; '.join(problems)}; --overwrite starts the run anew")


@distributed.by_first
def append_log(folder, line):
    append_line(folder / "log.jsonl", line)


def read_log(folder):
    """The lines of a run's log as dicts."""
    folder = Path(folder)
    resume = f"python train_with_distortions.py --experiment_name {folder.name} --resume"
    return read_lines(
        folder / "log.jsonl", f"the run's last.pt has it whole, and puts it back: {resume}"
    )


@distributed.by_first
def put_back_log(folder, lines):
    """Make the log what these lines were, whatever a kill, a full disk or an editor left."""
    path, text = folder / "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode()
    found = path.read_bytes() if path.exists() else b""
    if found != text:
        later = found[len(text) :].count(b"\n") if found.startswith(text) else 0
        again = (
            f"going on from {folder / 'last.pt'}, epoch {len(lines)}; epochs trained again: {later}"
        )
        print(
            again if later else f"{path} was not as last.pt has it: put back, {len(lines)} epochs",
            flush=True,
        )
        write_atomically(path, lambda file: file.write(text))


def read_metrics(folder):
    """What test_with_viz.py measured of a run, nan where it could not be computed."""
    folder = Path(folder)
    path, test = (
        folder / "visualizations" / "metrics.json",
        f"python test_with_viz.py --experiment {folder}",
    )
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; run: {test}")
    return with_nan(read_json(path, f"test the run again: {test}", METRICS))


def changes_at_refits(folder):
    """{epoch of a refit: the change of validation SRCC from the epoch before it}."""
    changes = changes_of_srcc(folder)
    return {line["epoch"]: changes[line["epoch"]] for line in read_log(folder) if line["refit"]}


def changes_of_srcc(folder):
    """{epoch: the change of validation SRCC from the epoch before it}."""
    log = with_nan(read_log(folder))
    return {
        after["epoch"]: after["srcc"] - before["srcc"] for before, after in itertools.pairwise(log)
    }
