"""Processes that begin with the slow imports behind them: torch alone takes seconds."""

import multiprocessing
import os
import sys
from multiprocessing import forkserver
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent
LATE_IMPORTS = (
    "scipy.optimize",
    "scipy.stats",
    "sklearn.metrics",
    "sklearn.mixture",
)  # which wait for their first use
SCRIPTS = "train_with_distortions", "test_with_viz"


def preloaded():
    """A context of multiprocessing whose processes are forked from a server that has imported all that training and
    testing need. They have the environment of the first call, and PYTHONPATH and PYTHONSAFEPATH by which the server
    finds the project's modules and none of the folder where the user is. Where forking is not safe, or not there, they
    import for themselves."""
    if sys.platform in ("darwin", "win32"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [*SCRIPTS, *LATE_IMPORTS, "torchvision.models", "torch._dynamo", "evaluation.plots"]
    )
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(paths), PYTHONSAFEPATH="1"):
        forkserver.ensure_running()
    return context
