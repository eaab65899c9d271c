"""Tell whether the source of the distortions has changed since this Python process read it.

In a notebook, `%run script.py` keeps modules of an earlier run. A distortion that was pasted into
its file since then is unknown to it, and an edited one still does what it did.
"""

import ast
import hashlib
from collections.abc import Callable
from pathlib import Path

from distortions.guard import code_of

FOLDER = Path(__file__).resolve().parent
RESTART = (
    "restart Python (in a notebook: restart the kernel, or run the script with ! in place of %run)"
)


def _digest(path: Path) -> str:
    """Return the hash of a file, or "" if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


# This module is imported before the others of its folder are.
_digests = {path: _digest(path) for path in sorted(FOLDER.glob("*.py"))}


def note_reading(function: Callable) -> None:
    """Note that Python has just read this function's file, if it is one of the folder's."""
    code = code_of(function)
    path = Path(code.co_filename if code else "").resolve()
    if path in _digests:
        _digests[path] = _digest(path)


def stale_sources() -> list[str]:
    """List the files of distortions/ that have changed since this Python process read them."""
    return [_name(path) for path in _digests if _is_stale(path)]


def stale_warning() -> str:
    """Say that an old version of some files is in use, and what to do; "" if none is."""
    names = " and ".join(stale_sources())
    if not names:
        return ""
    verb = "have" if " and " in names else "has"
    return f"{names} {verb} changed since this Python process read it; {RESTART}"


def explain_absence(name: str) -> str:
    """Say why a function that stands in distortions/ is not registered; "" if that is not known."""
    for path in _digests:
        definition = _find_definition(path, name)
        if definition is None:
            continue
        is_decorated = any(
            ast.unparse(decorator).startswith("distortion(")
            for decorator in definition.decorator_list
        )
        if is_decorated and _is_stale(path):
            return f"{_name(path)} has changed since this Python process read it; {RESTART}"
        if path.name == "extra.py" and not is_decorated:
            place = f"{_name(path)}, line {definition.lineno}"
            return f"put @distortion(worst_quality=…) above `def {name}` ({place})"
    return ""


def _find_definition(path, name):
    """Return the function of this name at the top level of a file, or None."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    return None


def _is_stale(path):
    """Tell whether a file differs from what was read; one that was deleted does not count."""
    digest = _digest(path)
    return digest not in ("", _digests[path])


def _name(path):
    return f"{path.parent.name}/{path.name}"
