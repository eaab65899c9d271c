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
    """Read the command line."""
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
    """Write damaged files, have a child read them, and print what became of them."""
    if args.read:
        read(Path(args.folder), args.seconds, args.megabytes)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.folder or temporary)
        write(folder, args.files, args.seed)
        child = run_reader(folder, args.seconds, args.megabytes)
        lines = (folder / "read.jsonl").read_text().splitlines()
    if child.returncode:
        raise UserError(
            f"{child.stderr[-3000:]}\n"
            f"the reader ended with status {child.returncode} at {lines[-1]}"
        )
    rows = table([json.loads(line) for line in lines])
    print("\n".join([*rows, "", child.stdout.splitlines()[-1]]))


def run_reader(folder, seconds, megabytes):
    """Read the folder in a child, and return how it ended."""
    flags = (f"--seconds={seconds}", f"--megabytes={megabytes}", f"--folder={folder.resolve()}")
    module = "tests.stress.fuzz_images"
    command = [sys.executable, "-W", "ignore", "-m", module, "--read", *flags]
    # Its stderr is kept apart, because libtiff writes there too.
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def write(folder, count, seed):
    """Write train/ with one whole image, which a folder must have, and test/ with damaged ones."""
    (folder / "train").mkdir(parents=True)
    (folder / "test").mkdir()
    Image.new("RGB", (SIDE, SIDE)).save(folder / "train" / "0.png")
    rng = np.random.default_rng(seed)
    whole_files = encode_all()
    for i in tqdm(range(count), "writing", unit="file", leave=False):
        suffix, data = whole_files[i % len(whole_files)]
        _, other = whole_files[rng.integers(len(whole_files))]
        (folder / "test" / f"{i:07d}.{suffix}").write_bytes(damage(data, other, rng))


def encode_all():
    """Return [(suffix, bytes)] of whole images, several kinds of every format."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (24, 30, 3), dtype=np.uint8))
    smooth = noise.resize((40, 33))
    deep = Image.fromarray(rng.integers(0, 2**16, (24, 24), dtype=np.uint16))
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "words " * 50, zip=True)
    text.add_itxt("title", "wörter", zip=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # the orientation: turned by 90 degrees
    exif[0x010E] = "turned"  # the description
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
    return [(suffix, encode(image, formats[suffix], options)) for suffix, image, options in kinds]


def encode(image, name, options):
    """Return an image's file in the format of this name."""
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def damage(data, other, rng):
    """Do one or two kinds of damage to a file's bytes.

    Most PNGs get right checksums again. With wrong ones the decoder stops before it meets the rest.
    """
    data = bytearray(data)
    for kind in rng.integers(0, 5, rng.integers(1, 3)):
        start = rng.integers(max(1, len(data)))
        if kind == 0:
            flip_bytes(data, rng)
        elif kind == 1:
            del data[start:]
        elif kind == 2:
            edit_header(data, rng)
        elif kind == 3:
            drop_or_repeat(data, start, rng)
        else:
            data[start:] = other[rng.integers(len(other)) :]
    return bytes(with_checksums(data) if rng.random() < 0.8 else data)


def flip_bytes(data, rng):
    """Put random values in place of 1 to 16 bytes."""
    for place in rng.integers(0, max(1, len(data)), 2 ** rng.integers(0, 5)):
        data[place : place + 1] = rng.bytes(1)


def edit_header(data, rng):
    """Put an extreme number of 1, 2 or 4 bytes among the first 80."""
    place = rng.integers(0, 80)
    width = 2 ** rng.integers(0, 3)
    extremes = (b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", rng.bytes(4))
    data[place : place + width] = extremes[rng.integers(4)][:width]


def drop_or_repeat(data, start, rng):
    """Leave out a piece of up to 199 bytes, or repeat it."""
    piece = data[start : start + rng.integers(1, 200)]
    is_repeated = rng.integers(0, 2) == 1
    data[start : start + len(piece)] = piece + piece if is_repeated else b""


def with_checksums(data):
    """Give the chunks of a PNG right checksums, and return anything else as it is."""
    start = 8
    while data[:4] == b"\x89PNG" and start + 12 <= len(data):
        end = start + 8 + int.from_bytes(data[start : start + 4])
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[start + 4 : end]))
        start = end + 4
    return data


def read(folder, seconds, megabytes):
    """Load all of test/ under the limits, with a line for each file in read.jsonl.

    A file that takes longer than its limit ends the process by an alarm.
    """
    limit = own_memory() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    read_image = sources.read_image
    with open(folder / "read.jsonl", "w", buffering=1) as log:

        def read_and_log(path, side):
            log.write(json.dumps({"name": f"test/{path.name}"})[:-1])
            signal.alarm(seconds)
            started = time.perf_counter()
            image, reason = read_image(path, side)
            signal.alarm(0)
            spent = time.perf_counter() - started
            log.write(f', "reason": {json.dumps(reason)}, "seconds": {spent}}}\n')
            return image, reason

        sources.read_image = read_and_log
        sources.load_test_references(str(folder), sys.maxsize, SIDE, "none", 0, 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"not one crash; at most {peak:.0f} MB of memory in all")


def own_memory():
    """Return the bytes of data memory that this process takes now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "VmData":
            return int(value.split()[0]) * 1024
    raise UserError("/proc/self/status has no line VmData, by which the limit is set")


def table(lines):
    """Return a row for each format, then the slowest file."""
    rows = ["| files | read | skipped | most often because |", "|---|---|---|---|"]
    for name in dict.fromkeys(FORMATS.values()):
        found = [line["reason"] for line in lines if FORMATS[Path(line["name"]).suffix] == name]
        reasons = [reason for reason in found if reason is not None]
        starts = Counter(reason.split("(")[0].strip()[:40] for reason in reasons)
        most_common = max(starts, key=starts.get, default="")
        rows.append(f"| {name} | {len(found) - len(reasons)} | {len(reasons)} | {most_common} |")
    slowest = max(lines, key=lambda line: line["seconds"])
    return [*rows, "", f"{len(lines)} files; the slowest took {slowest['seconds']:.2f} s"]


if __name__ == "__main__":
    run_script(main, parse_args)
