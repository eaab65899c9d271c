"""A run's folder behind one door: its lock, its log, and its checkpoints.

with open_run(folder, config, digests, resume, overwrite, save_interval) as run:
    run.restore(state)
    for epoch in range(run.epochs_done, epochs):
        ...
        run.log(line)
        run.save(state, is_best=..., is_last=...)
"""

import copy
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from evaluation.results import read_log
from training.config import INFORMATIVE, PLACES
from training.loop import TrainingState
from utils.checkpoint import load_checkpoint, load_states, save_checkpoint
from utils.distributed import is_main_process, main_process_first, on_main_process
from utils.errors import Damaged, UserError
from utils.files import append_line, nan_to_null, read_json, try_lock, write_atomically, write_json
from utils.runs import RUN_FILES


def ensure_new_run(folder: Path) -> None:
    """Raise UserError where the folder holds a run, whole or in part."""
    if any((folder / name).exists() for name in RUN_FILES):
        raise UserError(
            f"{folder} holds a run already; --resume goes on with it, --overwrite replaces it, "
            "another --experiment_name leaves it alone"
        )


def has_checkpoint(folder: Path) -> bool:
    """Tell whether there is a checkpoint to go on from.

    A run that stopped before its first checkpoint has none, and begins again. Raises UserError
    where its log or its figures show that it got further.
    """
    if any((folder / name).is_file() for name in ("last.pt", "last.prev.pt")):
        return True
    if len(read_log(folder)) > 1 or (folder / "visualizations").exists():
        raise UserError(f"{folder} has no last.pt to go on from; --overwrite starts the run anew")
    return False


@contextmanager
def open_run(
    folder: Path,
    config: dict[str, Any],
    reference_digests: tuple[str, ...],
    *,
    resume: bool,
    overwrite: bool,
    save_interval: float,
) -> Iterator["OpenRun"]:
    """Hold the folder's lock, and begin a run in it or go on with one.

    config is what config.json holds, or has to hold. A checkpoint is written after an epoch that
    ends save_interval seconds or more after the one before.
    """
    with _lock_folder(folder) as lock:
        if not (resume or overwrite):
            ensure_new_run(folder)  # another process may have begun it since it was asked first
        run = OpenRun(folder, config, reference_digests, lock, save_interval)
        if resume and has_checkpoint(folder):
            run.resumed = load_last(folder, config)
            _note_moved_references(folder, config)
        else:
            create_run(folder, config, resume)
        yield run


class OpenRun:
    """A run's folder while it is locked. `lines` are the log's, a dict for each epoch."""

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        reference_digests: tuple[str, ...],
        lock: IO | None,
        save_interval: float,
    ):
        self.folder = folder
        self.config = config
        self.reference_digests = reference_digests
        self.resumed: dict[str, Any] | None = None  # the checkpoint that the run goes on from
        self.lines: list[dict[str, Any]] = []
        self._lock = lock
        self._save_interval = save_interval
        self._saved_at = -math.inf
        self._pending_best: dict[str, Any] | None = None

    @property
    def epochs_done(self) -> int:
        """How many epochs the log holds."""
        return len(self.lines)

    def restore(self, state: TrainingState) -> None:
        """Put a resumed run's state and log back, as its last checkpoint has them."""
        if self.resumed is None:
            return
        path = self.folder / "last.pt"
        load_states(state.parts(), self.resumed.get("training", {}), path)
        load_states({"mixture": state.mixture}, self.resumed, path)
        self.lines = self.resumed["log"]
        restore_log(self.folder, self.lines)
        self.resumed = None  # it is large

    def log(self, line: dict[str, Any]) -> None:
        """Append an epoch's line to log.jsonl."""
        _check_not_lost(self.folder, self._lock)
        _append_to_log(self.folder, line)
        self.lines.append(nan_to_null(line))

    def save(self, state: TrainingState, *, is_best: bool, is_last: bool) -> None:
        """Write the checkpoints after an epoch, unless the last ones are too fresh.

        Checkpoints of short epochs would take a good part of the time. best.pt holds the
        configuration, the digests of references, the epoch, the averaged weights ("model") and the
        mixture; last.pt holds these of the last epoch, and what a run needs to go on: the trained
        weights and the other states ("training"), and the log. A best epoch waits in memory until
        last.pt is written too. best.pt is written first: if the process is killed between the two,
        best.pt is of an epoch that the resumed run trains again.
        """
        kept = {
            "config": self.config,
            "reference_digests": self.reference_digests,
            "epoch": len(self.lines) - 1,
            "finished": False,
            "model": state.ema_model.state_dict(),
            "mixture": state.mixture.state_dict(),
        }
        to_go_on = {
            "training": {name: part.state_dict() for name, part in state.parts().items()},
            "log": self.lines,
        }
        self._save(kept, to_go_on, is_best, is_last)

    @on_main_process
    def _save(self, kept, to_go_on, is_best, is_last):
        is_due = is_last or time.monotonic() >= self._saved_at + self._save_interval
        if is_best:
            self._pending_best = kept if is_due else copy.deepcopy(kept)
        if not is_due:
            return
        if self._pending_best:
            write_checkpoint(self.folder, "best", self._pending_best)
        write_checkpoint(self.folder, "last", {**kept, **to_go_on})
        self._saved_at = time.monotonic()
        self._pending_best = None

    def load(self, name: str) -> dict[str, Any]:
        """Read best.pt or last.pt."""
        _check_not_lost(self.folder, self._lock)
        return load_checkpoint(self.folder / f"{name}.pt")

    @on_main_process
    def replace(self, name: str, checkpoint: dict[str, Any]) -> None:
        """Write best.pt or last.pt anew."""
        write_checkpoint(self.folder, name, checkpoint)


@contextmanager
def _lock_folder(folder):
    """Keep other runs from training into the folder. Yield the lock, an open file.

    The lock ends with its process. Of several processes the main one holds it for all.
    """
    with ExitStack() as stack:
        lock = None
        with main_process_first():
            if is_main_process():
                folder.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context(open(folder / "lock", "a"))
                if not try_lock(lock):
                    raise UserError(
                        f"{folder} is being trained by another process; "
                        "wait for its end, or give another --experiment_name"
                    )
        yield lock


@on_main_process
def _check_not_lost(folder, lock):
    """Raise UserError where the folder was deleted or moved since it was locked.

    It also raises where another folder has taken its place.
    """
    try:
        is_lost = not os.path.samestat(os.fstat(lock.fileno()), os.stat(folder / "lock"))
    except FileNotFoundError:
        is_lost = True
    if is_lost or not (folder / "config.json").exists():
        raise UserError(
            f"{folder} was deleted or moved while its run was under way, which stops here"
        )


@on_main_process
def create_run(folder: Path, config: dict[str, Any], resume: bool = False) -> None:
    """Remove an earlier run's files and write config.json. Other files in the folder stay.

    With resume it is there all the time, so that a run that is killed in here can be resumed again.
    """
    for name in RUN_FILES[1:] if resume else RUN_FILES:
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "visualizations", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    remove_temporary(folder)
    write_json(folder / "config.json", config)


def remove_temporary(folder: Path) -> None:
    """Remove half-written files that a kill has left."""
    for name in RUN_FILES:
        (folder / f"{name}.tmp").unlink(missing_ok=True)


def write_checkpoint(folder: Path, name: str, checkpoint: dict[str, Any]) -> None:
    """Write best.pt or last.pt. The last.pt before it becomes last.prev.pt."""
    previous = folder / "last.prev.pt" if name == "last" else None
    save_checkpoint(folder / f"{name}.pt", checkpoint, previous)


def load_last(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Read the checkpoint that a run goes on from, and raise UserError if it is another run's."""
    with main_process_first():  # it may put last.prev.pt in the place of a damaged last.pt
        if is_main_process():
            remove_temporary(folder)
        saved = _load_last_or_previous(folder)
    if saved["config"]["digest"] != config["digest"]:
        raise UserError(
            f"--resume: the references in {config['references']} are not those that {folder} was "
            "begun with, or the code that draws its images has changed; put them back, or start "
            "a new run"
        )
    for name in config.keys() - set(INFORMATIVE):
        if saved["config"].get(name) != config[name]:
            raise UserError(
                f"--resume: {folder} has {name} {config[name]} in config.json but "
                f"{saved['config'].get(name)} in last.pt; put config.json back, or start the run "
                "anew with --overwrite"
            )
    return saved


@on_main_process
def _note_moved_references(folder, config):
    """Write the references' new place to config.json."""
    saved = read_json(folder / "config.json", "--overwrite starts the run anew")
    places = {name: config[name] for name in PLACES}
    if any(saved.get(name) != place for name, place in places.items()):
        write_json(folder / "config.json", {**saved, **places})


def _load_last_or_previous(folder):
    """Read last.pt. Where it is damaged or missing, last.prev.pt takes its place."""
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
                epoch = state["epoch"] + 1
                print(
                    f"warning: {problems[0]}; going on from {path.name}, epoch {epoch}", flush=True
                )
                os.replace(path, folder / "last.pt")
            return state
    raise UserError(f"{'; '.join(problems)}; --overwrite starts the run anew")


@on_main_process
def _append_to_log(folder, line):
    append_line(folder / "log.jsonl", line)


@on_main_process
def restore_log(folder: Path, lines: list[dict[str, Any]]) -> None:
    """Make the log what these lines were, whatever a kill, a full disk or an editor left."""
    path = folder / "log.jsonl"
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    found = path.read_bytes() if path.exists() else b""
    if found == text:
        return
    later_lines = found[len(text) :].count(b"\n") if found.startswith(text) else 0
    if later_lines:
        print(
            f"going on from {folder / 'last.pt'}, epoch {len(lines)}; "
            f"epochs trained again: {later_lines}",
            flush=True,
        )
    else:
        print(f"{path} was not as last.pt has it: put back, {len(lines)} epochs", flush=True)
    write_atomically(path, lambda file: file.write(text))
