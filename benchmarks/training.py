"""What of the hardware's rate training keeps: an epoch of the real loop against the bare work of the same network.

    python benchmarks/training.py --references path/to/images
    python benchmarks/training.py --references path/to/images --flags="--backbone resnet50 --image_size 96"

A run of train_with_distortions.py halts after every epoch for a bare one, which does as many steps of forward, backward
and optimizer, and as many forwards for batch-norm statistics, validation and refits, at the same precision, on batches
that are on the device already. Epochs are counted from the second on, up to a multiple of the refit interval. A second
run then tells where the time goes.
"""

import argparse
import copy
import pkgutil
import shlex
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, chdir
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the project's modules

import torch
from timing import tell

import train_with_distortions as script
import training
from command_line import HelpFormatter, run_script, whole
from models.muon import Muon
from models.run import PIXELS_AT_ONCE, choose_device, forward
from references import absolute

# What is timed, and the functions it is spent in; within another's time, a function's own is not counted twice.
SPANS = {
    "distorting": ["distorted_dataset.DistortedImageDataset.images"],
    "drawing labels": ["distorted_dataset.DistortedImageDataset.set_epoch"],
    "forward and losses": ["training.losses_of"],
    "backward": ["torch.Tensor.backward"],
    "optimizer": ["models.muon.Muon.step"],
    "mean of the weights": ["torch.optim.swa_utils.AveragedModel.update_parameters"],
    "batch-norm statistics": ["train_with_distortions.settle_batch_norm"],
    "validation": ["train_with_distortions.evaluate"],
    "a refit's forwards": ["train_with_distortions.predict"],
    "a refit's fit": ["models.mixture.Mixture.refit"],
    "log and checkpoints": ["run_folder.append_log", "run_folder.save"],
    "the rest of the loop": ["train_with_distortions.train_one_epoch"],
}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--references", default="photos", help="as for train_with_distortions.py")
    add("--epochs", type=whole(2), default=21, help="of each run, the first of which is not counted")
    add("--device", default="auto", help="as for train_with_distortions.py")
    add("--flags", default="", help='further flags of train_with_distortions.py: --flags="--no-amp"')
    add("--output", default="benchmarks/results", help="folder of training.json")
    return parser.parse_args(argv)


def main(args):
    device, output = choose_device(args.device), Path(args.output).resolve()
    flags = ["--experiment_name=timed", f"--references={absolute(args.references)}", f"--epochs={args.epochs}",
             f"--device={args.device}", f"--data_root={Path('data').resolve()}", *shlex.split(args.flags)]  # fmt: skip
    halts, spans = Halts(), Spans(device)
    run(flags, {"train_with_distortions.start_training": halts.start, "train_with_distortions.log_epoch": halts.log})
    run(flags, {target: spans.timed(name, target) for name, targets in SPANS.items() for target in targets})
    real, bare = (statistics.mean(seconds[1:]) for seconds in (halts.real, halts.bare))
    spent = sum(spans.seconds.values())
    rows = [["images a second, of the bare network's", f"{bare / real:.1%}"]]
    rows += [[name, f"{seconds / spent:.1%}"] for name, seconds in spans.seconds.items()]
    tell(output, "training", device, ["where the time goes", "share"], rows, flags=args.flags,
         real_seconds=halts.real, bare_seconds=halts.bare, spans=spans.seconds)  # fmt: skip


def run(flags, patches):
    """A run of the script in an empty folder, with these functions in the places of others."""
    unfinished = {"train_with_distortions.finish": lambda *args: {}}  # the fits after training are no part of an epoch
    with ExitStack() as stack:
        stack.enter_context(chdir(stack.enter_context(tempfile.TemporaryDirectory())))
        for target, function in {**patches, **unfinished}.items():
            stack.enter_context(patch(target, function))
        script.main(script.parse_args(flags))


class Halts:
    """Seconds of each real epoch and of the bare one after it."""

    def __init__(self):
        self.real, self.bare = [], []

    def start(self, model, mixture, args, images):
        self.work = BareWork(copy.deepcopy(model), args, images)
        self.began = time.perf_counter()
        return training.start_training(model, mixture, args, images)

    def log(self, args, epoch, refit, *values):
        line = _log_epoch(args, epoch, refit, *values)
        self.work.wait()
        halted = time.perf_counter()
        self.work.epoch(refit)
        self.work.wait()
        self.real.append(halted - self.began)
        self.began = time.perf_counter()
        self.bare.append(self.began - halted)
        return line


_log_epoch = script.log_epoch


class BareWork:
    """The network's work of an epoch, on batches that are there."""

    def __init__(self, model, args, images):
        self.model, self.amp = model, args.amp
        self.device = next(model.parameters()).device
        self.optimizer = Muon(model, args.lr, training.WEIGHT_DECAY)
        shape = (3, args.image_size, args.image_size)
        self.at_once = min(256, max(1, PIXELS_AT_ONCE // shape[1] ** 2))
        self.pixels = torch.randint(256, (max(256, args.batch_size), *shape), dtype=torch.uint8, device=self.device)
        validation = args.val_samples * (args.distortions_per_image + 1)
        self.steps = sizes(images, args.batch_size)
        self.statistics = sizes(min(images, training.BATCH_NORM_IMAGES), args.batch_size)
        self.validation, self.refit = sizes(validation, self.at_once), sizes(images, self.at_once)

    def epoch(self, refit):
        for size in self.steps:
            self.optimizer.zero_grad()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
                output = self.model.train()(self.pixels[:size])
            loss = output.quality.mean() + output.embedding.mean()
            loss = loss if output.type_logits is None else loss + output.type_logits.mean()
            loss.backward()
            self.optimizer.step()
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            for size in self.statistics:
                self.model.train()(self.pixels[:size])
        for size in [*self.validation, *(self.refit if refit else ())]:
            forward(self.model, self.pixels[:size])

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def sizes(count, batch_size):
    """The sizes of the batches of so many images."""
    return [len(batch) for batch in torch.arange(count).split(batch_size)]


class Spans:
    """Seconds spent in functions, each without what is spent in another of them."""

    def __init__(self, device):
        self.seconds, self.inside, self.device = defaultdict(float), [], device

    def timed(self, name, target):
        function = pkgutil.resolve_name(target)

        def run_timed(*args, **kwargs):
            started = time.perf_counter()
            self.inside.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                spent = time.perf_counter() - started
                self.seconds[name] += spent - self.inside.pop()
                if self.inside:
                    self.inside[-1] += spent

        return run_timed


if __name__ == "__main__":
    run_script(main, parse_args)
