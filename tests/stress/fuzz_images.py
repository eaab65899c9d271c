"""Read damaged image files: flipped bytes, cut ends, edited headers, spliced pieces.

    python -m tests.stress.fuzz_images
    python -m tests.stress.fuzz_images --files 100000 --seed 1

A child reads them as references, under a limit on its memory and on the time of a file. It must end
well: a file is either read, or named and skipped.
"""

import argparse
import io
import json
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin
from tqdm import tqdm

from references import sources
from references.reading import FORMATS
from utils.cli import MAX_SEED, HelpFormatter, int_in_range, run_script
from utils.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent
SIDE = 16  # pixels of a reference; the images are 24 or more


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--files", type=int_in_range(1), default=10_000, help="damaged files")
    add("--seed", type=int_in_range(0, MAX_SEED), default=0, help="of the damage")
    add("--seconds", type=int_in_range(1), default=20, help="limit for a file")
    add(
        "--megabytes",
        type=int_in_range(1),
        default=1500,
        help="limit for the child's memory beyond what its imports take",
    )
    add("--folder", help="where the files are made, and stay (default: a temporary folder)")
    add("--read", action="store_true", help=argparse.SUPPRESS)  # the child
    return parser.parse_args(argv)


def main(args):
    if args.read:
        return read(Path(args.folder), args.seconds, args.megabytes)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.folder or temporary)
        write(folder, args.files, args.seed)
        limits = (
            f"--seconds={args.seconds}",
            f"--megabytes={args.megabytes}",
            f"--folder={folder.resolve()}",
        )
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "tests.stress.fuzz_images",
            "--read",
            *limits,
        ]
        # libtiff writes to stderr.
        child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        *lines, last = (folder / "read.jsonl").read_text().splitlines()
        if child.returncode:
            raise UserError(
                f"{child.stderr[-3000:]}\nthe reader ended with status {child.returncode} at {last}"
            )
    lines = [json.loads(line) for line in (*lines, last)]
    print("\n".join([*table(lines), "", child.stdout.splitlines()[-1]]))


def write(folder, count, seed):
    """Write train/ with one whole image, for form's sake, and test/ with the damaged ones."""
    (folder / "train").mkdir(parents=True)
    (folder / "test").mkdir()
    Image.new("RGB", (SIDE, SIDE)).save(folder / "train" / "0.png")
    rng, whole_files = np.random.default_rng(seed), seeds()
    for i in tqdm(range(count), "writing", unit="file", leave=False):
        suffix, data = whole_files[i % len(whole_files)]
        other = whole_files[rng.integers(len(whole_files))][1]
        (folder / "test" / f"{i:07d}.{suffix}").write_bytes(damaged(data, other, rng))


def seeds():
    """Return [(suffix, bytes)] of whole images: every format in several of its kinds."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (24, 30, 3), dtype=np.uint8))
    smooth = noise.resize((40, 33))
    deep = Image.fromarray(rng.integers(0, 2**16, (24, 24), dtype=np.uint16))
    text, exif = PngImagePlugin.PngInfo(), Image.Exif()
    text.add_text("comment", "words " * 50, zip=True)
    text.add_itxt("title", "wörter", zip=True)
    exif[0x0112], exif[0x010E] = 6, "turned"
    palette = smooth.convert("P")
    animation = {"save_all": True, "append_images": [noise.rotate(90)]}
    pages = {"save_all": True, "append_images": [smooth]}
    kinds = [
        ("png", noise, {}),
        ("png", smooth, {"pnginfo": text, "exif": exif, "icc_profile": b"profile " * 20}),
        ("png", palette, {"transparency": 3}),
        ("png", deep, {}),
        ("png", noise.convert("1"), {}),
        ("png", noise, animation),
        ("jpg", smooth, {"exif": exif}),
        ("jpg", smooth, {"progressive": True}),
        ("jpg", noise.convert("CMYK"), {}),
        ("jpeg", noise.convert("L"), {"restart_marker_rows": 1}),
        ("webp", smooth, {"exif": exif}),
        ("webp", noise, {"lossless": True}),
        ("webp", smooth.convert("RGBA"), {}),
        ("webp", noise, animation),
        ("bmp", noise, {}),
        ("bmp", palette, {}),
        ("bmp", noise.convert("1"), {}),
        ("tif", smooth, {"compression": "raw"}),
        ("tif", smooth, {"compression": "tiff_lzw"}),
        ("tif", smooth, {"compression": "jpeg"}),
        ("tif", smooth, {"compression": "packbits"}),
        ("tif", noise, {"compression": "tiff_adobe_deflate"}),
        ("tiff", noise.convert("1"), {"compression": "group4"}),
        ("tiff", deep, {"exif": exif}),
        ("tiff", noise, pages),
    ]
    formats = {suffix[1:]: name for suffix, name in FORMATS.items()}
    return [(suffix, encoded(image, formats[suffix], options)) for suffix, image, options in kinds]


def encoded(image, name, options):
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def damaged(data, other, rng):
    """Do one or two kinds of damage.

    Most PNGs get right checksums again, or nothing behind these would be reached.
    """
    data = bytearray(data)
    for kind in rng.integers(0, 5, rng.integers(1, 3)):
        at = rng.integers(max(1, len(data)))
        if kind == 0:  # flipped bytes anywhere
            for place in rng.integers(0, max(1, len(data)), 2 ** rng.integers(0, 5)):
                data[place : place + 1] = rng.bytes(1)
        elif kind == 1:  # cut short
            del data[at:]
        elif kind == 2:  # an edited header: extreme numbers of 1, 2 or 4 bytes
            place, width = rng.integers(0, 80), 2 ** rng.integers(0, 3)
            extremes = b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", rng.bytes(4)
            data[place : place + width] = extremes[rng.integers(4)][:width]
        elif kind == 3:  # a piece left out or told twice
            piece = data[at : at + rng.integers(1, 200)]
            data[at : at + len(piece)] = piece * (2 * rng.integers(0, 2))
        else:  # the end of another file
            data[at:] = other[rng.integers(len(other)) :]
    return bytes(with_checksums(data) if rng.random() < 0.8 else data)


def with_checksums(data):
    """Give the chunks of a PNG right checksums, and return anything else as it is."""
    at = 8
    while data[:4] == b"\x89PNG" and at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return data


def read(folder, seconds, megabytes):
    """Load all of test/ under the limits, with a line for each file in read.jsonl.

    The alarm ends the process.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    limit = int(status["VmData"].split()[0]) * 1024 + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    read_image = sources.read_image
    with open(folder / "read.jsonl", "w", buffering=1) as log:

        def timed(path, side):
            log.write(json.dumps({"name": f"test/{path.name}"})[:-1])
            signal.alarm(seconds)
            started = time.perf_counter()
            image, why = read_image(path, side)
            signal.alarm(0)
            log.write(f', "why": {json.dumps(why)}, "seconds": {time.perf_counter() - started}}}\n')
            return image, why

        sources.read_image = timed
        sources.load_test_references(str(folder), sys.maxsize, SIDE, "none", 0, 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"not one crash; at most {peak:.0f} MB of memory in all")


def table(lines):
    """Return a row for each format, then the slowest file."""
    rows = ["| files | read | skipped | most often because |", "|---|---|---|---|"]
    for name in dict.fromkeys(FORMATS.values()):
        why = [line["why"] for line in lines if FORMATS[Path(line["name"]).suffix] == name]
        skipped = [reason for reason in why if reason is not None]
        common = Counter(reason.split("(")[0].strip()[:40] for reason in skipped).most_common(1)
        reason = common[0][0] if common else ""
        rows.append(f"| {name} | {len(why) - len(skipped)} | {len(skipped)} | {reason} |")
    slowest = max(lines, key=lambda line: line["seconds"])
    return [*rows, "", f"{len(lines)} files; the slowest took {slowest['seconds']:.2f} s"]


if __name__ == "__main__":
    run_script(main, parse_args)
