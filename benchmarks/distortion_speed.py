"""How long each distortion takes an image: ours on a batch, albumentations, kornia, and OpenCV in a plain loop.

    python -m benchmarks.distortion_speed
    python -m benchmarks.distortion_speed --threads 1 --devices cpu --rounds 31

Everyone starts from uint8 images and gives uint8 images, in the shape of its own kind: ours takes a batch in the memory
layout of training's references, kornia a batch of planes, the others one image after the other. --threads go to torch
and to OpenCV. Rounds are to_nhwc, and a time is the median over them. Means and ratios take only the types that
both have. The last row is the stream that training uses: one call, all types at once, levels from 0.2 to 1.
Writes <output>/distortions.json and distortions.md.
"""

import argparse
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from ablations.tables import markdown
from benchmarks.peers import (
    LEVEL,
    MATCH,
    albumentations_transforms,
    kornia_functions,
    opencv_functions,
)
from distorted_dataset import PIXELS_AT_ONCE
from distortions.registry import DISTORTION_TYPES, MAX_LEVEL, MIN_LEVEL, distort
from distortions.uint8_ops import to_nchw, to_nhwc
from references.sources import load_photo
from utils.cli import HelpFormatter, int_in_range, run_script
from utils.files import write_json
from utils.rng import fold_in

LIBRARIES = "ours", "albumentations", "kornia", "opencv_loop"
SIZES = (32, 32), (480, 320)  # height, width
STREAM = "stream of all types"


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add(
        "--threads",
        nargs="+",
        type=int_in_range(1),
        default=[1, 2],
        help="CPU threads, one table each",
    )
    add(
        "--devices",
        nargs="+",
        default=devices(),
        choices=devices(),
        help="where ours and kornia run",
    )
    add("--rounds", type=int_in_range(1), default=15, help="a time is the median of so many")
    add(
        "--pixels",
        type=int_in_range(64),
        default=PIXELS_AT_ONCE,
        help="of a batch, on a CPU; 16 times as many on a GPU",
    )
    add("--output", default="benchmarks/results", help="folder of the tables and numbers")
    return parser.parse_args(argv)


def devices():
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def main(args):
    cases = [
        time_case(device, threads, size, args)
        for device in args.devices
        for threads in (args.threads if device == "cpu" else [1])
        for size in SIZES
    ]
    lines = [line for case in cases for line in (*case_table(case), "")]
    print("\n".join([*lines, *(f"{name}: {match}" for name, match in MATCH.items())]))
    Path(args.output).mkdir(parents=True, exist_ok=True)
    (Path(args.output) / "distortions.md").write_text("\n".join(lines))
    write_json(
        Path(args.output) / "distortions.json", {"match": MATCH, "level": LEVEL, "cases": cases}
    )


def time_case(device, threads, size, args):
    """{…, "microseconds": {type: {library: time an image}}} for one device, number of threads and size."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    pixels = args.pixels * (16 if device == "cuda" else 1)
    torch.empty(
        31 * 2**20, dtype=torch.uint8
    )  # freed at once: glibc then keeps what it is given back, as after a step
    images = photographs(max(1, pixels // (size[0] * size[1])), *size)
    times = {
        name: time_rounds(jobs, args.rounds, device)
        for name, jobs in jobs_of(images, device).items()
    }
    times = {
        name: {job: 1e6 * t / len(images) for job, t in row.items()} for name, row in times.items()
    }
    where = (
        torch.cuda.get_device_name()
        if device == "cuda"
        else f"CPU, {threads} thread{'s' * (threads > 1)}"
    )
    means = {library: compare(times, library) for library in LIBRARIES[1:]}
    return {
        "where": where,
        "size": size,
        "images": len(images),
        "microseconds": times,
        "compared": means,
    }


def photographs(count, height, width):
    """(N, 3, H, W) uint8 pieces of the photographs that come with the dependencies."""
    photos = [torch.from_numpy(np.array(load_photo(i))) for i in range(7)]
    photos = [photo for photo in photos if photo.shape[0] >= height and photo.shape[1] >= width]
    corner = np.random.default_rng(0)
    pieces = []
    for i in range(count):
        photo = photos[i % len(photos)]
        top, left = (
            corner.integers(side - piece + 1) for side, piece in zip(photo.shape, (height, width))
        )
        pieces.append(photo[top : top + height, left : left + width])
    return to_nchw(torch.stack(pieces))


def jobs_of(images, device):
    """{type: {library: function without arguments that distorts all images}}, and our stream."""
    batch, arrays = images.to(device), list(to_nhwc(images).numpy())
    planes = batch.contiguous()
    count, keys = len(images), fold_in(0, torch.arange(len(images)))
    ones, level, label = (
        torch.ones(count),
        torch.full((count,), LEVEL),
        torch.zeros(count, dtype=torch.int64),
    )

    def ours(name):
        return lambda: distort(batch, (name,), label, level, ones, keys)

    def on_cpu(function):
        return lambda: [function(array) for array in arrays]

    def in_float(function):
        return lambda: function(planes.float() / 255).clamp(0, 1).mul(255).round().to(torch.uint8)

    jobs = {name: {"ours": ours(name)} for name in DISTORTION_TYPES}
    for library, functions, lift in (("albumentations", albumentations_transforms(), on_cpu),
                                     ("kornia", kornia_functions(), in_float),
                                     ("opencv_loop", opencv_functions(), on_cpu)):  # fmt: skip
        for name, function in functions.items():
            jobs[name][library] = lift(function)
    levels, types = (
        torch.linspace(MIN_LEVEL, MAX_LEVEL, count),
        torch.arange(count) % len(DISTORTION_TYPES),
    )
    signs = torch.where(keys < 0, -1, 1)
    jobs[STREAM] = {"ours": lambda: distort(batch, DISTORTION_TYPES, types, levels, signs, keys)}
    return jobs


def time_rounds(jobs, rounds, device):
    """{library: median seconds}; a round runs each job once."""
    times = {library: [] for library in jobs}
    for round in range(rounds + 1):  # the first warms up
        for library, job in jobs.items():
            wait(device)
            start = time.perf_counter()
            job()
            wait(device)
            times[library].append(time.perf_counter() - start)
    return {library: statistics.median(values[1:]) for library, values in times.items()}


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def compare(times, library):
    """Over the types that this library has: its mean, ours, how many times as fast ours is, and the type where ours
    does worst beside it."""
    both = {name: row for name, row in times.items() if library in row}
    theirs, ours = (statistics.mean(row[who] for row in both.values()) for who in (library, "ours"))
    ratios = {name: row["ours"] / row[library] for name, row in both.items()}
    worst = max(ratios, key=ratios.get)
    return {
        "mean": theirs,
        "ours": ours,
        "times_as_fast": theirs / ours,
        "worst": worst,
        "worst_ratio": ratios[worst],
    }


def case_table(case):
    """A row a type of one case, then the stream, the means and what they say."""
    height, width = case["size"]
    title = f"{case['where']}, {height}×{width}, {case['images']} images: microseconds an image"
    rows = [
        [name, *(f"{row[library]:.1f}" if library in row else "–" for library in LIBRARIES)]
        for name, row in case["microseconds"].items()
    ]
    said = [
        f"{library}: mean {of['mean']:.1f}, ours over the same types {of['ours']:.1f}, {of['times_as_fast']:.2f} times "
        f"as fast; ours at worst takes {of['worst_ratio']:.2f} times as long ({of['worst']})"
        for library, of in case["compared"].items()
    ]
    return [*markdown([title, *LIBRARIES], rows), "", *said]


if __name__ == "__main__":
    run_script(main, parse_args)
