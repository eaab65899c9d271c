"""Scripts in processes of their own, as users run them."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.preloaded import ROOT, preloaded


def run_preloaded(path, flags, folder):
    """Run a script of the project in a folder, its slow imports behind it: (exit status, stdout, stderr)."""
    with TemporaryDirectory() as written:
        outputs = [Path(written, name) for name in ("stdout", "stderr")]
        for output in outputs:
            output.touch()
        args = str(path), [*map(str, flags)], str(folder), outputs, dict(os.environ)
        child = preloaded().Process(target=_run, args=args)
        child.start()
        child.join()
        return child.exitcode, *(output.read_text() for output in outputs)


def run_afresh(path, flags, folder):
    """The same in a process that shares nothing with another: imports, hash seed, addresses."""
    target = [path] if str(path).endswith(".py") else ["-m", path]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *target, *flags],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


def _run(path, flags, folder, outputs, environment):
    for stream, output in enumerate(outputs, start=1):
        os.dup2(os.open(output, os.O_WRONLY), stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [path, *flags]
    installed = (entry for entry in sys.path if ROOT not in (Path(entry), Path(entry).parent))
    sys.path[:] = [str(ROOT if not path.endswith(".py") else Path(path).parent), *installed]
    if path.endswith(".py"):
        runpy.run_path(path, run_name="__main__")
    else:
        runpy.run_module(path, run_name="__main__", alter_sys=True)
