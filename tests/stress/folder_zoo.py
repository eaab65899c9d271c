"""A folder of odd files and names goes through training, packing, testing and predict.

    python -m tests.stress.folder_zoo
    python -m tests.stress.folder_zoo --folder zoo

What should become of each file is written down here, and is checked. The folder goes through the
same scripts that users run, and no script may print a traceback.
"""

import os
import shutil
import socket
import stat
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin

from models import load_run
from references.folders import list_files
from references.reading import read_image
from tests.helpers import ROOT, run_script, write_images
from utils import cli
from utils.errors import UserError

SIDE = 32  # pixels of a reference
READ = "read"  # the outcome of a file that is used; others are a part of the reason
NOT_LISTED = "not listed"  # hidden files, those that systems make, and what is no file
ORDINARY = 40  # noise images beside the zoo, so that there is enough to train on
TRAINING = (
    "--experiment_name=zoo --image_size=32 --train_samples=40 --val_samples=20 --epochs=1 "
    "--distortions_per_image=2 --batch_size=40 --n_clusters=2 --device=cpu --overwrite"
).split()


class Kind(NamedTuple):
    """A file of the zoo: its name, how it is made, and what becomes of it."""

    name: str | bytes
    make: Callable[[Path], object]
    outcome: str = READ


def noise(seed: int = 0, mode: str = "RGB", size: tuple[int, int] = (40, 36)) -> Image.Image:
    """Return an image of noise of its own."""
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def save(seed: int, mode: str = "RGB", size: tuple[int, int] = (40, 36), **options):
    """Return a function that saves noise to a path."""
    return lambda path: noise(seed, mode, size).save(path, **options)


def save_array(values: np.ndarray, **options):
    return lambda path: Image.fromarray(values).save(path, **options)


def write(data: bytes):
    return lambda path: path.write_bytes(data)


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """Return an EXIF block of (tag, type, count, value) as given, right or wrong."""
    head = struct.pack("<H", len(entries))
    values = b""
    first_value = 8 + 2 + 12 * len(entries) + 4
    for tag, kind, count, value in entries:
        head += struct.pack("<HHI", tag, kind, count)
        if len(value) <= 4:
            head += value.ljust(4, b"\0")
        else:
            head += struct.pack("<I", first_value + len(values))
            values += value
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + head + struct.pack("<I", 0) + values


def turned(orientation: int) -> tuple[int, int, int, bytes]:
    return 0x0112, 3, 1, struct.pack("<H", orientation)


ODD_TAG = (0x011A, 2, 10, b"300 dots\0\0")  # XResolution as text
DEEP = np.random.default_rng(90).integers(0, 2**16, (36, 40), dtype=np.uint16)


def png_with_chunk(kind: bytes, data: bytes, checksum: int | None = None):
    """Return a function that writes a PNG with one more chunk after its header."""

    def make(path):
        noise(95).save(path)
        whole = path.read_bytes()
        code = zlib.crc32(kind + data) if checksum is None else checksum
        chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", code)
        path.write_bytes(whole[:33] + chunk + whole[33:])

    return make


def png_with_text(path):
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "words " * 400_000, zip=True)
    noise(96).save(path, pnginfo=text)


def bomb(path):
    noise().save(path)
    data = path.read_bytes()
    header = b"IHDR" + struct.pack(">II", 100_000, 100_000) + data[24:29]
    path.write_bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])


def truncated(path):
    noise(97).save(path)
    os.truncate(path, path.stat().st_size // 2)


def with_garbage(path):
    noise(98).save(path)
    path.write_bytes(path.read_bytes() + b"\0garbage" * 500)


def copy_of_another(path):
    noise(1).save(path)


def link_to(target: str):
    return lambda path: path.symlink_to(target)


def bound_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # a path of a socket is short


def folder_with_image(path):
    path.mkdir()
    noise(99).save(path / "inside.png")


def animation(path):
    noise(100).save(path, save_all=True, append_images=[noise(101)], lossless=True)


ZOO = [
    # Names
    Kind("图片 照片.png", save(2)),
    Kind("صورة.png", save(3)),
    Kind("🙂🙃.png", save(4)),
    Kind("grüße_é.png", save(5)),
    Kind("gru\u0308ße_nfd.png", save(6)),
    Kind("My photo (1).png", save(7)),
    Kind("price_$5 `x` 'y' \"z\".png", save(8)),
    Kind("100%.png", save(9)),
    Kind("#1;2&3|4>5.png", save(10)),
    Kind("-rf.png", save(11)),
    Kind("two\nlines.png", save(12)),
    Kind("tab\tand\x1b[31mred.png", save(13)),
    Kind(b"latin-1 \xfc\xe9.png", save(14)),
    Kind("x" * 240 + ".png", save(15)),
    Kind("CON.png", save(16)),
    Kind("photo.tar.gz.png", save(17)),
    Kind("UPPER.PNG", save(18)),
    Kind("deep/er/and/deeper/x.png", save(19)),
    Kind("folder with spaces /x.png", save(20)),
    Kind("a folder.png", folder_with_image, NOT_LISTED),
    Kind("trailing space.png ", save(21, format="PNG"), NOT_LISTED),
    Kind("no_suffix", save(22, format="PNG"), NOT_LISTED),
    # What systems and programs leave
    Kind(".hidden.png", save(23), NOT_LISTED),
    Kind("._apple.png", write(b"\0\5\x16\7" + bytes(80)), NOT_LISTED),
    Kind("__MACOSX/x.png", save(24), NOT_LISTED),
    Kind(".ipynb_checkpoints/x-checkpoint.png", save(25), NOT_LISTED),
    Kind("@eaDir/x.png/SYNOPHOTO_THUMB_M.jpg", save(26), NOT_LISTED),
    Kind("Thumbs.db", write(b"\xd0\xcf\x11\xe0"), NOT_LISTED),
    Kind("IMG_0001.AAE", write(b"<plist>"), NOT_LISTED),
    Kind("labels.csv", write(b"a,b\n"), NOT_LISTED),
    Kind("IMG_0001.MOV", write(b"\0\0\0\x14ftypqt  "), NOT_LISTED),
    Kind("raw.DNG", write(b"II*\0"), NOT_LISTED),
    Kind("photos.zip", write(b"PK\3\4"), NOT_LISTED),
    Kind("drawing.svg", write(b"<svg/>"), NOT_LISTED),
    # Formats
    Kind("x.jpg", save(30)),
    Kind("x.JPEG", save(31)),
    Kind("x.jfif", save(32, format="JPEG")),
    Kind("x.webp", save(33)),
    Kind("x.bmp", save(34)),
    Kind("x.gif", save(35)),
    Kind("x.tiff", save(36)),
    Kind("x.avif", save(37)),
    Kind("x.jp2", save(38)),
    Kind("x.ppm", save(39)),
    Kind("x.tga", save(40)),
    Kind("progressive.jpg", save(41, progressive=True)),
    Kind("two_pictures.jpg", save(42, format="MPO", save_all=True, append_images=[noise(43)])),
    Kind("animated.png", animation),
    Kind("animated.webp", animation),
    Kind("pages.tif", save(44, save_all=True, append_images=[noise(45)])),
    Kind("a_png_called.jpg", save(46, format="PNG")),
    Kind("a_jpeg_called.png", save(47, format="JPEG")),
    Kind("phone.heic", write(b"\0\0\0\x18ftypheic" + bytes(40)), "HEIC needs|cannot identify|HEIF"),
    # Pixels
    Kind("grey.png", save(50, "L")),
    Kind("black_and_white.png", save(51, "1")),
    Kind("palette.png", save(52, "P")),
    Kind("palette_transparent.png", save(53, "P", transparency=3)),
    Kind("alpha.png", save(54, "RGBA")),
    Kind("grey_alpha.png", save(55, "LA")),
    Kind("cmyk.jpg", save(56, "CMYK")),
    Kind("lab.tif", save(57, "LAB")),
    Kind("16_bits.png", save_array(DEEP)),
    Kind("12_bits.png", save_array(DEEP // 16), "as if it had 12 bits"),
    Kind("16_bits.tif", save_array(DEEP + 1)),
    Kind("white_is_zero.tif", save_array(DEEP + 2, tiffinfo={262: 0})),
    Kind("float.tif", save_array(np.ones((36, 40), np.float32)), "have no known range"),
    Kind("small.png", save(58, size=(31, 90)), "is smaller than"),
    Kind("one_pixel.png", save(59, size=(1, 1)), "is smaller than"),
    Kind("panorama.png", save(60, size=(3000, 32))),
    # EXIF
    *(Kind(f"turned_{i}.jpg", save(60 + i, exif=exif(turned(i)), quality=95)) for i in range(1, 9)),
    Kind("turned_odd_tag.jpg", save(70, exif=exif(turned(6), ODD_TAG))),
    Kind("turned_odd_tag.png", save(71, exif=exif(turned(6), ODD_TAG))),
    Kind("turned_odd_tag.webp", save(72, exif=exif(turned(6), ODD_TAG))),
    Kind("turned_by_99.jpg", save(73, exif=exif(turned(99)))),
    Kind("broken_exif.jpg", save(74, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")),
    Kind("exif_of_text.jpg", save(75, exif=b"Exif\0\0no block at all")),
    # Damage
    Kind("empty.png", write(b""), "an empty file"),
    Kind("a_web_page.jpg", write(b"<!DOCTYPE html><html>404"), "not a JPEG file"),
    Kind(
        "git_lfs.png",
        write(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "not a PNG file",
    ),
    Kind("truncated.jpg", truncated, "truncated"),
    Kind("truncated.png", truncated, "truncated|broken"),
    Kind("garbage_after.jpg", with_garbage),
    Kind("wrong_checksum.png", png_with_chunk(b"tEXt", b"a\0b", checksum=1), "a damaged PNG file"),
    Kind("broken_profile.png", png_with_chunk(b"iCCP", b"name\0\0no stream")),
    Kind("much_text.png", png_with_text, "too large"),
    Kind("bomb.png", bomb, "decompression bomb"),
    # No files
    Kind("to_nothing.png", link_to("nothing.png"), "No such file"),
    Kind("to_itself.png", link_to("to_itself.png"), "symbolic links"),
    Kind("to_an_image.png", link_to("x.bmp"), READ),
    Kind("to_a_device.png", link_to("/dev/zero"), "not a regular file"),
    Kind("to_a_folder", link_to("deep"), NOT_LISTED),
    Kind("pipe.png", os.mkfifo, "not a regular file"),
    Kind("socket.png", bound_socket, "not a regular file"),
    Kind("copy.png", copy_of_another),
    Kind("original.png", copy_of_another),
]


def parse_args(argv=None):
    """Read the command line."""
    parser = cli.make_parser(__doc__)
    parser.add_argument("--folder", help="where the zoo is made, and stays (default: temporary)")
    return parser.parse_args(argv)


def main(args):
    """Build the zoo, check what becomes of each file, and send the folder through the scripts."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(args.folder or temporary).resolve()
        build(place / "zoo")
        problems = check_reading(place / "zoo")
        problems += check_scripts(place)
    if problems:
        raise UserError("\n".join(["the zoo is not treated as it should be:", *problems]))
    print(f"{len(ZOO)} kinds of files and names: each ended as it should")


def build(folder: Path) -> None:
    """Write every kind of file, and ordinary images beside them."""
    shutil.rmtree(folder, ignore_errors=True)
    write_images(folder / "ordinary", ORDINARY, start=1000)
    for kind in ZOO:
        path = folder / os.fsdecode(kind.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        kind.make(path)


def outcome_of(folder: Path, kind: Kind) -> str:
    """Return what becomes of a file: READ, NOT_LISTED, or the reason why it is skipped."""
    name = os.fsdecode(kind.name)
    if name not in list_files(folder, report=False).names:
        return NOT_LISTED
    image, reason = read_image(folder / name, SIDE)
    return READ if image is not None else reason or "no reason"


def is_expected(kind: Kind, outcome: str) -> bool:
    """Tell whether an outcome is the one that is written down."""
    return any(words in outcome for words in kind.outcome.split("|"))


def check_reading(folder):
    """Print each file's outcome, and return lines on those that are not as written down."""
    problems = []
    for kind in ZOO:
        outcome = outcome_of(folder, kind)
        name = ascii(os.fsdecode(kind.name))[1:-1][:50]
        print(f"{name:52}{outcome[:80]}")
        if not is_expected(kind, outcome):
            problems.append(f"{name}: {outcome!r} in place of {kind.outcome!r}")
    return problems


def check_scripts(place):
    """Send the zoo through the scripts and through predict. Return lines on what went wrong."""
    train = [*TRAINING, "--references=zoo"]
    test = ["--experiment=experiments/zoo", "--skip_tsne", "--references=zoo"]
    commands = {
        "training": ("train_with_distortions.py", train),
        "training, packed": ("train_with_distortions.py", [*train, "--cache_dir=cache"]),
        "testing": ("test_with_viz.py", test),
        "testing all, packed": (
            "test_with_viz.py",
            [*test, "--test_part=all", "--cache_dir=cache"],
        ),
        "the example figure": ("distorted_dataset.py", ["--references=zoo"]),
    }
    problems = []
    for title, (script, flags) in commands.items():
        status, output, errors = run_script(ROOT / script, flags, place)
        print(f"{title:52}status {status}")
        if status or "Traceback" in output + errors:
            problems.append(f"{title}: status {status}: {errors[-1000:]}")
    return problems + check_predict(place)


def check_predict(place):
    """Predict every file of the zoo as a user does, by Image.open."""
    run = load_run(place / "experiments" / "zoo")
    problems = []
    predicted = 0
    for kind in ZOO:
        path = place / "zoo" / os.fsdecode(kind.name)
        if not path.exists() or not stat.S_ISREG(path.stat().st_mode):
            continue
        try:
            with Image.open(path) as image:
                run.predict([image])
            predicted += 1
        except (ValueError, OSError, SyntaxError, Image.DecompressionBombError):
            continue  # Pillow's own answer to a damaged file, or ours, which is a ValueError
        except Exception as problem:
            problems.append(f"predict of {kind.name!r}: {type(problem).__name__}: {problem}")
    print(f"{'predict':52}{predicted} files")
    return problems


if __name__ == "__main__":
    cli.run_script(main, parse_args)
