"""Kill a training run at random moments, resume it, and compare it with a run that is left alone.

    python -m tests.stress.kill_and_resume
    python -m tests.stress.kill_and_resume --kills 40 --seed 1

Half of the kills strike inside a step, a fit, a write …; the other half come from outside after a
random time. A run that survives ends with the same log (but for its timings), checkpoints and test,
bit for bit.
"""

import argparse
import io
import itertools
import json
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from pkgutil import resolve_name
from unittest.mock import patch

import numpy as np
import torch
from tqdm import tqdm

from evaluation.results import read_log, read_metrics
from tests.helpers import preloaded_context
from utils.checkpoint import load_checkpoint
from utils.cli import HelpFormatter, int_in_range, run_script
from utils.errors import UserError
from utils.files import append_line, write_json

# An epoch has 264 images: more than BN_IMAGES.
FLAGS = (
    "--references photos --image_size 8 --train_samples 66 --val_samples 4 "
    "--distortions_per_image 3 --epochs 4 --batch_size 66 --refit_interval 1 --save_interval 0 "
    "--device cpu"
).split()
SELDOM = "--save_interval=0.5"  # seconds, a few epochs: half of the runs train some again
COMPARED = ("log", "best.pt", "last.pt", "test")


def die():
    """Die as a killed process does."""
    os.kill(os.getpid(), signal.SIGKILL)


def do_nothing(*args, **kwargs):
    """Do none of the work before the kill."""


def write_half_a_line(path, value):
    """Write half of a log's line before the kill."""
    line = json.dumps(value)
    with open(path, "a") as file:
        file.write(line[: len(line) // 2])


def write_half_a_file(path, write, previous=None):
    """Write half of a temporary file before the kill."""
    content = io.BytesIO()
    write(content)
    Path(f"{path}.tmp").write_bytes(content.getvalue()[: content.tell() // 2])


# {moment: (what is called, what it has done of its work when the kill strikes)}
MOMENTS = {
    "in a training step": ("training.muon.Muon.step", do_nothing),
    "in a fit of the mixture": ("sklearn.mixture.GaussianMixture._m_step", do_nothing),
    "in a validation": ("train_with_distortions.validate", do_nothing),
    "half a line in the log": ("training.checkpointing.append_line", write_half_a_line),
    "after a line in the log": ("training.checkpointing.append_line", append_line),
    "half a checkpoint": ("utils.checkpoint.write_atomically", write_half_a_file),
    "before a rename": ("utils.files.os.replace", do_nothing),
    "after a rename": ("utils.files.os.replace", os.replace),
}


def killing(original, before, kill_at, calls):
    """Return the original, which counts its calls and at one of them does `before` and dies."""

    def call(*args, **kwargs):
        if next(calls) == kill_at:
            before(*args, **kwargs)
            die()
        return original(*args, **kwargs)

    return call


def train(folder, name, flags=(), moment=None, kill_at=None, test=False):
    """Train, or go on with, the run of this name in the folder, and perhaps test it.

    Leaves {moment: how often it came in training} in <name>.calls.json, or dies.
    """
    import test_with_viz
    import train_with_distortions

    os.chdir(folder)
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own would outlive a killed process
    calls = {each: itertools.count(1) for each in MOMENTS}
    with ExitStack() as stack:
        output = stack.enter_context(open(f"{name}.txt", "a"))
        stack.enter_context(redirect_stdout(output))
        stack.enter_context(redirect_stderr(output))
        for each, (target, before) in MOMENTS.items():
            strike = kill_at if each == moment else None
            function = killing(resolve_name(target), before, strike, calls[each])
            stack.enter_context(patch(target, function))
        args = train_with_distortions.parse_args(["--experiment_name", name, *flags])
        train_with_distortions.main(args)
        counts = {each: next(count) - 1 for each, count in calls.items()}
        if test:
            # Figures take longest and hold no numbers.
            stack.enter_context(patch("evaluation.figures.list_figures", lambda *args: {}))
            flags = f"--experiment experiments/{name} --test_samples 6 --skip_tsne --device cpu"
            test_with_viz.main(test_with_viz.parse_args(flags.split()))
    write_json(f"{name}.calls.json", counts)


def run(*args, **kwargs):
    """Call train(…) in a process of its own, and return its exit code."""
    child = preloaded_context().Process(target=train, args=args, kwargs=kwargs)
    child.start()
    child.join()
    return child.exitcode


def run_and_kill(folder, name, seconds, flags):
    """Kill a run from outside so many seconds after it began. Tell whether it was under way."""
    child = preloaded_context().Process(target=train, args=(folder, name, flags))
    child.start()
    config = folder / "experiments" / name / "config.json"
    while not config.exists() and child.is_alive():
        time.sleep(0.01)
    time.sleep(seconds)
    child.kill()
    child.join()
    if child.exitcode not in (0, -signal.SIGKILL):
        output = (folder / f"{name}.txt").read_text()
        raise UserError(f"the run failed before it could be killed: {output}")
    return child.exitcode == -signal.SIGKILL


def differences(a, b, place=""):
    """Return the places at which two nested dicts and lists of tensors and values differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = a.keys() | b.keys()
        pairs = {key: (a.get(key), b.get(key)) for key in keys}
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        pairs = dict(enumerate(zip(a, b)))
    else:
        return [] if is_same(a, b) else [place]
    places = []
    for key, (one, other) in pairs.items():
        places += differences(one, other, f"{place}/{key}")
    return places


def is_same(a, b):
    """Tell whether two tensors or plain values are equal, nan to nan."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and np.array_equal(a.numpy(), b.numpy(), equal_nan=True)
    return a == b or (a != a and b != b)


def compare(killed, alone):
    """Return {name of COMPARED: the places in which a run's folder differs from the other's}."""
    found = {
        "log": differences(without_timings(read_log(killed)), without_timings(read_log(alone)))
    }
    for name in ("best.pt", "last.pt"):
        found[name] = differences(contents(killed / name), contents(alone / name))
    if (alone / "visualizations").exists():
        tests = [{**read_metrics(folder), "run": None} for folder in (killed, alone)]
        found["test"] = differences(*tests)
    return found


def contents(path):
    """Return what a checkpoint holds, but for the run's name, the code's commit and timings."""
    state = load_checkpoint(path)
    state["config"] = {**state["config"], "experiment_name": None, "git_commit": None}
    return {**state, "log": without_timings(state.get("log", []))}


def without_timings(log):
    lines = []
    for line in log:
        lines.append({name: value for name, value in line.items() if name != "images_per_second"})
    return lines


def parse_args(argv=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--kills", type=int_in_range(1), default=20, help="how many runs are killed, once each")
    add("--seed", type=int_in_range(0), default=0, help="of the random moments")
    return parser.parse_args(argv)


def main(args):
    """Kill and resume runs, and print a row for each."""
    generator = random.Random(args.seed)
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        alone = folder / "experiments" / "alone"
        if run(folder, "alone", FLAGS, test=True) != 0:
            output = (folder / "alone.txt").read_text()
            raise UserError(f"the run that is left alone failed: {output}")
        calls = json.loads((folder / "alone.calls.json").read_text())
        seconds = (alone / "best.pt").stat().st_mtime - (alone / "config.json").stat().st_mtime
        print(f"| killed | epochs logged | resumed | {' | '.join(COMPARED)} |")
        print("|---" * (3 + len(COMPARED)) + "|", flush=True)
        for i in range(args.kills):
            survivors += kill_and_resume(folder, i, alone, calls, seconds, generator)
    print(f"\n{survivors} of {args.kills} runs ended like the run that was left alone.")
    if survivors < args.kills:
        raise UserError("the others differ in the places that are named below their rows")


def kill_and_resume(folder, i, alone, calls, seconds, generator):
    """Kill and resume one run, print its row, and tell whether it ended like the other."""
    name = f"run{i}"
    killed = folder / "experiments" / name
    from_outside = i % 2 == 1
    save_interval = SELDOM if from_outside else "--save_interval=0"
    if from_outside:
        description = kill_from_outside(folder, name, seconds, save_interval, generator)
    else:
        moment = list(MOMENTS)[i // 2 % len(MOMENTS)]
        # The first rename makes the run's config.json: before it there is no run.
        kill_at = generator.randint(2, calls[moment])
        assert run(folder, name, FLAGS, moment=moment, kill_at=kill_at) == -signal.SIGKILL
        description = f"{moment}, {kill_at} of {calls[moment]}"
    epochs = len(read_log(killed))
    is_resumed = run(folder, name, ["--resume", save_interval], test=True) == 0
    found = compare(killed, alone) if is_resumed else {}
    words = ["same" if found.get(each) == [] else "differs" for each in COMPARED]
    resumed = "yes" if is_resumed else "no"
    print(f"| {description} | {epochs} | {resumed} | {' | '.join(words)} |", flush=True)
    for each, places in found.items():
        if places:
            print(f"{each} differs in {', '.join(places[:5])}")
    shutil.rmtree(killed)
    return words == ["same"] * len(COMPARED)


def kill_from_outside(folder, name, seconds, save_interval, generator):
    """Kill a run at a random time while it is under way, and say when that was."""
    while True:
        after = generator.uniform(0, seconds)
        if run_and_kill(folder, name, after, [*FLAGS, save_interval]):
            return f"from outside, after {after:.1f} s of {seconds:.1f}"
        shutil.rmtree(folder / "experiments" / name)  # this time it was faster


if __name__ == "__main__":
    run_script(main, parse_args)
