"""Kill a training run at random moments, resume it, and compare what it comes to with the same run left alone.

    python -m tests.stress.kill_and_resume
    python -m tests.stress.kill_and_resume --kills 40 --seed 1

Half of the kills strike inside a step, a fit, a write …; the other half come from outside after a random time. A run
that survives ends with the same log (but for its timings), checkpoints and test, bit for bit. At the end:
<output>/faults.md, a table, and faults.json.
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

ROOT = Path(__file__).resolve().parent.parent.parent
import numpy as np
import torch
from tqdm import tqdm

from tests.helpers import preloaded_context as preloaded
from training.checkpointing import read_log, read_metrics
from utils.checkpoint import load_checkpoint
from utils.cli import HelpFormatter, int_in_range, run_script
from utils.errors import UserError
from utils.files import append_line, write_json

# 264 images an epoch: more than BN_IMAGES.
FLAGS = """--references photos --image_size 8 --train_samples 66 --val_samples 4 --distortions_per_image 3 --epochs 4
           --batch_size 66 --refit_interval 1 --save_interval 0 --device cpu""".split()
SELDOM = "--save_interval=0.5"  # seconds, a few epochs: half of the runs train some again
COMPARED = ("log", "best.pt", "last.pt", "test")
METRIC_TITLES = [
    f"| killed | epochs logged | resumed | {' | '.join(COMPARED)} |",
    "|---" * (3 + len(COMPARED)) + "|",
]


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def nothing(*args, **kwargs):
    pass


def half_a_line(path, value):
    with open(path, "a") as file:
        file.write(json.dumps(value)[: len(json.dumps(value)) // 2])


def half_a_file(path, write, previous=None):
    content = io.BytesIO()
    write(content)
    Path(f"{path}.tmp").write_bytes(content.getvalue()[: content.tell() // 2])


# {moment: (what is called, what it has done of its work when the kill strikes)}
MOMENTS = {
    "in a training step": ("training.loop.Muon.step", nothing),
    "in a fit of the mixture": ("sklearn.mixture.GaussianMixture._m_step", nothing),
    "in a validation": ("train_with_distortions.evaluate", nothing),
    "half a line in the log": ("training.checkpointing.append_line", half_a_line),
    "after a line in the log": ("training.checkpointing.append_line", append_line),
    "half a checkpoint": ("utils.checkpoint.write_atomically", half_a_file),
    "before a rename": ("utils.files.os.replace", nothing),
    "after a rename": ("utils.files.os.replace", os.replace),
}


def counted(original, before, kill_at, calls):
    """The original, that counts its calls, and at one of them does only what `before` does of it and dies."""

    def call(*args, **kwargs):
        if next(calls) == kill_at:
            before(*args, **kwargs)
            die()
        return original(*args, **kwargs)

    return call


def train(folder, name, flags=(), moment=None, kill_at=None, test=False):
    """Train, or go on with, the run of this name in the folder, and perhaps test it. Leaves {moment: how often it came
    in training} in <name>.calls.json, or dies."""
    import test_with_viz
    import train_with_distortions

    os.chdir(folder)
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own would outlive a killed process
    calls = {each: itertools.count(1) for each in MOMENTS}
    with ExitStack() as stack:
        words = stack.enter_context(open(f"{name}.txt", "a"))
        stack.enter_context(redirect_stdout(words))
        stack.enter_context(redirect_stderr(words))
        for each, (target, before) in MOMENTS.items():
            strike = kill_at if each == moment else None
            stack.enter_context(
                patch(target, counted(resolve_name(target), before, strike, calls[each]))
            )
        train_with_distortions.main(
            train_with_distortions.parse_args(["--experiment_name", name, *flags])
        )
        came = {each: next(count) - 1 for each, count in calls.items()}
        if test:
            stack.enter_context(
                patch("test_with_viz.figures", lambda *args: [])
            )  # the slowest, and no numbers
            flags = f"--experiment experiments/{name} --test_samples 6 --skip_tsne --device cpu"
            test_with_viz.main(test_with_viz.parse_args(flags.split()))
    write_json(f"{name}.calls.json", came)


def run(*args, **kwargs):
    """train(…) in a process of its own; returns its exit code."""
    child = preloaded().Process(target=train, args=args, kwargs=kwargs)
    child.start()
    child.join()
    return child.exitcode


def run_and_kill(folder, name, seconds, flags):
    """A run that is killed from outside so many seconds after it began. Returns whether it was still under way."""
    child = preloaded().Process(target=train, args=(folder, name, flags))
    child.start()
    while not (folder / "experiments" / name / "config.json").exists() and child.is_alive():
        time.sleep(0.01)
    time.sleep(seconds)
    child.kill()
    child.join()
    if child.exitcode not in (0, -signal.SIGKILL):
        raise UserError(
            f"the run failed before it could be killed: {(folder / f'{name}.txt').read_text()}"
        )
    return child.exitcode == -signal.SIGKILL


def differences(a, b, at=""):
    """The places at which two nested dicts and lists of tensors and values differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [
            place
            for key in a.keys() | b.keys()
            for place in differences(a.get(key), b.get(key), f"{at}/{key}")
        ]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [
            place for i, pair in enumerate(zip(a, b)) for place in differences(*pair, f"{at}/{i}")
        ]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and np.array_equal(a.numpy(), b.numpy(), equal_nan=True)
    else:
        same = a == b or (a != a and b != b)
    return [] if same else [at]


def compare(run, left_alone):
    """{"log", "best.pt", "last.pt", "test": the places in which a run's folder differs from one that was left alone}"""
    found = {
        "log": differences(*(without_timings(read_log(folder)) for folder in (run, left_alone)))
    }
    for name in ("best.pt", "last.pt"):
        found[name] = differences(*(contents(folder / name) for folder in (run, left_alone)))
    if (left_alone / "visualizations").exists():
        tests = [{**read_metrics(folder), "run": None} for folder in (run, left_alone)]
        found["test"] = differences(*tests)
    return found


def contents(path):
    state = load_checkpoint(path)
    state["config"]["experiment_name"] = None
    return {**state, "log": without_timings(state.get("log", []))}


def without_timings(log):
    return [
        {key: value for key, value in line.items() if key != "images_per_second"} for line in log
    ]


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "--kills", type=int_in_range(1), default=20, help="how many runs are killed, once each"
    )
    parser.add_argument("--seed", type=int_in_range(0), default=0, help="of the random moments")
    parser.add_argument(
        "--output", default="benchmarks/results", help="folder of the table and the numbers"
    )
    return parser.parse_args(argv)


def main(args):
    drawn, rows = random.Random(args.seed), []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        alone = folder / "experiments" / "alone"
        if run(folder, "alone", FLAGS, test=True) != 0:
            raise UserError(
                f"the run that is left alone failed: {(folder / 'alone.txt').read_text()}"
            )
        calls = json.loads((folder / "alone.calls.json").read_text())
        seconds = (alone / "best.pt").stat().st_mtime - (alone / "config.json").stat().st_mtime
        print("\n".join(METRIC_TITLES), flush=True)
        for i in range(args.kills):
            name = f"run{i}"
            row = one_kill(folder, name, i, calls, seconds, drawn)
            row["resumed"] = run(folder, name, ["--resume", row.pop("saved")], test=True) == 0
            rows.append(
                row | (compare(folder / "experiments" / name, alone) if row["resumed"] else {})
            )
            print(as_text(rows[-1]), flush=True)
            shutil.rmtree(folder / "experiments" / name)
    write_results(rows, Path(args.output))


def one_kill(folder, name, i, calls, seconds, drawn):
    """Start a run and kill it: {"kill": when, "saved": its --save_interval, "epochs": how many it had logged}."""
    saved = SELDOM if i % 2 else "--save_interval=0"
    if i % 2:
        after = drawn.uniform(0, seconds)
        while not run_and_kill(folder, name, after, [*FLAGS, saved]):  # this time it was faster
            shutil.rmtree(folder / "experiments" / name)
            after = drawn.uniform(0, seconds)
        kill = f"from outside, after {after:.1f} s of {seconds:.1f}"
    else:
        moment = list(MOMENTS)[i // 2 % len(MOMENTS)]
        at = drawn.randint(
            2, calls[moment]
        )  # the first rename makes the run's config.json: before it there is no run
        assert run(folder, name, FLAGS, moment=moment, kill_at=at) == -signal.SIGKILL
        kill = f"{moment}, {at} of {calls[moment]}"
    return {"kill": kill, "saved": saved, "epochs": len(read_log(folder / "experiments" / name))}


def as_text(row):
    cells = [{True: "same", False: "differs"}[row.get(name) == []] for name in COMPARED]
    return f"| {row['kill']} | {row['epochs']} | {'yes' if row['resumed'] else 'no'} | {' | '.join(cells)} |"


def write_results(rows, folder):
    differ = [row for row in rows if any(row.get(name) != [] for name in COMPARED)]
    words = f"{len(rows) - len(differ)} of {len(rows)} runs ended like the run that was left alone."
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "faults.md").write_text(
        "\n".join([*METRIC_TITLES, *map(as_text, rows), "", words, ""]), encoding="utf-8"
    )
    write_json(folder / "faults.json", {"kills": rows})
    print(f"\n{words}")
    if differ:
        raise UserError(f"{folder / 'faults.json'} tells in which places the others differ")


if __name__ == "__main__":
    run_script(main, parse_args)
