"""Explain in one line what stops a script while it imports. This module itself imports little."""

import builtins
import os
import sys
from types import TracebackType

TRY_AGAIN = "give the same command again"
PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REQUIREMENTS = ("cv2", "matplotlib", "numpy", "PIL", "scipy", "sklearn", "torch", "torchvision")
# What the message says where two installed packages were built for different versions of numpy.
NUMPY_MISMATCH = ("may indicate binary incompat", "compiled using NumPy", "numpy.core.multiarray")


def explain_import_errors() -> None:
    """End with one line where one of the imports that follow fails, or Ctrl-C interrupts it."""
    if not hasattr(builtins, "__IPYTHON__"):  # a notebook shows exceptions by itself
        sys.excepthook = print_import_error


def print_import_error(
    kind: type[BaseException], problem: BaseException, traceback: TracebackType | None
) -> None:
    """Print one line on stderr, after the traceback where --debug asks for it."""
    if issubclass(kind, KeyboardInterrupt):
        print(f"\ninterrupted; to go on: {TRY_AGAIN}", file=sys.stderr)
        return
    if "--debug" in sys.argv:
        sys.__excepthook__(kind, problem, traceback)
    print(f"error: {explain(problem)}", file=sys.stderr)


def explain(problem: BaseException) -> str:
    """Return in one line what failed in an import, what mends it, and where the traceback is."""
    from utils.errors import UserError

    if isinstance(problem, UserError):
        return str(problem)
    return f"{_explain_cause(problem)}; {keep_traceback(problem)}"


def keep_traceback(problem: BaseException) -> str:
    """Write an exception's traceback to a file, and return the words that name it."""
    try:
        # These may be what a file of the user takes the place of.
        import tempfile
        import traceback

        with tempfile.NamedTemporaryFile(
            "w",
            encoding="utf-8",
            errors="backslashreplace",
            prefix="traceback_",
            suffix=".log",
            delete=False,
        ) as file:
            file.writelines(traceback.format_exception(problem))
    except Exception as failure:
        reason = getattr(failure, "strerror", None) or failure
        return f"--debug shows its traceback (no file could be written: {reason})"
    return f"its traceback is in {file.name}, and --debug shows it"


def _explain_cause(problem):
    """Return what failed and what mends it."""
    message = " ".join(str(problem).split())
    name = f"{type(problem).__name__}: {message}"
    frames = _frames(problem)
    impostor = _impostor(frames)
    requirements = _shown(os.path.join(PROJECT, "requirements.txt"))
    if " " in requirements:
        requirements = f'"{requirements}"'
    install = f"pip install -r {requirements}"
    if impostor:
        path, module = impostor
        return f"{name}; {path} takes the place of the module {module!r}: rename it"
    if isinstance(problem, SyntaxError) and problem.filename:
        place = f"{_shown(problem.filename)}, line {problem.lineno}"
        return f"{type(problem).__name__} in {place}: {problem.msg}"
    if any(words in message for words in NUMPY_MISMATCH):
        return f"{name}; packages do not fit each other: {install}, in a new environment"
    if isinstance(problem, ImportError) and "cannot open shared object file" in message:
        if any(f"{os.sep}cv2{os.sep}" in path for path, _ in frames):
            return (
                f"{name}; pip uninstall -y opencv-python, then "
                "pip install --force-reinstall opencv-python-headless"
            )
        return f"{name}; install that library of the system, or the package that needs it anew"
    if isinstance(problem, ModuleNotFoundError) and not _is_own(problem.name):
        return f"{name}; install what requirements.txt lists: {install}"
    if isinstance(problem, Warning):
        return f"{name}; -W or PYTHONWARNINGS made this warning an error: leave that out"
    own_frames = [(path, line) for path, line in frames if path.startswith(PROJECT + os.sep)]
    if own_frames:
        path, line = own_frames[-1]
        return f"{name}, in {_shown(path)}, line {line}"
    return name


def _frames(problem):
    """List (path, line) of an exception's traceback, the place where it was raised last."""
    frames = []
    traceback = problem.__traceback__
    while traceback is not None:
        frames.append((traceback.tb_frame.f_code.co_filename, traceback.tb_lineno))
        traceback = traceback.tb_next
    return frames


def _impostor(frames):
    """Return (path, name) of a user's file that was imported in place of a module, if any was."""
    paths = [path for path, _ in frames]
    paths += [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
    folders = (os.getcwd(), PROJECT)
    for path in paths:
        name, ending = os.path.splitext(os.path.basename(path))
        is_beside = os.path.dirname(os.path.abspath(path)) in folders and ending == ".py"
        if path and is_beside and (name in sys.stdlib_module_names or name in REQUIREMENTS):
            return _shown(path), name
    return None


def _is_own(name):
    """Tell whether a module's name begins with that of a package or script of the project."""
    first = (name or "").split(".")[0]
    path = os.path.join(PROJECT, first)
    return bool(first) and (os.path.isdir(path) or os.path.isfile(path + ".py"))


def _shown(path):
    """Return a path as seen from the present folder, where it lies below it."""
    here = os.getcwd() + os.sep
    return path[len(here) :] if path.startswith(here) else path
