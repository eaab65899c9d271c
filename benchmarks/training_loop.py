"""How much of the hardware's rate training keeps: the real loop against the network's work alone.

    python -m benchmarks.training_loop --references path/to/images
    python -m benchmarks.training_loop --flags="--backbone resnet50 --image_size 96"

A run of train_with_distortions.py halts after every epoch for a bare one. That does as many steps
of forward, backward and optimizer, and as many forwards for validation and refits, at the same
precision, on images that are on the device already. Epochs count from the second on. A second run
then measures where the time goes. The averaged weights need batch-norm statistics of their own,
which are more forwards than a loop without an average has: the rate is given with and without
them in the bare epoch. On a GPU, images a second are given too. Writes <output>/training_loop.json.
"""

import argparse
import copy
import shlex
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack, chdir
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.optim.swa_utils import AveragedModel

import train_with_distortions as script
from benchmarks.bare_network import BareNetwork
from benchmarks.timing import markdown, result_header, wait_for, write_result
from distorted_dataset import DistortedImageDataset
from models.inference import BATCH_PIXELS
from models.mixture import Mixture
from models.quality_net import QualityNet
from references.sources import absolute
from training import loop
from training.checkpointing import OpenRun
from training.loop import BN_IMAGES, TrainingState
from training.muon import Muon
from utils.cli import int_in_range, make_parser, run_script
from utils.device import choose_device

# Where an epoch spends its time: what to call it, and the owner and name of a function. The time of
# a function that another one calls is not counted twice.
TIMED = (
    ("distorting", DistortedImageDataset, "images"),
    ("drawing labels", DistortedImageDataset, "set_epoch"),
    ("forward and losses", loop, "compute_losses"),
    ("backward", torch.Tensor, "backward"),
    ("optimizer", Muon, "step"),
    ("mean of the weights", AveragedModel, "update_parameters"),
    ("batch-norm statistics", script, "update_bn_statistics"),
    ("validation", script, "validate"),
    ("a refit's forwards", script, "refit"),
    ("a refit's fit", Mixture, "refit"),
    ("log and checkpoints", OpenRun, "log"),
    ("log and checkpoints", OpenRun, "save"),
    ("the rest of the loop", script, "train_one_epoch"),
)
# Modules that are imported when they are first needed; here that is before anything is timed.
LATE_IMPORTS = ("scipy.stats", "sklearn.metrics", "sklearn.mixture", "torchvision.models")
SAVE_INTERVAL = 60  # seconds of both kinds of epochs, so about 30 of the real ones: the default


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--references", default="photos", help="as for train_with_distortions.py")
    add("--epochs", type=int_in_range(2), default=21, help="of each run; the first does not count")
    add("--device", default="auto", help="as for train_with_distortions.py")
    add("--flags", default="", help='further ones for the training: --flags="--no-amp"')
    add("--output", default="results", help="folder of the numbers")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Run training twice: beside bare epochs, and with its functions timed."""
    device = choose_device(args.device)
    output = Path(args.output).resolve()
    header = result_header(device)
    flags = [
        "--experiment_name=timed",
        f"--references={absolute(args.references)}",
        f"--data_root={Path('data').resolve()}",
        f"--device={args.device}",
        *shlex.split(args.flags),
        f"--epochs={args.epochs}",
    ]
    halts = Halts()
    run_training([*flags, f"--save_interval={SAVE_INTERVAL}"], halts.replacements())
    spans = Spans(device)
    run_training(
        flags, [(owner, name, spans.timed(title, owner, name)) for title, owner, name in TIMED]
    )

    real = statistics.mean(halts.real[1:])
    bare = statistics.mean(halts.bare[1:])
    bn_statistics = statistics.mean(halts.bn_statistics[1:])
    rates = {
        "steps, validation and refits": bare / real,
        "the same and batch-norm statistics": (bare + bn_statistics) / real,
    }
    total = sum(spans.seconds.values())
    shares = {title: seconds / total for title, seconds in spans.seconds.items()}
    for titles, values in (
        (["of the bare network's rate at", "the loop keeps"], rates),
        (["where the time goes", "share"], shares),
    ):
        rows = [[title, f"{value:.1%}"] for title, value in values.items()]
        print("\n".join(["", *markdown(titles, rows)]))
    images_per_second = {
        "training, with validation and refits": halts.image_count / real,
        "the bare network": halts.image_count / bare,
        "distorting alone": spans.images["distorting"] / spans.seconds["distorting"],
    }
    if device.type != "cpu":
        rows = [[title, f"{value:.0f}"] for title, value in images_per_second.items()]
        print("\n".join(["", *markdown(["what", "images/s"], rows)]))
    numbers = {
        "flags": args.flags,
        "kept": rates,
        "shares": shares,
        "images_per_second": images_per_second,
        "real_seconds": halts.real,
        "bare_seconds": halts.bare,
        "bn_statistics_seconds": halts.bn_statistics,
    }
    write_result(output, "training_loop", header, numbers)


def run_training(flags: list[str], replacements: list[tuple[Any, str, Callable[..., Any]]]) -> None:
    """Run the script in an empty folder, with functions replaced: (owner, name, function).

    What comes after the last epoch is left out.
    """
    for module in LATE_IMPORTS:
        import_module(module)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(chdir(folder))
        stack.enter_context(patch.object(script, "finish", lambda *args: {}))
        for owner, name, function in replacements:
            stack.enter_context(patch.object(owner, name, function))
        script.main(script.parse_args(flags))


class Halts:
    """Seconds of each real epoch, and of the bare one and of its batch-norm statistics after it."""

    def __init__(self) -> None:
        self.real: list[float] = []
        self.bare: list[float] = []
        self.bn_statistics: list[float] = []
        self.image_count = 0  # of an epoch
        self._validation_images = 0

    def replacements(self) -> list[tuple[Any, str, Callable[..., Any]]]:
        """Return what run_training puts in the places of the script's functions."""
        write_log = OpenRun.log

        def create_state(
            model: QualityNet, mixture: Mixture, config: dict[str, Any], image_count: int
        ) -> TrainingState:
            self.image_count = image_count
            self._epoch = BareEpoch(copy.deepcopy(model), config, image_count)
            self._lap_started = time.perf_counter()
            return loop.create_state(model, mixture, config, image_count)

        def validate(
            model: QualityNet, mixture: Mixture, dataset: DistortedImageDataset
        ) -> dict[str, float]:
            self._validation_images = len(dataset)
            return loop.validate(model, mixture, dataset)

        def log(run: OpenRun, line: dict[str, Any]) -> None:
            write_log(run, line)
            self.real.append(self._end_lap())
            self._epoch.run(self._validation_images, refits=line["refit"])
            self.bare.append(self._end_lap())
            self._epoch.measure_bn_statistics()
            self.bn_statistics.append(self._end_lap())

        return [
            (script, "create_state", create_state),
            (script, "validate", validate),
            (OpenRun, "log", log),
        ]

    def _end_lap(self):
        """Return the seconds since the last lap's end."""
        wait_for(self._epoch.network.device)
        seconds = time.perf_counter() - self._lap_started
        self._lap_started += seconds
        return seconds


class BareEpoch:
    """As many steps and forwards as an epoch of so many images has."""

    def __init__(self, model: QualityNet, config: dict[str, Any], image_count: int):
        batch_size = config["batch_size"]
        side = config["image_size"]
        at_once = min(256, max(1, BATCH_PIXELS // side**2))
        bn_images = min(image_count, max(BN_IMAGES, batch_size))
        self.network = BareNetwork(
            model, side, max(256, batch_size), amp=config["amp"], lr=config["lr"]
        )
        self._steps = batch_sizes(image_count, batch_size)
        self._bn_batches = batch_sizes(bn_images, batch_size)
        self._at_once = at_once
        self._refit = batch_sizes(min(image_count, config["gmm_samples"]), at_once)

    def run(self, validation_images: int, refits: bool) -> None:
        """Do the steps, and the forwards of validation and, where there is one, of a refit."""
        for size in self._steps:
            self.network.step(size)
        for size in batch_sizes(validation_images, self._at_once):
            self.network.evaluate(size)
        for size in self._refit if refits else []:
            self.network.evaluate(size)

    def measure_bn_statistics(self) -> None:
        """Do the forwards from which the averaged weights get their batch-norm statistics."""
        for size in self._bn_batches:
            self.network.forward_in_training_mode(size)


def batch_sizes(count: int, batch_size: int) -> list[int]:
    """Return the sizes of the batches of so many images."""
    return [len(batch) for batch in torch.arange(count).split(batch_size)]


class Spans:
    """Seconds spent in functions, each without what is spent in another of them."""

    def __init__(self, device: torch.device):
        self.seconds: dict[str, float] = defaultdict(float)
        self.images: dict[str, int] = defaultdict(int)  # that functions returned, if they do
        self._device = device
        self._inner_seconds: list[float] = []  # of each timed call that is under way

    def timed(self, title: str, owner: Any, name: str) -> Callable[..., Any]:
        """Return the function of this name with its time added up under the title."""
        function = getattr(owner, name)

        def call(*args, **kwargs):
            started = time.perf_counter()
            self._inner_seconds.append(0.0)
            try:
                result = function(*args, **kwargs)
                if isinstance(result, torch.Tensor):
                    self.images[title] += len(result)
                return result
            finally:
                wait_for(self._device)
                spent = time.perf_counter() - started
                self.seconds[title] += spent - self._inner_seconds.pop()
                if self._inner_seconds:
                    self._inner_seconds[-1] += spent

        return call


if __name__ == "__main__":
    run_script(main, parse_args)
