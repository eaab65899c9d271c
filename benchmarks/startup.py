"""How long a user waits: for each script's --help, and from the quick command's start to its first training step.

    python benchmarks/startup.py --references path/to/images

Each is a process of its own, timed from outside; medians of several rounds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the project's modules

from timing import tell

from command_line import HelpFormatter, run_script, whole
from errors import UserError
from references import absolute

SCRIPTS = ("distorted_dataset.py", "train_with_distortions.py", "test_with_viz.py", "display_viz_english.py",
           "summarize_runs.py")  # fmt: skip
QUICK = (
    "--experiment_name quick --train_samples 100 --val_samples 50 --distortions_per_image 3 --epochs 20 --batch_size 64"
)
STEPPED = 77  # an exit status that nothing else has
# The quick command's script, which ends with the first step of its optimizer.
FIRST_STEP = f"""
import os, sys
from models.muon import Muon
step = Muon.step
def only_step(optimizer):
    step(optimizer)
    os._exit({STEPPED})
Muon.step = only_step
import train_with_distortions as script
script.main(script.parse_args(sys.argv[1:]))
"""


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--references", default="photos", help="as for train_with_distortions.py")
    parser.add_argument("--rounds", type=whole(1), default=5, help="of which the median is told")
    parser.add_argument("--output", default="benchmarks/results", help="folder of startup.json")
    return parser.parse_args(argv)


def main(args):
    commands = {f"`{name} --help`": ([ROOT / name, "--help"], 0) for name in SCRIPTS}
    quick = [*QUICK.split(), "--references", absolute(args.references)]
    commands["the quick command, to its first training step"] = ["-c", FIRST_STEP, *quick], STEPPED
    seconds = {name: [seconds_of(*command) for _ in range(args.rounds)] for name, command in commands.items()}
    rows = [[name, f"{statistics.median(values):.1f}"] for name, values in seconds.items()]
    tell(args.output, "startup", "cpu", (["from the start of", "seconds"], rows), seconds=seconds)


def seconds_of(command, status):
    """How long `python command` takes in an empty folder, to its end with this exit status."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - started
    if done.returncode != status:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise UserError(f"a timed command ended with {done.returncode}: {' '.join(said)}")
    return seconds


if __name__ == "__main__":
    run_script(main, parse_args)
