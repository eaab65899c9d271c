"""Images a second: of training steps done in several ways, and of Run.predict.

    python -m benchmarks.throughput
    python -m benchmarks.throughput --backbone resnet50 --image_size 96 --rounds 3
    python -m benchmarks.throughput --image_size 512 --batch_size 4 --no-compile --no-prediction

Training: what precision, memory layout and torch.compile are worth. The same network takes the same
steps of forward, backward and optimizer in each way, in turn. bfloat16 is there only where the
device has it. Training takes the row that says so. The first step, in which torch.compile compiles,
is not in the rate, but has a column of its own.

Prediction: Run.predict, and beside it the network alone, which answers the same tiles, in blocks of
the same size, from the device's memory. Photographs of 480×320 pixels are scored by tiles. Rates
do not depend on what was learned or is seen, so weights and pixels are random.

Writes <output>/throughput.json.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from benchmarks.bare_network import BareNetwork
from benchmarks.timing import markdown, median_seconds, result_header, wait_for, write_result
from distortions.registry import DISTORTION_TYPES
from models.inference import BATCH_PIXELS, Run, build, forward
from models.quality_net import BACKBONES, resolve_stem
from models.tiles import cut, tile_image
from training.config import Recipe
from utils.cli import int_in_range, make_parser, run_script
from utils.device import choose_device, has_bfloat16

WAYS = {
    "float32": {},
    "float32, channels last": {"channels_last": True},
    "bfloat16": {"amp": True},
    "bfloat16, channels last": {"amp": True, "channels_last": True},
}
PHOTOGRAPH = (320, 480)  # height, width


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    switch = argparse.BooleanOptionalAction
    add("--backbone", choices=BACKBONES, default="resnet18", help="the network")
    add("--image_size", type=int_in_range(8), default=32, help="side of a training image, pixels")
    add("--batch_size", type=int_in_range(2), default=128, help="images in a training step")
    add("--steps", type=int_in_range(1), default=5, help="training steps in a round")
    add("--compile", action=switch, default=True, help="time torch.compile too")
    add("--prediction", action=switch, default=True, help="time Run.predict too")
    add("--images", type=int_in_range(1), default=2000, help="of the training size, to predict")
    add("--photographs", type=int_in_range(1), default=50, help="of 480×320 pixels, to predict")
    add("--rounds", type=int_in_range(1), default=5, help="a time is the median of so many")
    add("--device", default="auto", help="as for train_with_distortions.py")
    add("--output", default="results", help="folder of the numbers")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Time steps and predictions, print a table of each, and write the numbers."""
    device = choose_device(args.device)
    header = result_header(device)
    numbers: dict[str, Any] = {
        "backbone": args.backbone,
        "image_size": args.image_size,
        "batch_size": args.batch_size,
    }

    # --------------------------------------------------------------------------------- training
    numbers["training"] = time_training(args, device)
    slowest = min(row["images_per_second"] for row in numbers["training"].values())
    rows = []
    for name, row in numbers["training"].items():
        rate = row["images_per_second"]
        first_step = row["first_step_seconds"] * rate / args.batch_size
        rows.append([name, f"{rate:.1f}", f"{rate / slowest:.2f}", f"{first_step:.0f}"])
    titles = ["way of a step", "images/s", "rate, of the slowest's", "the first takes as long as"]
    print("\n".join(markdown(titles, rows)))

    # ------------------------------------------------------------------------------- prediction
    if args.prediction:
        numbers["prediction"] = time_prediction(args, device)
        rows = []
        for name, row in numbers["prediction"].items():
            share = row["predict"] / row["network"]
            rows.append([name, str(row["tiles"]), f"{row['predict']:.1f}", f"{share:.0%}"])
        titles = ["images", "tiles an image", "predict, images/s", "of the bare network's rate"]
        print("\n".join(["", *markdown(titles, rows)]))
    write_result(args.output, "throughput", header, numbers)


def time_training(args: argparse.Namespace, device: torch.device) -> dict[str, dict[str, float]]:
    """Return {way: {"images_per_second", "first_step_seconds"}} of training steps."""
    candidates: dict[str, Callable[[], Any]] = {}
    first_seconds = {}
    for name, way in ways_on(device, args.compile).items():
        network = make_network(args, device, **way)
        started = time.perf_counter()
        take_steps(network, 1, args.batch_size)
        wait_for(device)
        first_seconds[name] = time.perf_counter() - started
        candidates[name] = partial(take_steps, network, args.steps, args.batch_size)
    rates = {}
    for name, seconds in median_seconds(candidates, args.rounds, device).items():
        rates[name] = {
            "images_per_second": args.steps * args.batch_size / seconds,
            "first_step_seconds": first_seconds[name],
        }
    return rates


def ways_on(device: torch.device, compiled: bool) -> dict[str, dict[str, bool]]:
    """Return {name: flags of make_network}: WAYS on this device.

    The last of them is training's. The same compiled may follow.
    """
    ways = {name: way for name, way in WAYS.items() if has_bfloat16(device) or not way.get("amp")}
    name, way = ways.popitem()
    ways[f"{name} (training's way)"] = way
    if compiled:
        ways[f"{name}, compiled"] = {**way, "compiled": True}
    return ways


def make_network(
    args: argparse.Namespace,
    device: torch.device,
    channels_last: bool = False,
    amp: bool = False,
    compiled: bool = False,
) -> BareNetwork:
    """Return a fresh network that takes steps in this way."""
    model = build_run(args, device).model
    if channels_last:
        model.to(memory_format=torch.channels_last)
    if compiled:
        model.compile()
    return BareNetwork(model, args.image_size, args.batch_size, amp=amp)


def build_run(args: argparse.Namespace, device: torch.device) -> Run:
    """Return a Run of random weights, and a mixture that was never fitted."""
    torch.manual_seed(0)
    config = {
        "backbone": args.backbone,
        "stem": resolve_stem("auto", args.image_size),
        "image_size": args.image_size,
        "embedding_dim": 32,
        "n_clusters": 8,
        "type_loss_weight": 0.1,
        "types": DISTORTION_TYPES,
        "local_types": (),
        "recipe": asdict(Recipe()),
    }
    model, mixture = build(config)
    checkpoint = {"config": config, "epoch": 0, "reference_digests": ()}
    return Run(model.to(device), mixture.to(device), checkpoint)


def take_steps(network: BareNetwork, count: int, batch_size: int) -> None:
    """Take so many steps."""
    for _ in range(count):
        network.step(batch_size)


def time_prediction(args: argparse.Namespace, device: torch.device) -> dict[str, dict[str, float]]:
    """Return {images: {"tiles" an image, "predict" and "network": images a second}}."""
    run = build_run(args, device)
    side = args.image_size
    height, width = PHOTOGRAPH
    shapes = {
        f"{side}×{side}": (args.images, 3, side, side),
        f"{width}×{height}": (args.photographs, 3, height, width),
    }
    rates = {}
    for name, shape in shapes.items():
        images = torch.randint(256, shape, dtype=torch.uint8)
        blocks: list[torch.Tensor] = []
        for tiles in tile_image(*shape[2:], side):
            at_once = max(1, BATCH_PIXELS // (tiles.height * tiles.width))
            blocks.extend(cut(images, tiles).split(at_once))
        candidates: dict[str, Callable[[], Any]] = {
            "predict": partial(run.predict, images),
            "network": partial(answer_blocks, run, [block.to(device) for block in blocks]),
        }
        row: dict[str, float] = {"tiles": sum(map(len, blocks)) // len(images)}
        for candidate, seconds in median_seconds(candidates, args.rounds, device).items():
            row[candidate] = len(images) / seconds
        rates[name] = row
    return rates


def answer_blocks(run: Run, blocks: list[torch.Tensor]) -> None:
    """Answer blocks of tiles by the network alone."""
    for block in blocks:
        forward(run.model, block)


if __name__ == "__main__":
    run_script(main, parse_args)
