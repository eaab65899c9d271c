"""References read from a packed file against references in memory: the process's memory, and an epoch's time for data.

    python benchmarks/packed_references.py
    python benchmarks/packed_references.py --images 20000 --counts 5000 20000

A folder of small PNG files is made and packed. Then a process of its own for each number of references and each way
makes an epoch of distorted images from it, as training does. RssAnon is memory that the process cannot do without,
RssFile pages of files that the system takes back where others need them; the most of either during the epoch counts.
At the end one process makes an epoch of all both ways at once, a step of each in turn, so that both meet the same load.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the project's modules

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from command_line import HelpFormatter, run_script, whole
from distorted_dataset import DistortedImageDataset
from distortions import DISTORTION_TYPES
from draws import permutation
from files import write_json
from references import load_training_references

BATCH_SIZE = 128


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--images", type=whole(10), default=200_000, help="files in the folder")
    add("--counts", type=whole(1), nargs="+", default=[50_000, 100_000, 200_000], help="numbers of references")
    add("--image_size", type=whole(8), default=32, help="side of a reference, pixels")
    add("--distortions_per_image", type=whole(1), default=1, help="distorted images a reference, beside the pristine")
    add("--folder", help="where the files and the cache are made, and stay (default: a temporary folder)")
    add("--output", default="packed_references.json", help="the numbers")
    add("--measure", help=argparse.SUPPRESS)  # the child
    return parser.parse_args(argv)


def main(args):
    if args.measure:
        way, count = args.measure.split(",")
        return print(json.dumps(both(args) if way == "both" else resident(args, way, int(count))))
    with tempfile.TemporaryDirectory() as temporary:
        args.folder = args.folder or temporary
        write_images(Path(args.folder, "images", "train"), args.images, args.image_size)
        packing = child(args, "packed", 1)["load_seconds"]
        rows = [child(args, way, count) for count in args.counts for way in ("packed", "memory")]
        seconds = child(args, "both", args.images)
    write_json(args.output, {"images": args.images, "packing_seconds": packing, "rows": rows, "epoch_seconds": seconds})
    print("\n".join(table(rows)))
    print(f"{args.images} images packed in {packing:.0f} s")
    packed, in_memory = seconds["packed"], seconds["memory"]
    print(f"data of an epoch: packed {packed:.1f} s, memory {in_memory:.1f} s, {100 * (packed / in_memory - 1):+.1f} %")


def write_images(folder, count, side):
    """Distinct small PNG files, 1000 in a folder, and one in test/, so that all of train/ may be trained on."""
    if folder.exists():
        return
    (folder.parent / "test").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in tqdm(range(count), "writing", unit="file", mininterval=10, leave=False):
        if i % 1000 == 0:
            below = folder / f"{i // 1000:04d}"
            below.mkdir(parents=True)
        pixels = np.full((side, side, 3), rng.integers(40, 216, 3), np.uint8)
        pixels[: side // 2, :: rng.integers(1, 4)] += rng.integers(0, 40, dtype=np.uint8)
        pixels.reshape(-1)[:4] = np.frombuffer(np.uint32(i).tobytes(), np.uint8)
        Image.fromarray(pixels).save(below / f"{i}.png", compress_level=1)
    Image.fromarray(pixels).save(folder.parent / "test" / "0.png")


def child(args, way, count):
    flags = "images", "image_size", "distortions_per_image", "folder"
    command = [sys.executable, __file__, f"--measure={way},{count}", *(f"--{f}={getattr(args, f)}" for f in flags)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()[-1])


def load(args, way, count):
    """(DistortedImageDataset of that many references, seconds that loading them took)."""
    started = time.perf_counter()
    where = str(Path(args.folder, "images")), count, 0, args.image_size, "none", 0
    references, _ = load_training_references(*where, Path(args.folder, "cache") if way == "packed" else None)
    return dataset_of(references, args), time.perf_counter() - started


def dataset_of(references, args):
    return DistortedImageDataset(references, DISTORTION_TYPES, args.distortions_per_image, turn=True, join=True)


def epoch(dataset):
    return dataset.batches(permutation(len(dataset), 0), BATCH_SIZE)


def resident(args, way, count):
    """The process's memory before there are references, and the most of it in an epoch."""
    before = memory()
    dataset, seconds = load(args, way, count)
    most = memory()
    for _ in epoch(dataset):
        most = {name: max(value, most[name]) for name, value in memory().items()}
    return {"way": way, "references": count, "load_seconds": seconds, "before": before, "most": most}


def memory():
    """{"RssAnon", "RssFile": MB}."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {line[0][:-1]: int(line[1]) / 1000 for line in lines if line[0] in ("RssAnon:", "RssFile:")}


def both(args):
    """{way: seconds}; who goes first changes from step to step."""
    packed, _ = load(args, "packed", args.images)
    kept = packed.references
    images = kept.images[torch.arange(len(kept))]
    in_memory = dataclasses.replace(kept, images=images)
    epochs = {"packed": epoch(packed), "memory": epoch(dataset_of(in_memory, args))}
    seconds, order = dict.fromkeys(epochs, 0.0), list(epochs)
    for _ in range(0, len(packed), BATCH_SIZE):
        for way in order:
            started = time.perf_counter()
            next(epochs[way])
            seconds[way] += time.perf_counter() - started
        order.reverse()
    return seconds


def table(rows):
    """A row a process, MB beyond what it held before there were references."""
    lines = ["| references | from | RssAnon, MB | RssFile, MB | loaded in, s |", "|---|---|---|---|---|"]
    for row in rows:
        more = [f"{row['most'][name] - row['before'][name]:.0f}" for name in ("RssAnon", "RssFile")]
        lines.append(f"| {row['references']} | {row['way']} | {' | '.join(more)} | {row['load_seconds']:.1f} |")
    return lines


if __name__ == "__main__":
    run_script(main, parse_args)
