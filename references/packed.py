"""Pack a folder's images, shrunk to one size, into one file that is read by index.

This is for folders that do not fit into memory. CACHE_DIR/32px_0123456789abcdef/ holds `images`,
(N, 32, 32, 3) uint8, and `index.jsonl`, a line for each file of the folder: [name, digest of its
pixels, null], or [name, null, the reason why it cannot be used]. The digits in the cache folder's
name are a hash of the files' paths, sizes and times. The index is called index.part until it is
complete; if packing is interrupted, the next run continues from it. The process that packs holds
a lock on the file `lock`.
"""

import hashlib
import json
import math
import os
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import overload

import numpy as np
import torch
from tqdm import tqdm

from utils.errors import UserError
from utils.files import errors_name_file, fsync, try_lock

CHECKED_IMAGES = 1000  # so many images of a run are compared with their digests at its start
FORMAT = 3  # part of the hash: raise it when the same files would give other pixels than before

ReadImage = Callable[[str], tuple[np.ndarray | None, str | None]]  # see reading.read_image


class PackedFile:
    """Reads images by index from a file that holds (M, S, S, 3) uint8.

    What was read does not stay in the process's memory. If the file is cut short during a run,
    reading raises UserError; with a memory-mapped file, the process would crash.
    """

    def __init__(self, path: Path, count: int, side: int):
        self.path = path
        self.shape = (count, side, side, 3)
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def take(self, rows: np.ndarray | int) -> torch.Tensor:
        """Read images at rows (B,), int64, as (B, S, S, 3), or at one row as (S, S, 3)."""
        rows = np.asarray(rows)
        image_bytes = math.prod(self.shape[1:])
        pixels = np.empty(rows.size * image_bytes, np.uint8)
        view = memoryview(pixels)  # type: ignore[arg-type]
        for i, row in enumerate(rows.ravel().tolist()):
            image = os.pread(self._file, image_bytes, row * image_bytes)
            if len(image) < image_bytes:
                raise UserError(f"{self.path} is damaged; delete its folder, and it is made anew")
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


class PackedFolder:
    """The images of a folder in a cache on disk, by the names of their files."""

    def __init__(self, path: Path, side: int):
        self.path = path
        self._rows: dict[str, int] = {}  # of the files that can be used
        self._entries: dict[str, tuple[str | None, str | None]] = {}  # digest, reason
        for line in (path / "index.jsonl").read_bytes().splitlines():
            name, digest, reason = json.loads(line)
            self._entries[name] = (digest, reason)
            if reason is None:
                self._rows[name] = len(self._rows)
        self._file = PackedFile(path / "images", count=len(self._rows), side=side)

    def look_up(self, name: str) -> tuple[str | None, str | None]:
        """Return (the image's digest, None) or (None, the reason why the file cannot be used).

        This reads no pixels.
        """
        return self._entries[name]

    def images(self, names: Sequence[str]) -> PackedImages:
        """Return the images of these files as PackedImages, in this order.

        Up to CHECKED_IMAGES of them, evenly spread, are compared with their digests, because
        reading all would take as long as an epoch. Raises UserError if one has changed.
        """
        stride = max(1, math.ceil(len(names) / CHECKED_IMAGES))
        for name in names[::stride]:
            digest, _ = self._entries[name]
            if pixel_digest(self._file.take(self._rows[name])) != digest:
                raise UserError(f"{self.path} is damaged; delete it, and it is made anew")
        rows = [self._rows[name] for name in names]
        return PackedImages(self._file, torch.tensor(rows, dtype=torch.int64))


def pack(
    cache_dir: str | Path, folder: Path, names: Sequence[str], side: int, read: ReadImage
) -> PackedFolder:
    """Pack these files of a folder, unless cache_dir holds them already.

    read(name) returns ((S, S, 3) uint8, None) or (None, the reason why the file cannot be used).
    If several processes call this for the same files, one packs and the others wait.
    """
    path = Path(cache_dir).expanduser() / f"{side}px_{_cache_key(folder, names)}"
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
    os.truncate(images, usable * 3 * side * side)
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
            digest = None
            if image is not None:
                pixels.write(np.ascontiguousarray(image))
                digest = pixel_digest(image)
                usable += 1
            index.write(json.dumps([name, digest, reason]).encode() + b"\n")
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
    image_count = images.stat().st_size // (3 * side * side) if images.exists() else 0
    usable = 0
    for i, (line, name) in enumerate(zip(lines, names)):
        try:
            indexed_name, _, reason = json.loads(line)
        except (ValueError, TypeError):
            return lines[:i]
        if reason is None:
            usable += 1
        if indexed_name != name or usable > image_count or not line.endswith(b"\n"):
            return lines[:i]
    return lines[: len(names)]
