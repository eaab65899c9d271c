"""Scripts in processes of their own, as users run them, but with the slow imports behind them: torch alone takes seconds."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from preloaded import preloaded  # noqa: E402


def run_script(path, flags, folder):
    """Run a script of the project in a folder: (exit status, stdout, stderr)."""
    with TemporaryDirectory() as said:
        outputs = [Path(said, name) for name in ("stdout", "stderr")]
        child = preloaded().Process(target=_run, args=(str(path), [*map(str, flags)], str(folder), outputs))
        child.start()
        child.join()
        return child.exitcode, *(path.read_text() for path in outputs)


def run_script_of_a_copy(path, flags, folder):
    """The same, with imports from the script's folder and all of them yet to come."""
    done = subprocess.run([sys.executable, path, *flags], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def _run(path, flags, folder, outputs):
    for stream, output in enumerate(outputs, start=1):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT), stream)
    os.chdir(folder)
    sys.argv = [path, *flags]
    sys.path.insert(0, str(Path(path).parent))
    runpy.run_path(path, run_name="__main__")
