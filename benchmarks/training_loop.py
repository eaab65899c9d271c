"""What of the hardware's rate training keeps: an epoch of the real loop against the bare work of the same network.

    python -m benchmarks.training_loop --references path/to/images
    python -m benchmarks.training_loop --references path/to/images --flags="--backbone resnet50 --image_size 96"

A run of train_with_distortions.py halts after every epoch for a bare one, which does as many steps of forward, backward
and optimizer, and as many forwards for validation and refits, at the same precision, on batches that are on the device
already. Epochs are counted from the second on, up to a multiple of the refit interval. A second run then tells where
the time goes. The averaged weights need batch-norm statistics of their own, more forwards of the network than a loop
without them has: the rate is told with and without them in the bare epoch.
"""

import argparse
import copy
import statistics
import time
from pathlib import Path

import train_with_distortions as script
from benchmarks.bare_work import BareEpoch
from benchmarks.spans import Spans, flags_of, run
from benchmarks.timing import tell
from training import loop
from utils.cli import HelpFormatter, int_in_range, run_script
from utils.device import choose_device

# What is timed, and the functions it is spent in; within another's time, a function's own is not counted twice.
SPANS = {
    "distorting": ["distorted_dataset.DistortedImageDataset.images"],
    "drawing labels": ["distorted_dataset.DistortedImageDataset.set_epoch"],
    "forward and losses": ["training.loop.compute_losses"],
    "backward": ["torch.Tensor.backward"],
    "optimizer": ["training.muon.Muon.step"],
    "mean of the weights": ["torch.optim.swa_utils.AveragedModel.update_parameters"],
    "batch-norm statistics": ["train_with_distortions.update_bn_statistics"],
    "validation": ["train_with_distortions.evaluate"],
    "a refit's forwards": ["train_with_distortions.refit"],
    "a refit's fit": ["models.mixture.Mixture.refit"],
    "log and checkpoints": [
        "training.checkpointing.append_log",
        "training.checkpointing.Saver.keep",
    ],
    "the rest of the loop": ["train_with_distortions.train_one_epoch"],
}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--references", default="photos", help="as for train_with_distortions.py")
    add(
        "--epochs",
        type=int_in_range(2),
        default=21,
        help="of each run, the first of which is not counted",
    )
    add("--device", default="auto", help="as for train_with_distortions.py")
    add(
        "--flags", default="", help='further flags of train_with_distortions.py: --flags="--no-amp"'
    )
    add("--output", default="benchmarks/results", help="folder of training.json")
    return parser.parse_args(argv)


def main(args):
    device, output = choose_device(args.device), Path(args.output).resolve()
    flags = [*flags_of(args), f"--epochs={args.epochs}"]
    unfinished = {
        "train_with_distortions.finish": lambda *args: {}
    }  # the fits after training are no part of an epoch
    halts, spans = Halts(), Spans(device)
    halting = {
        "train_with_distortions.start_training": halts.start,
        "train_with_distortions.log_epoch": halts.log,
    }
    run(
        [*flags, "--save_interval=60"], halting | unfinished
    )  # 30 of them of the real epochs, about
    timed = {
        target: spans.timed(name, target) for name, targets in SPANS.items() for target in targets
    }
    run(flags, timed | unfinished)
    real, bare, with_statistics = (
        statistics.mean(values[1:]) for values in (halts.real, halts.bare, halts.statistics)
    )
    rates = [["steps, validation and refits", f"{bare / real:.1%}"],
             ["the same and batch-norm statistics", f"{(bare + with_statistics) / real:.1%}"]]  # fmt: skip
    totals = spans.totals()
    shares = [[name, f"{seconds / sum(totals.values()):.1%}"] for name, seconds in totals.items()]
    tell(output, "training", device, (["of the bare network's rate at", "the loop keeps"], rates),
         (["where the time goes", "share"], shares), flags=args.flags, real_seconds=halts.real,
         bare_seconds=halts.bare, statistics_seconds=halts.statistics, spans=totals)  # fmt: skip


class Halts:
    """Seconds of each real epoch, and of the bare one and of its batch-norm statistics after it."""

    def __init__(self):
        self.real, self.bare, self.statistics = [], [], []

    def start(self, model, mixture, args, images):
        self.epoch = BareEpoch(copy.deepcopy(model), args, images)
        self.began = time.perf_counter()
        return loop.create_state(model, mixture, args, images)

    def log(self, args, number, refit, *values):
        line = _log_epoch(args, number, refit, *values)
        self.real.append(self.lap())
        self.epoch.run(refit)
        self.bare.append(self.lap())
        self.epoch.measure_statistics()
        self.statistics.append(self.lap())
        return line

    def lap(self):
        """Seconds since the last one."""
        self.epoch.bare.wait()
        began, self.began = self.began, time.perf_counter()
        return self.began - began


_log_epoch = script.log_epoch


if __name__ == "__main__":
    run_script(main, parse_args)
