"""How long each distortion takes an image: ours, albumentations, kornia, and a loop of OpenCV.

    python -m benchmarks.distortion_speed
    python -m benchmarks.distortion_speed --threads 1 --devices cpu --rounds 31

All start from uint8 images and give uint8 images, in the layout of their own kind: ours takes a
batch (B, H, W, 3), kornia a batch of planes, the others one image after the other. --threads go to
torch and to OpenCV. Candidates take turns, and a time is the median over the rounds. Means and
ratios take only the types that both have. The last row is what training uses: one call for all
types at once, with levels from 0.2 to 1. Writes <output>/distortion_speed.json.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.peers import (
    LEVEL,
    MATCH,
    albumentations_transforms,
    kornia_functions,
    opencv_functions,
)
from benchmarks.timing import markdown, median_seconds, result_header, write_result
from distorted_dataset import BLOCK_PIXELS
from distortions.apply import distort
from distortions.registry import DISTORTION_TYPES, MAX_LEVEL, MIN_LEVEL
from references.photos import PHOTOS, load_photo
from utils.cli import int_in_range, make_parser, run_script
from utils.images import to_nchw
from utils.rng import fold_in

LIBRARIES = ("ours", "albumentations", "kornia", "opencv_loop")
SIZES = ((32, 32), (480, 320))  # height, width
STREAM = "all types at once"
GPU_FACTOR = 16  # a GPU's batch has so many times the pixels of a CPU's


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    parser = make_parser(__doc__)
    add = parser.add_argument
    count = int_in_range(1)
    add("--threads", nargs="+", type=count, default=[1, 2], help="CPU threads, a table for each")
    add("--devices", nargs="+", default=devices, choices=devices, help="where ours and kornia run")
    add("--rounds", type=count, default=15, help="a time is the median of so many")
    pixels = "of a CPU's batch; a GPU's has 16 times as many"
    add("--pixels", type=int_in_range(64), default=BLOCK_PIXELS, help=pixels)
    add("--output", default="results", help="folder of the numbers")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Time every case, print its table and write the numbers."""
    header = result_header(args.devices[-1], packages=("albumentations", "kornia"))
    cases = []
    for device in args.devices:
        for threads in args.threads if device == "cpu" else [1]:
            for size in SIZES:
                cases.append(time_case(device, threads, size, args))
    for case in cases:
        print("\n".join([*case_table(case), ""]))
    for name, match in MATCH.items():
        print(f"{name}: {match}")
    numbers = {"level": LEVEL, "match": MATCH, "rounds": args.rounds, "cases": cases}
    write_result(args.output, "distortion_speed", header, numbers)


def time_case(
    device: str, threads: int, size: tuple[int, int], args: argparse.Namespace
) -> dict[str, Any]:
    """Time all types on one device, for one number of threads and one size (height, width).

    Returns {…, "microseconds": {type: {library: time an image}}, "compared": {library: …}}.
    """
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    # Allocated and freed at once: from then on glibc keeps memory that is given back, as it does
    # after a training step.
    torch.empty(31 * 2**20, dtype=torch.uint8)
    height, width = size
    pixels = args.pixels * (GPU_FACTOR if device == "cuda" else 1)
    images = photo_pieces(max(1, pixels // (height * width)), height, width)
    times: dict[str, dict[str, float]] = {}
    for name, jobs in make_jobs(images, device).items():
        seconds = median_seconds(jobs, args.rounds, device)
        times[name] = {job: 1e6 * value / len(images) for job, value in seconds.items()}
    return {
        "device": device,
        "threads": threads,
        "size": size,
        "images": len(images),
        "microseconds": times,
        "compared": {library: compare(times, library) for library in LIBRARIES[1:]},
    }


def photo_pieces(count: int, height: int, width: int) -> torch.Tensor:
    """Return (N, H, W, 3) uint8, cut from random places of the bundled photographs."""
    photos = [np.array(load_photo(i)) for i in range(len(PHOTOS))]
    photos = [photo for photo in photos if photo.shape[0] >= height and photo.shape[1] >= width]
    random = np.random.default_rng(0)
    pieces = []
    for i in range(count):
        photo = photos[i % len(photos)]
        top = random.integers(photo.shape[0] - height + 1)
        left = random.integers(photo.shape[1] - width + 1)
        pieces.append(photo[top : top + height, left : left + width])
    return torch.from_numpy(np.stack(pieces))


def make_jobs(images: torch.Tensor, device: str) -> dict[str, dict[str, Callable[[], Any]]]:
    """Return {type: {library: function without arguments that distorts all images}}.

    images are (N, H, W, 3) uint8. Beside the types there is STREAM, for ours alone.
    """
    batch = images.to(device)
    planes = to_nchw(batch).contiguous()
    arrays = list(images.numpy())
    count = len(images)
    keys = fold_in(0, torch.arange(count))

    def distort_by(types, label, level, direction):
        return lambda: distort(batch, types, label, level, direction, keys)

    def for_each(function):
        return lambda: [function(array) for array in arrays]

    def in_float(function):
        return lambda: function(planes.float() / 255).clamp(0, 1).mul(255).round().to(torch.uint8)

    jobs = {}
    for name in DISTORTION_TYPES:
        label = torch.zeros(count, dtype=torch.int64)
        level = torch.full((count,), LEVEL)
        jobs[name] = {"ours": distort_by((name,), label, level, direction=torch.ones(count))}
    for name, transform in albumentations_transforms().items():
        jobs[name]["albumentations"] = for_each(transform)
    for name, function in kornia_functions().items():
        jobs[name]["kornia"] = in_float(function)
    for name, array_function in opencv_functions().items():
        jobs[name]["opencv_loop"] = for_each(array_function)
    label = torch.arange(count) % len(DISTORTION_TYPES)
    level = torch.linspace(MIN_LEVEL, MAX_LEVEL, count)
    direction = torch.where(keys < 0, -1, 1)
    jobs[STREAM] = {"ours": distort_by(DISTORTION_TYPES, label, level, direction)}
    return jobs


def compare(times: dict[str, dict[str, float]], library: str) -> dict[str, Any]:
    """Compare a library with ours over the types that it has.

    Returns the mean of both, how many times as fast ours is, and the type where ours does worst.
    """
    shared = {name: row for name, row in times.items() if library in row}
    theirs = statistics.mean(row[library] for row in shared.values())
    ours = statistics.mean(row["ours"] for row in shared.values())
    ratios = {name: row["ours"] / row[library] for name, row in shared.items()}
    worst = max(ratios, key=lambda name: ratios[name])
    return {
        "mean": theirs,
        "ours": ours,
        "times_as_fast": theirs / ours,
        "worst": worst,
        "worst_ratio": ratios[worst],
    }


def case_table(case: dict[str, Any]) -> list[str]:
    """Return a table of one case with a row for each type, and a line for each library."""
    height, width = case["size"]
    place = "GPU" if case["device"] == "cuda" else f"CPU, threads: {case['threads']}"
    title = f"{place}, {height}×{width}, {case['images']} images: microseconds an image"
    rows = []
    for name, row in case["microseconds"].items():
        cells = [f"{row[library]:.1f}" if library in row else "–" for library in LIBRARIES]
        rows.append([name, *cells])
    lines = [*markdown([title, *LIBRARIES], rows), ""]
    for library, values in case["compared"].items():
        lines.append(
            f"{library}: mean {values['mean']:.1f}, ours over the same types {values['ours']:.1f}, "
            f"{values['times_as_fast']:.2f} times as fast; ours at worst takes "
            f"{values['worst_ratio']:.2f} times as long ({values['worst']})"
        )
    return lines


if __name__ == "__main__":
    run_script(main, parse_args)
