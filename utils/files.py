"""Write files completely or not at all, and read and write JSON."""

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
    """Call write(file) for a temporary file beside the path, then rename it to the path.

    With `previous`, the file that was at the path is kept under that name. If the disk fails, the
    path keeps its old file.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with errors_name_file(path):
            with open(temporary, "wb") as file:
                write(file)
                fsync(file)
            if previous is not None and path.exists():
                os.replace(path, previous)  # if killed after this, the previous file is complete
            os.replace(temporary, path)
            fsync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def append_line(path: str | Path, value: dict[str, Any]) -> None:
    """Append a dict to a file as one line of JSON."""
    with errors_name_file(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(nan_to_null(value)) + "\n")
        fsync(file)


def try_lock(file: IO) -> bool:
    """Try to lock an open file, and return False if another process holds the lock.

    The system releases a lock when its process ends, even if it is killed. Where the file system
    has no locks, this prints a warning and returns True; on Windows it always returns True.
    """
    if os.name != "posix":
        return True
    import fcntl  # does not exist on Windows

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as problem:
        print(f"warning: {file.name} cannot be locked against other processes ({problem.strerror})")
    return True


@contextmanager
def errors_name_file(path: str | Path) -> Iterator[None]:
    """Add the file's name to an OSError, which for a full disk does not hold it."""
    try:
        yield
    except OSError as problem:
        raise OSError(problem.errno, problem.strerror, str(path)) from problem


def fsync(file: IO) -> None:
    """Make sure that what was written survives a loss of power."""
    file.flush()
    os.fsync(file.fileno())


def fsync_folder(folder: str | Path) -> None:
    """Make sure that new names in the folder survive a loss of power."""
    if os.name != "posix":  # Windows cannot open a folder
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as problem:
        # Some network file systems cannot do this for folders.
        if problem.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as indented JSON, with a newline at the end."""
    text = json.dumps(nan_to_null(value), indent=2) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def read_json(path: str | Path, way_out: str, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Read the dict in a JSON file.

    Raises Damaged if the file holds no dict, or one without some of these keys. The message ends
    with way_out, which says what the user can do.
    """
    try:
        value = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as problem:  # not UTF-8, or not JSON
        raise Damaged(f"{path} is damaged ({problem}); {way_out}") from problem
    if not isinstance(value, dict):
        raise Damaged(f"{path} is damaged (no dict of values); {way_out}")
    for key in keys:
        if key not in value:
            raise Damaged(f"{path} has no {key!r}, so another version wrote it; {way_out}")
    return value


def read_lines(path: str | Path, way_out: str) -> list[dict[str, Any]]:
    """Read a file that holds one JSON dict a line.

    A last line that was cut short is left out, and a missing file gives an empty list. Raises
    Damaged, with way_out in its message, for any other line that holds no dict.
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
    """Replace nan by None in dicts and lists, because JSON has no nan."""
    if isinstance(value, dict):
        return {key: nan_to_null(item) for key, item in value.items()}
    if isinstance(value, list):
        return [nan_to_null(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def null_to_nan(value: Any) -> Any:
    """Replace None by nan in dicts and lists, to undo nan_to_null."""
    if isinstance(value, dict):
        return {key: null_to_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [null_to_nan(item) for item in value]
    return math.nan if value is None else value
