"""Processes that begin with the slow imports behind them: torch alone takes seconds."""

import multiprocessing
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LATE_IMPORTS = "scipy.optimize", "scipy.stats", "sklearn.metrics", "sklearn.mixture"  # which wait for their first use


def preloaded():
    """A context of multiprocessing whose processes are forked from one that has imported everything."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(ROOT) not in paths:  # of the server that they come from
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, paths)])
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    scripts, slow = ["train_with_distortions", "test_with_viz"], ["torchvision.models", "torch._dynamo", "plots"]
    context.set_forkserver_preload([*scripts, *slow, *LATE_IMPORTS])
    return context
