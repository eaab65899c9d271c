"""What tests share: images that are distorted, and scripts in processes of their own."""

import multiprocessing
import os
import runpy
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from distortions.apply import distort_alike
from references.photos import PHOTOS, load_photo
from utils.rng import fold_in

ROOT = Path(__file__).resolve().parent.parent
# Modules that scripts import when they first need them. Torch alone takes seconds.
LATE_IMPORTS = (
    "evaluation.plots",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.metrics",
    "sklearn.mixture",
    "torch._dynamo",
    "torchvision.models",
)
SCRIPTS = ("train_with_distortions", "test_with_viz")


def distort_all(name, images, level, direction=1, keys=None):
    """Distort all images (B, H, W, 3) by one type; level is a number, or one for each image."""
    if keys is None:
        keys = fold_in(7, torch.arange(len(images)))
    return distort_alike(images, name, level, direction, keys)


def photo_pieces(height, width):
    """Return (21, height, width, 3) uint8, from three places in each bundled photograph."""
    pieces = []
    for i in range(len(PHOTOS)):
        for x, y in ((0, 0), (40, 60), (101, 33)):
            pieces.append(np.array(load_photo(i).crop((x, y, x + width, y + height))))
    return torch.from_numpy(np.stack(pieces))


def write_images(folder, count, size=(40, 36), start=0):
    """Write noise of its own to each of 000.png, 001.png, … of this width and height."""
    folder.mkdir(parents=True, exist_ok=True)
    width, height = size
    for i in range(start, start + count):
        pixels = np.random.default_rng(i).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")


def run_script(target, flags, folder):
    """Run a script's path, or a module's name, in a folder: (exit status, stdout, stderr).

    Its process is forked from a server that has the slow imports behind it.
    """
    with TemporaryDirectory() as written:
        outputs = [Path(written, name) for name in ("stdout", "stderr")]
        for output in outputs:
            output.touch()
        arguments = (str(target), [*map(str, flags)], str(folder), outputs, dict(os.environ))
        child = preloaded_context().Process(target=_run_in_child, args=arguments)
        child.start()
        child.join()
        return child.exitcode, *(output.read_text() for output in outputs)


def run_afresh(target, flags, folder):
    """Do the same in a process that shares nothing with another: imports, hash seed, addresses."""
    command = [target] if str(target).endswith(".py") else ["-m", target]
    done = subprocess.run(
        [sys.executable, *command, *flags],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


def preloaded_context():
    """Return a multiprocessing context whose processes are forked from a preloaded server.

    They have the environment of the first call. PYTHONPATH and PYTHONSAFEPATH let the server find
    the project's modules, and none of the folder where the user is. Where forking is not safe, or
    not there, processes import for themselves.
    """
    if sys.platform in ("darwin", "win32"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*SCRIPTS, *LATE_IMPORTS])
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(paths), PYTHONSAFEPATH="1"):
        forkserver.ensure_running()
    return context


def _run_in_child(target, flags, folder, outputs, environment):
    for stream, output in enumerate(outputs, start=1):
        os.dup2(os.open(output, os.O_WRONLY), stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [target, *flags]
    is_path = target.endswith(".py")
    own_folder = Path(target).parent if is_path else ROOT
    # As Python does when it starts a script: its folder comes first, the project's does not.
    others = [entry for entry in sys.path if ROOT not in (Path(entry), Path(entry).parent)]
    sys.path[:] = [str(own_folder), *others]
    if is_path:
        runpy.run_path(target, run_name="__main__")
    else:
        runpy.run_module(target, run_name="__main__", alter_sys=True)
