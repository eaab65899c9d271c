"""Files that are written whole or not at all, and JSON in them."""

import errno
import json
import math
import os
from contextlib import contextmanager
from pathlib import Path

from utils.errors import Damaged


def write_atomically(path, write, previous=None):
    """Call write(file) on a temporary neighbour of path, then put it in path's place. What was there is kept as
    `previous`, where one is named. A disk that fails leaves what was there."""
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with naming(path):
            with open(temporary, "wb") as file:
                write(file)
                sync(file)
            if previous is not None and path.exists():
                os.replace(path, previous)  # a kill after this line leaves the previous file, whole
            os.replace(temporary, path)
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def append_line(path, value):
    """Add a dict as a line of JSON."""
    with naming(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(without_nan(value)) + "\n")
        sync(file)


def try_lock(file):
    """Whether this process holds the lock of an open file now: not while another does, which lets go when it ends, even
    killed. Where files cannot be locked, all hold it."""
    if os.name != "posix":
        return True
    import fcntl  # Windows has none

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as problem:
        print(f"warning: {file.name} cannot be locked against other processes ({problem.strerror})")
    return True


@contextmanager
def naming(path):
    """An OSError inside says which file it was: of a full disk the system does not tell."""
    try:
        yield
    except OSError as problem:
        raise OSError(problem.errno, problem.strerror, str(path)) from problem


def sync(file):
    """What was written outlasts a loss of power."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder):
    """New names in the folder outlast a loss of power."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as problem:
            if problem.errno not in (
                errno.EINVAL,
                errno.ENOTSUP,
            ):  # some network file systems sync no folders
                raise
        finally:
            os.close(descriptor)


def write_json(path, value):
    """Indented JSON with a closing newline."""
    write_atomically(
        path, lambda file: file.write((json.dumps(without_nan(value), indent=2) + "\n").encode())
    )


def read_json(path, way_out, keys=()):
    """The dict in a JSON file. Raises Damaged, with the way out, where there is none, or it lacks one of the keys."""
    try:
        value = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as problem:  # of the text's encoding, or of its JSON
        raise Damaged(f"{path} is damaged ({problem}); {way_out}") from problem
    if not isinstance(value, dict):
        raise Damaged(f"{path} is damaged (no dict of values); {way_out}")
    missing = [key for key in keys if key not in value]
    if missing:
        raise Damaged(f"{path} has no {missing[0]!r}, so another version wrote it; {way_out}")
    return value


def read_lines(path, way_out):
    """The dicts in a file of a JSON value a line; a last line that was cut short is left out, and a missing file has
    none."""
    path, read = Path(path), []
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for number, line in enumerate(lines, 1):
        if line.endswith(b"\n"):
            try:
                read.append(json.loads(line))
            except (ValueError, RecursionError) as problem:
                raise Damaged(
                    f"{path} is damaged in line {number} ({problem}); {way_out}"
                ) from problem
            if not isinstance(read[-1], dict):
                raise Damaged(f"{path} is damaged in line {number} (no dict of values); {way_out}")
    return read


def without_nan(value):
    """JSON has no nan: null stands for a value that could not be computed."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def with_nan(value):
    """What was written with null for nan, as it was."""
    if isinstance(value, dict):
        return {key: with_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_nan(item) for item in value]
    return math.nan if value is None else value
