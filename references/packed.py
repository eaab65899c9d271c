"""Pack a folder's images into one file that is read by index.

This is for folders that do not fit into memory. CACHE_DIR/32px_0123456789abcdef/ holds `images`,
(N, 32, 32, 3) uint8, and `index.jsonl`, a line for each file of the folder: [name, digest of its
pixels, null], or [name, null, the reason why it cannot be used]. In 512px_photographs_0123…/ each
image has a size of its own, and its line ends in height and width. The digits in the cache
folder's name are a hash of the files' paths, sizes and times. The index is called index.part until
it is complete; if packing is interrupted, the next run continues from it. The process that packs
holds a lock on the file `lock`.
"""

import hashlib
import json
import math
import os
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import torch
from tqdm import tqdm

from utils.errors import UserError
from utils.files import errors_name_file, fsync, try_lock

CHECKED_IMAGES = 1000  # so many images of a run are compared with their digests at its start
CHECKED_PHOTOGRAPHS = 100  # likewise, of photographs at a size of their own
FORMAT = 3  # part of the hash: raise it when the same files would give other pixels than before

ReadImage = Callable[[str], tuple[np.ndarray | None, str | None]]  # see reading.read_image


class _Bytes:
    """Reads bytes at places of a file.

    What was read does not stay in the process's memory. If the file is cut short during a run,
    reading raises UserError; with a memory-mapped file, the process would crash.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def read(self, start: int, count: int) -> bytes:
        """Return `count` bytes from `start` on."""
        data = os.pread(self._file, count, start)
        if len(data) < count:
            raise UserError(f"{self.path} is damaged; delete its folder, and it is made anew")
        return data


class PackedFile:
    """Reads images by index from a file that holds (M, S, S, 3) uint8."""

    def __init__(self, path: Path, count: int, side: int):
        self.shape = (count, side, side, 3)
        self._bytes = _Bytes(path)

    @property
    def path(self) -> Path:
        """The file's path."""
        return self._bytes.path

    def take(self, rows: np.ndarray | int) -> torch.Tensor:
        """Read images at rows (B,), int64, as (B, S, S, 3), or at one row as (S, S, 3)."""
        rows = np.asarray(rows)
        image_bytes = math.prod(self.shape[1:])
        pixels = np.empty(rows.size * image_bytes, np.uint8)
        view = memoryview(pixels)  # type: ignore[arg-type]
        for i, row in enumerate(rows.ravel().tolist()):
            image = self._bytes.read(row * image_bytes, image_bytes)
            view[i * image_bytes : (i + 1) * image_bytes] = image
        return torch.from_numpy(pixels).view(rows.shape + self.shape[1:])


class PackedImages:
    """Some of a packed file's images, indexed like a tensor (N, S, S, 3).

    An index reads its images from disk. A slice reads nothing and returns PackedImages.
    """

    def __init__(self, file: PackedFile, rows: torch.Tensor):
        self.file = file
        self.rows = rows  # (N,) int64
        self.shape = (len(rows), *file.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: slice) -> "PackedImages": ...
    @overload
    def __getitem__(self, index: torch.Tensor | int) -> torch.Tensor: ...
    def __getitem__(self, index: slice | torch.Tensor | int) -> "PackedImages | torch.Tensor":
        rows = self.rows[index]
        if isinstance(index, slice):
            return PackedImages(self.file, rows)
        return self.file.take(rows.numpy())


class PackedPhotographs:
    """Some of a packed file's photographs, of which windows are read from disk."""

    def __init__(self, data: _Bytes, starts: Sequence[int], sizes: Sequence[tuple[int, int]]):
        self._bytes = data
        self._starts = starts
        self.sizes = torch.tensor(sizes, dtype=torch.int64).view(-1, 2)  # (N, 2): height, width
        self._sizes = self.sizes.tolist()

    def window(self, i: int, top: int, left: int, side: int) -> np.ndarray:
        """Return the (side, side, 3) uint8 window of photograph i, as far as that reaches.

        It reads the window's rows.
        """
        height, width = self._sizes[i]
        row_count = min(side, height - top)
        start = self._starts[i] + 3 * width * top
        rows = np.frombuffer(self._bytes.read(start, 3 * width * row_count), np.uint8)
        return rows.reshape(row_count, width, 3)[:, left : left + side]


@dataclass(frozen=True)
class _Entry:
    """What the index says of a file."""

    digest: str | None
    reason: str | None  # why it cannot be used
    size: tuple[int, int]  # height and width
    start: int  # of its pixels in the file of images

    @property
    def byte_count(self):
        return 3 * self.size[0] * self.size[1]


class PackedFolder:
    """The images of a folder in a cache on disk, by the names of their files.

    side is None where each image has a size of its own.
    """

    def __init__(self, path: Path, side: int | None):
        self.path = path
        self._side = side
        self._entries: dict[str, _Entry] = {}
        start = 0
        for line in (path / "index.jsonl").read_bytes().splitlines():
            name, digest, reason, *size = json.loads(line)
            if reason is not None:
                size = (0, 0)
            entry = _Entry(digest, reason, size=tuple(size) or (side, side), start=start)
            self._entries[name] = entry
            start += entry.byte_count
        self._bytes = _Bytes(path / "images")
        self._total = start

    def look_up(self, name: str) -> tuple[str | None, str | None]:
        """Return (the image's digest, None) or (None, the reason why the file cannot be used).

        This reads no pixels.
        """
        entry = self._entries[name]
        return entry.digest, entry.reason

    def size_of(self, name: str) -> tuple[int, int]:
        """Return the height and the width of an image."""
        return self._entries[name].size

    def images(self, names: Sequence[str]) -> PackedImages:
        """Return the images of these files, which have one size, as PackedImages in this order.

        Raises UserError if one of those that are checked has changed.
        """
        assert self._side is not None
        self._check(names, at_most=CHECKED_IMAGES)
        image_bytes = 3 * self._side**2
        file = PackedFile(self._bytes.path, self._total // image_bytes, self._side)
        rows = [self._entries[name].start // image_bytes for name in names]
        return PackedImages(file, torch.tensor(rows, dtype=torch.int64))

    def photographs(self, names: Sequence[str]) -> PackedPhotographs:
        """Return the images of these files as PackedPhotographs, in this order.

        Raises UserError if one of those that are checked has changed.
        """
        self._check(names, at_most=CHECKED_PHOTOGRAPHS)
        entries = [self._entries[name] for name in names]
        starts = [entry.start for entry in entries]
        return PackedPhotographs(self._bytes, starts, sizes=[entry.size for entry in entries])

    def _check(self, names, at_most):
        """Compare up to at_most images, evenly spread, with their digests.

        Reading all would take as long as an epoch.
        """
        stride = max(1, math.ceil(len(names) / at_most))
        for name in names[::stride]:
            entry = self._entries[name]
            pixels = np.frombuffer(self._bytes.read(entry.start, entry.byte_count), np.uint8)
            if pixel_digest(pixels.reshape(*entry.size, 3)) != entry.digest:
                raise UserError(f"{self.path} is damaged; delete it, and it is made anew")


def pack(
    cache_dir: str | Path,
    folder: Path,
    names: Sequence[str],
    side: int | None,
    read: ReadImage,
    working_size: int | None = None,
) -> PackedFolder:
    """Pack these files of a folder, unless cache_dir holds them already.

    read(name) returns ((H, W, 3) uint8, None) or (None, the reason why the file cannot be used).
    All images are (side, side, 3), or, where side is None, photographs that were shrunk to
    working_size. If several processes call this for the same files, one packs and the others wait.
    """
    kind = f"{side}px" if side is not None else f"{working_size}px_photographs"
    path = Path(cache_dir).expanduser() / f"{kind}_{_cache_key(folder, names)}"
    path.mkdir(parents=True, exist_ok=True)
    index = path / "index.jsonl"
    part = path / "index.part"
    images = path / "images"
    with _lock_cache(path):
        if index.exists() and len(_valid_lines(index, images, names, side)) < len(names):
            print(f"{path} is damaged; what is missing is packed again")
            os.replace(index, part)
        if not index.exists():
            _pack_missing(part, images, names, side, read)
            os.replace(part, index)
    return PackedFolder(path, side)


def pixel_digest(image: np.ndarray | torch.Tensor) -> str:
    """Return 16 hexadecimal digits: a hash of an image (H, W, 3), channel after channel."""
    planes = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
    return hashlib.blake2b(planes.tobytes(), digest_size=8).hexdigest()


def _cache_key(folder, names):
    """Return 16 hexadecimal digits: a hash of the files' paths, sizes and times."""
    digest = hashlib.blake2b(str(FORMAT).encode(), digest_size=8)
    for name in names:
        path = os.path.join(os.path.abspath(folder), name)
        digest.update(b"\0" + os.fsencode(path))
        try:
            status = os.stat(path)
        except OSError:
            continue  # a broken link; it is reported when the file is read
        digest.update(f"\0{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


@contextmanager
def _lock_cache(folder):
    """Hold the cache folder's lock, which the system releases when the process ends or dies."""
    with open(folder / "lock", "a") as lock:
        if not try_lock(lock):
            print(f"waiting for another process that packs {folder}", flush=True)
            while not try_lock(lock):
                time.sleep(1)
        yield


def _pack_missing(part, images, names, side, read):
    """Append to the index and to the images what an interrupted run has not packed yet."""
    part.touch()
    images.touch()
    lines = _valid_lines(part, images, names, side)
    usable = sum(1 for line in lines if json.loads(line)[2] is None)
    os.truncate(part, sum(map(len, lines)))
    os.truncate(images, sum(_image_bytes(line, side) for line in lines))
    bar = tqdm(
        names[len(lines) :],
        desc="packing",
        total=len(names),
        initial=len(lines),
        unit="image",
        delay=2,
        leave=False,
    )
    with errors_name_file(part.parent), open(part, "ab") as index, open(images, "ab") as pixels:
        for name in bar:
            image, reason = read(name)
            line = [name, None, reason]
            if image is not None:
                pixels.write(np.ascontiguousarray(image))
                line = [name, pixel_digest(image), None]
                if side is None:
                    line += image.shape[:2]
                usable += 1
            index.write(json.dumps(line).encode() + b"\n")
        fsync(pixels)
        fsync(index)
    unusable = len(names) - usable
    print(
        f"packed {usable} images into {part.parent}; {unusable} files cannot be used: "
        "see index.jsonl"
    )


def _valid_lines(index, images, names, side):
    """Return the index's lines up to the first that is cut short, wrong, or lacks its pixels."""
    lines = index.read_bytes().splitlines(keepends=True)
    bytes_left = images.stat().st_size if images.exists() else 0
    for i, (line, name) in enumerate(zip(lines, names)):
        try:
            bytes_left -= _image_bytes(line, side)
            indexed_name = json.loads(line)[0]
        except (ValueError, TypeError, IndexError):
            return lines[:i]
        if indexed_name != name or bytes_left < 0 or not line.endswith(b"\n"):
            return lines[:i]
    return lines[: len(names)]


def _image_bytes(line, side):
    """Return how many bytes the image of an index's line has; 0 if it cannot be used."""
    _, _, reason, *size = json.loads(line)
    if reason is not None:
        return 0
    height, width = size if side is None else (side, side)
    return 3 * height * width
