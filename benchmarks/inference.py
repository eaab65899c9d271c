"""What Run.predict costs beside the network alone: images a second, as a share of the bare network's.

    python -m benchmarks.inference experiments/resnet18_distorted

The bare network answers the same pixels, which are on the device already, in blocks of the same size, and
nothing is read from its answer. Photographs are the bundled ones, cut to 480×320; predict scores them by tiles.
"""

import argparse

import numpy as np
import torch

from benchmarks.timing import medians, tell
from models import load_run
from models.inference import BATCH_PIXELS, forward, tile_corners
from references.sources import PHOTOS, load_photo
from utils.cli import HelpFormatter, int_in_range, run_script

PHOTOGRAPH = 320, 480  # pixels, height and width


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("experiment", help="a run's folder")
    parser.add_argument(
        "--images", type=int_in_range(1), default=2000, help="of the run's own image size"
    )
    parser.add_argument("--photographs", type=int_in_range(1), default=50, help="of 480×320 pixels")
    parser.add_argument(
        "--rounds", type=int_in_range(1), default=5, help="of which the median is told"
    )
    parser.add_argument("--device", default="auto", help="as for train_with_distortions.py")
    parser.add_argument("--output", default="benchmarks/results", help="folder of inference.json")
    return parser.parse_args(argv)


def main(args):
    run = load_run(args.experiment, device=args.device)
    side, device = run.config["image_size"], next(run.model.parameters()).device
    photographs = torch.stack([photograph(i % len(PHOTOS)) for i in range(args.photographs)])
    small = (
        photographs.unfold(2, side, side)
        .unfold(3, side, side)
        .permute(0, 2, 3, 1, 4, 5)
        .reshape(-1, 3, side, side)
    )
    small = small[torch.arange(args.images) % len(small)].contiguous()
    rows, numbers = [], {}
    for name, images in ((f"{side}×{side}", small), ("480×320", photographs)):
        tiles = tiles_of(images, side)
        at_once = max(1, PIXELS_AT_ONCE // (side * side))
        blocks = [block.to(device) for block in tiles.split(at_once)]
        candidates = {
            "predict": lambda: run.predict(images),
            "network": lambda: [forward(run.model, b) for b in blocks],
        }
        seconds = medians(candidates, args.rounds, device)
        rates = {key: len(images) / value for key, value in seconds.items()}
        rows.append(
            [name, str(len(tiles) // len(images)), f"{rates['predict'] / rates['network']:.0%}"]
        )
        numbers[name] = rates
    titles = ["images", "tiles an image", "predict's rate, of the bare network's"]
    tell(args.output, "inference", device, (titles, rows), images_per_second=numbers)


def photograph(i):
    """(3, 320, 480) uint8: the middle of bundled photograph i, shrunk to cover it."""
    height, width = PHOTOGRAPH
    image = load_photo(i)
    scale = max(height / image.height, width / image.width)
    image = image.resize((round(image.width * scale), round(image.height * scale)))
    top, left = (image.height - height) // 2, (image.width - width) // 2
    return torch.from_numpy(np.array(image)[top : top + height, left : left + width]).permute(
        2, 0, 1
    )


def tiles_of(images, side):
    """(tiles, 3, S, S): what predict cuts these images (B, 3, H, W) into."""
    corners = tile_corners(*images.shape[2:], side)
    return torch.stack(
        [images[:, :, y : y + side, x : x + side] for y, x in corners], dim=1
    ).flatten(0, 1)


if __name__ == "__main__":
    run_script(main, parse_args)
