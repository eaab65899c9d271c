"""Files that are written whole or not at all, and JSON in them."""

import errno
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from utils.errors import Damaged


def write_atomically(
    path: str | Path, write: Callable[[IO[bytes]], Any], previous: str | Path | None = None
) -> None:
    """Call write(file) on a temporary neighbour of the path, then put it in the path's place.

    What was there is kept as `previous`, where one is named. A disk that fails leaves what was
    there.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with errors_name_file(path):
            with open(temporary, "wb") as file:
                write(file)
                fsync(file)
            if previous is not None and path.exists():
                os.replace(path, previous)  # a kill after this line leaves the previous file, whole
            os.replace(temporary, path)
            fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def append_line(path: str | Path, value: dict[str, Any]) -> None:
    """Append a dict as a line of JSON."""
    with errors_name_file(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(nan_to_null(value)) + "\n")
        fsync(file)


def try_lock(file: IO) -> bool:
    """Tell whether this process holds the lock of an open file now.

    It does not while another process does, which lets go when it ends, even killed. Where files
    cannot be locked, all hold it.
    """
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
def errors_name_file(path: str | Path) -> Iterator[None]:
    """Add the file's name to an OSError in here. The system does not tell it of a full disk."""
    try:
        yield
    except OSError as problem:
        raise OSError(problem.errno, problem.strerror, str(path)) from problem


def fsync(file: IO) -> None:
    """Make sure that what was written outlasts a loss of power."""
    file.flush()
    os.fsync(file.fileno())


def fsync_folder(folder: str | Path) -> None:
    """Make sure that new names in the folder outlast a loss of power."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as problem:
        # Some network file systems sync no folders.
        if problem.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write_json(path: str | Path, value: Any) -> None:
    """Write indented JSON with a closing newline."""
    text = json.dumps(nan_to_null(value), indent=2) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def read_json(path: str | Path, way_out: str, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Read the dict in a JSON file.

    Raises Damaged, with the way out, where there is none, or where it lacks one of the keys.
    """
    try:
        value = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as problem:  # of the text's encoding, or of its JSON
        raise Damaged(f"{path} is damaged ({problem}); {way_out}") from problem
    if not isinstance(value, dict):
        raise Damaged(f"{path} is damaged (no dict of values); {way_out}")
    for key in keys:
        if key not in value:
            raise Damaged(f"{path} has no {key!r}, so another version wrote it; {way_out}")
    return value


def read_lines(path: str | Path, way_out: str) -> list[dict[str, Any]]:
    """Read the dicts in a file that holds a JSON value a line.

    A last line that was cut short is left out, and a missing file has no lines.
    """
    path = Path(path)
    if not path.exists():
        return []
    values = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            continue
        damaged = f"{path} is damaged in line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as problem:
            raise Damaged(f"{damaged} ({problem}); {way_out}") from problem
        if not isinstance(value, dict):
            raise Damaged(f"{damaged} (no dict of values); {way_out}")
        values.append(value)
    return values


def nan_to_null(value: Any) -> Any:
    """Return the value with None for nan, which JSON does not have."""
    if isinstance(value, dict):
        return {key: nan_to_null(item) for key, item in value.items()}
    if isinstance(value, list):
        return [nan_to_null(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def null_to_nan(value: Any) -> Any:
    """Return the value with nan for None, as it was before nan_to_null."""
    if isinstance(value, dict):
        return {key: null_to_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [null_to_nan(item) for item in value]
    return math.nan if value is None else value
