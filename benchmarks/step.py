"""What precision, memory layout and torch.compile are worth: images a second of a training step's bare work.

    python -m benchmarks.step
    python -m benchmarks.step --backbone resnet50 --image_size 96 --rounds 3

The same network takes the same steps of forward, backward and optimizer in each way, in turn: in bfloat16 only where the
device has it. Training runs as the row that says so. What torch.compile takes to begin with is not in its rate, but told.
"""

import argparse
import time
from functools import partial

import torch

from benchmarks.bare_work import BareSteps
from benchmarks.timing import medians, tell
from distortions.registry import DISTORTION_TYPES
from models.quality_net import BACKBONES, QualityNet, resolve_stem
from utils.cli import HelpFormatter, int_in_range, run_script
from utils.device import choose_device, has_bfloat16

WAYS = {
    "float32": {},
    "float32, channels last": {"channels_last": True},
    "bfloat16": {"amp": True},
    "bfloat16, channels last": {"amp": True, "channels_last": True},
}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--backbone", choices=BACKBONES, default="resnet18", help="the network")
    add("--image_size", type=int_in_range(8), default=32, help="side of an image, pixels")
    add("--batch_size", type=int_in_range(2), default=128, help="images a step")
    add("--steps", type=int_in_range(1), default=5, help="in a round")
    add("--rounds", type=int_in_range(1), default=5, help="a time is the median of so many")
    add(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="time torch.compile too",
    )
    add("--device", default="auto", help="as for train_with_distortions.py")
    add("--output", default="benchmarks/results", help="folder of step.json")
    return parser.parse_args(argv)


def main(args):
    device = choose_device(args.device)
    steps = {
        name: steps_of(args, device, **way) for name, way in ways_on(device, args.compile).items()
    }
    first = {name: first_step(each, args.batch_size) for name, each in steps.items()}
    candidates = {
        name: partial(several, each, args.steps, args.batch_size) for name, each in steps.items()
    }
    seconds = {
        name: value / args.steps for name, value in medians(candidates, args.rounds, device).items()
    }
    slowest = max(seconds.values())
    rows = [
        [name, f"{slowest / step:.2f}", f"{first[name] / step:.0f}"]
        for name, step in seconds.items()
    ]
    tell(args.output, "step", device, (["way", "rate, of the slowest's", "the first step takes as long as"], rows),
         backbone=args.backbone, image_size=args.image_size, batch_size=args.batch_size, first_seconds=first,
         images_per_second={name: args.batch_size / step for name, step in seconds.items()})  # fmt: skip


def ways_on(device, compiled):
    """{name: how} of the ways that are timed there, the last of them training's, and compiled if so."""
    ways = {name: way for name, way in WAYS.items() if has_bfloat16(device) or not way.get("amp")}
    name, way = ways.popitem()
    ways[f"{name} (training's way)"] = way
    return ways | {f"{name}, compiled": way | {"compiled": True}} if compiled else ways


def steps_of(args, device, channels_last=False, amp=False, compiled=False):
    """BareSteps of a fresh network."""
    torch.manual_seed(0)
    model = QualityNet(
        args.backbone, resolve_stem("auto", args.image_size), 32, len(DISTORTION_TYPES) + 1
    ).to(device)
    model = model.to(memory_format=torch.channels_last) if channels_last else model
    if compiled:
        model.compile()
    return BareSteps(model, args.image_size, args.batch_size, amp)


def first_step(steps, batch_size):
    """Seconds that it takes."""
    began = time.perf_counter()
    several(steps, 1, batch_size)
    steps.wait()
    return time.perf_counter() - began


def several(steps, count, batch_size):
    for _ in range(count):
        steps.step(batch_size)


if __name__ == "__main__":
    run_script(main, parse_args)
