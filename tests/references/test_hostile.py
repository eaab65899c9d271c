"""Files made to do harm: each is named and skipped, soon and without much memory."""

import os
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models import load_run
from references.reading import FORMATS, read_image
from references.sources import load_test_references, load_training_references
from tests.helpers import ROOT, write_images
from tests.stress import fuzz_images
from utils.checkpoint import FORMAT
from utils.errors import UserError

HUGE = 100_000  # pixels a side
MOST_OF_16_BITS = 65_535  # pixels a side: the most that a JPEG file can say


def make_noise(seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png_chunk(kind, data):
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def huge_png(path):
    header = struct.pack(">IIBBBBB", HUGE, HUGE, 8, 2, 0, 0, 0)
    chunks = (
        png_chunk(b"IHDR", header),
        png_chunk(b"IDAT", zlib.compress(b"\0" * 1000)),
        png_chunk(b"IEND", b""),
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def huge_bmp(path):
    make_noise().save(path)
    data = path.read_bytes()
    path.write_bytes(data[:18] + struct.pack("<ii", HUGE, HUGE) + data[26:])


def huge_tiff(path):
    make_noise().save(path)
    data = path.read_bytes()
    for tag in (256, 257):  # width and height, as one number of 4 or of 2 bytes
        entries = [struct.pack("<HHI", tag, number_type, 1) for number_type in (4, 3)]
        at = max(data.find(entry) for entry in entries)
        assert at >= 0
        data = data[:at] + entries[0] + struct.pack("<I", HUGE) + data[at + 12 :]
    path.write_bytes(data)


def huge_jpeg(path):
    make_noise().save(path)
    data = bytearray(path.read_bytes())
    at = data.find(b"\xff\xc0") + 5
    data[at : at + 4] = 2 * MOST_OF_16_BITS.to_bytes(2, "big")
    path.write_bytes(data)


def huge_webp(path):
    side_minus_1 = (MOST_OF_16_BITS - 1).to_bytes(3, "little")
    canvas = bytes(4) + 2 * side_minus_1
    header = b"WEBPVP8X" + struct.pack("<I", 10)
    path.write_bytes(b"RIFF" + struct.pack("<I", 22) + header + canvas)


def truncated(path):
    make_noise().save(path)
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    path.touch()


def text(path):
    path.write_text("no image")


def link_to_itself(path):
    path.symlink_to(path.name)


def link_to_nothing(path):
    path.symlink_to("nothing.png")


def link_to_a_device(path):
    path.symlink_to("/dev/zero")


def pipe(path):
    os.mkfifo(path)


def huge_file(path):
    path.write_bytes(b"RIFF\0\0\0\0WEBPVP8L")
    os.truncate(path, 2**40)


def missing_chunk(path):
    make_noise().save(path)
    path.write_bytes(path.read_bytes()[:33] + struct.pack(">I", 2**31 - 1) + b"IDAT")


# Without its plug-in, Pillow cannot write the files of phones.
SUFFIXES = [suffix for suffix, name in FORMATS.items() if name != "HEIF"]
HOSTILE = {
    "bomb.png": huge_png,
    "bomb.bmp": huge_bmp,
    "bomb.tif": huge_tiff,
    "bomb.jpg": huge_jpeg,
    "bomb.webp": huge_webp,
    **{f"truncated{suffix}": truncated for suffix in SUFFIXES},
    **{f"empty{suffix}": empty for suffix in SUFFIXES},
    **{f"text{suffix}": text for suffix in SUFFIXES},
    "loop.png": link_to_itself,
    "dangling.png": link_to_nothing,
    "device.png": link_to_a_device,
    "pipe.png": pipe,
    "huge_file.webp": huge_file,
    "chunk.png": missing_chunk,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_named_and_skipped(tmp_path, name, capsys):
    write_images(tmp_path / "train", 3)
    write_images(tmp_path / "test", 1)
    HOSTILE[name](tmp_path / "train" / name)

    with pytest.raises(ValueError, match="has 3 for training"):
        load_training_references(str(tmp_path), 4, 1, 32, "none", 0)

    output = capsys.readouterr().out
    assert f"skipped train/{name} (" in output
    assert "; skipped: 1 " in output


def test_hostile_files_take_little_memory_and_time(tmp_path):
    """One process reads all of them within 30 seconds and 200 MB more than its imports take."""
    write_images(tmp_path / "train", 1)
    write_images(tmp_path / "test", 1)
    for name, make in HOSTILE.items():
        make(tmp_path / "test" / name)

    command = [sys.executable, "-W", "ignore", "-c", READ_WITHIN_LIMITS, tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr


READ_WITHIN_LIMITS = """
import resource, signal, sys
from references.sources import load_test_references

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
signal.alarm(30)
references, _ = load_test_references(sys.argv[1], 1000, 32, "none", 0, 0)
more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert len(references) == 1, len(references)
assert more < 200_000, more
"""


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_of_another_format_than_its_name_is_read(tmp_path, suffix):
    path = tmp_path / f"other{suffix}"
    make_noise().save(path, "BMP" if suffix == ".png" else "PNG")

    pixels, reason = read_image(path, 32)

    assert reason is None
    assert np.array_equal(pixels, np.asarray(make_noise()))


@pytest.mark.parametrize("suffix", (".png", ".webp", ".gif", ".tif"))
def test_of_an_animation_the_first_frame_is_read(tmp_path, suffix):
    path = tmp_path / f"animated{suffix}"
    first = make_noise().convert("L") if suffix == ".gif" else make_noise()
    others = [make_noise(1).convert(first.mode)]
    first.save(path, save_all=True, append_images=others, lossless=True)

    pixels, reason = read_image(path, 32)

    assert reason is None
    assert np.array_equal(pixels, np.asarray(first.convert("RGB")))


def test_links_to_folders_are_named_and_not_followed(tmp_path, capsys):
    write_images(tmp_path / "train", 3)
    write_images(tmp_path / "test", 1)
    (tmp_path / "train" / "again").symlink_to(tmp_path / "train")
    (tmp_path / "train" / "out").symlink_to("/")

    train, _ = load_training_references(str(tmp_path), 2, 1, 32, "none", 0)

    assert len(train) == 2
    output = capsys.readouterr().out
    for name in ("again", "out"):
        assert f"skipped train/{name} (links to folders are not followed)" in output


def test_a_link_to_an_image_is_read_as_that_image(tmp_path):
    write_images(tmp_path / "elsewhere", 1)
    (tmp_path / "a.png").symlink_to("elsewhere/000.png")

    linked, _ = read_image(tmp_path / "a.png", 32)
    expected, _ = read_image(tmp_path / "elsewhere" / "000.png", 32)

    assert np.array_equal(linked, expected)


@pytest.mark.parametrize(
    "save", (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value)))
)
def test_a_checkpoint_with_code_is_refused_and_not_run(tmp_path, save):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was_run"),)

    save({"format": FORMAT, "model": Hostile()}, tmp_path / "best.pt")

    message = "best.pt is not a checkpoint of this project, or is damaged"
    with pytest.raises(UserError, match=message):
        load_run(tmp_path)

    assert not (tmp_path / "was_run").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_skipped(tmp_path):
    write_images(tmp_path, 1)
    (tmp_path / "000.png").chmod(0)

    _, reason = read_image(tmp_path / "000.png", 32)

    assert "Permission denied" in reason


def test_names_that_cannot_be_printed_are_escaped(tmp_path, capsys):
    for split in ("train", "test"):
        write_images(tmp_path / split, 1)
        (tmp_path / split / "two\nlines\x1b[31m.png").write_text("no image")
        no_unicode = Path(os.fsdecode(bytes(tmp_path / split) + b"/\xff.png"))
        no_unicode.write_bytes((tmp_path / split / "000.png").read_bytes())

    references, _ = load_test_references(str(tmp_path), 9, 32, "none", 0, 0)

    assert references.names in (("test/000.png",), (r"test/\udcff.png",))
    assert (
        r"skipped test/two\nlines\x1b[31m.png (not a PNG file, nor another image)"
        in capsys.readouterr().out
    )


def test_a_file_of_several_pages_is_its_first(tmp_path):
    path = tmp_path / "pages.tif"
    make_noise().save(path, save_all=True, append_images=[make_noise(1)])

    pixels, _ = read_image(path, 32)

    assert np.array_equal(pixels, np.asarray(make_noise()))


def test_a_phones_file_of_two_pictures_is_read(tmp_path):
    path = tmp_path / "phone.jpg"
    make_noise().save(path, "MPO", save_all=True, append_images=[make_noise(1)])

    pixels, reason = read_image(path, 32)

    assert reason is None
    assert pixels.shape == (32, 32, 3)


def test_hundreds_of_damaged_files_are_read_or_skipped(capsys):
    fuzz_images.main(fuzz_images.parse_args(["--files=400", "--seed=5"]))

    output = capsys.readouterr().out
    assert "400 files" in output
    assert "not one crash" in output
