"""Folders and files made to do harm: each file is named and skipped, soon and without much memory."""

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
from references import sources
from references.sources import load_test_references, load_training_references, read_image
from tests.references.test_sources import write_images
from tests.stress import fuzz_images
from utils.checkpoint import FORMAT
from utils.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent
HUGE = 100_000  # pixels a side


def picture(count=0):
    return Image.fromarray(
        np.random.default_rng(count).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    )


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(path):
    header = struct.pack(">IIBBBBB", HUGE, HUGE, 8, 2, 0, 0, 0)
    end = chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + end)


def huge_bmp(path):
    picture().save(path)
    path.write_bytes(
        path.read_bytes()[:18] + struct.pack("<ii", HUGE, HUGE) + path.read_bytes()[26:]
    )


def huge_tiff(path):
    picture().save(path)
    data = path.read_bytes()
    for tag in (256, 257):  # width and height, here of 4 bytes each
        entry = struct.pack("<HHI", tag, 4, 1)
        assert entry in data or struct.pack("<HHI", tag, 3, 1) in data
        at = max(data.find(entry), data.find(struct.pack("<HHI", tag, 3, 1)))
        data = data[:at] + entry + struct.pack("<I", HUGE) + data[at + 12 :]
    path.write_bytes(data)


def huge_jpeg(path):
    picture().save(path)
    data = bytearray(path.read_bytes())
    at = data.find(b"\xff\xc0") + 5
    data[at : at + 4] = b"\xff\xff\xff\xff"  # 65535, the most that the format can say
    path.write_bytes(data)


def huge_webp(path):
    canvas = b"\0" * 4 + 2 * (2**16 - 2).to_uint8(
        3, "little"
    )  # 65535, about the most that the format can say
    path.write_bytes(b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + canvas)


def truncated(path):
    picture().save(path)
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    path.touch()


def other_format(path):
    picture().save(path, "GIF" if path.suffix == ".png" else "PNG")


def text(path):
    path.write_text("no image")


def animated(path):
    picture().save(path, save_all=True, append_images=[picture(1)], lossless=True)


def loop(path):
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


def a_chunk_that_is_not_there(path):
    picture().save(path)
    path.write_bytes(path.read_bytes()[:33] + struct.pack(">I", 2**31 - 1) + b"IDAT")


HOSTILE = {
    "bomb.png": huge_png, "bomb.bmp": huge_bmp, "bomb.tif": huge_tiff, "bomb.jpg": huge_jpeg, "bomb.webp": huge_webp,
    **{f"truncated{suffix}": truncated for suffix in sources.FORMATS},
    **{f"empty{suffix}": empty for suffix in sources.FORMATS},
    **{f"text{suffix}": text for suffix in sources.FORMATS},
    **{f"other{suffix}": other_format for suffix in sources.FORMATS},
    "animated.png": animated, "animated.webp": animated,
    "loop.png": loop, "dangling.png": link_to_nothing, "device.png": link_to_a_device, "pipe.png": pipe,
    "huge_file.webp": huge_file, "chunk.png": a_chunk_that_is_not_there,
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_named_and_skipped(tmp_path, name, capsys):
    write_images(tmp_path / "train", 3)
    write_images(tmp_path / "test", 1)
    HOSTILE[name](tmp_path / "train" / name)
    with pytest.raises(ValueError, match="has 3 for training"):
        load_training_references(str(tmp_path), 4, 1, 32, "none", 0)
    output = capsys.readouterr().out
    assert f"skipped train/{name} (" in output and "1 unusable images" in output


def test_hostile_files_take_little_memory_and_time(tmp_path):
    """All of them in one process that may not take 200 MB more than its imports, under an alarm."""
    write_images(tmp_path / "train", 1)
    write_images(tmp_path / "test", 1)
    for name, make in HOSTILE.items():
        make(tmp_path / "test" / name)
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LIMITED, ROOT, tmp_path], check=True, timeout=120
    )


LIMITED = """
import resource, signal, sys
from references.sources import load_test_references
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
signal.alarm(30)
references, _ = load_test_references(sys.argv[2], 1000, 32, "none", 0, 0)
more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert len(references) == 1 and more < 200_000, (len(references), more)
"""


def test_links_to_folders_are_named_and_not_followed(tmp_path, capsys):
    write_images(tmp_path / "train", 3)
    write_images(tmp_path / "test", 1)
    (tmp_path / "train" / "again").symlink_to(tmp_path / "train")
    (tmp_path / "train" / "out").symlink_to("/")
    assert len(load_training_references(str(tmp_path), 2, 1, 32, "none", 0)[0]) == 2
    output = capsys.readouterr().out
    assert all(
        f"skipped train/{name} (links to folders are not followed)" in output
        for name in ("again", "out")
    )


def test_a_link_to_an_image_elsewhere_is_read_as_that_image(tmp_path):
    write_images(tmp_path / "elsewhere", 1)
    (tmp_path / "a.png").symlink_to("elsewhere/000.png")
    assert np.array_equal(
        read_image(tmp_path / "a.png", 32)[0], read_image(tmp_path / "elsewhere" / "000.png", 32)[0]
    )


@pytest.mark.parametrize(
    "save", (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value)))
)
def test_a_checkpoint_with_code_is_refused_and_runs_nothing(tmp_path, save):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was_run"),)

    save({"format": FORMAT, "model": Hostile()}, tmp_path / "best.pt")
    with pytest.raises(
        UserError, match="best.pt is not a checkpoint of this project, or is damaged"
    ):
        load_run(tmp_path)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_skipped(tmp_path):
    write_images(tmp_path, 1)
    (tmp_path / "000.png").chmod(0)
    assert "Permission denied" in read_image(tmp_path / "000.png", 32)[1]


def test_names_that_cannot_be_printed_are_escaped(tmp_path, capsys):
    for part in ("train", "test"):
        write_images(tmp_path / part, 1)
        (tmp_path / part / "two\nlines\x1b[31m.png").write_text("no image")
        Path(os.fsdecode(bytes(tmp_path / part) + b"/\xff.png")).write_bytes(
            (tmp_path / part / "000.png").read_bytes()
        )
    found, _ = load_test_references(str(tmp_path), 9, 32, "none", 0, 0)
    assert found.names in (("test/000.png",), (r"test/\udcff.png",))
    assert r"skipped test/two\nlines\x1b[31m.png (not a PNG file)" in capsys.readouterr().out


def test_mpo_and_several_pages_count_as_their_first_picture(tmp_path):
    picture().save(tmp_path / "pages.tif", save_all=True, append_images=[picture(1)])
    picture().save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[picture(1)])
    assert np.array_equal(
        read_image(tmp_path / "pages.tif", 32)[0], np.asarray(picture()).transpose(2, 0, 1)
    )
    assert read_image(tmp_path / "phone.jpg", 32)[1] is None


def test_a_few_hundred_damaged_files_are_read_or_skipped(capsys):
    fuzz_images.main(fuzz_images.parse_args(["--files=400", "--seed=5"]))
    output = capsys.readouterr().out
    assert "400 files" in output and "not one crash" in output
