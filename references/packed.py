"""A folder's images at one size in one file, made once and read by index.

This is for folders that do not fit into memory. CACHE_DIR/32px_0123456789abcdef/ holds `images`,
(N, 32, 32, 3) uint8, and `index.jsonl`, a line for each file of the folder: [name, digest of its
pixels, null], or [name, null, the reason why it cannot be used]. The digits of the folder's name
stand for the files' names, sizes and times. The index is called index.part until all is there,
and packing that was interrupted goes on from it. The process that packs holds `lock`.
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
from typing import NamedTuple, overload

import numpy as np
import torch
from tqdm import tqdm

from utils.errors import UserError
from utils.files import errors_name_file, fsync, try_lock

CHECKED_IMAGES = 1000  # of a run's, whose pixels are compared with the index before training
FORMAT = 2  # part of the folder's name: raise it where files come to other pixels than before

ReadImage = Callable[[str], tuple[np.ndarray | None, str | None]]  # see reading.read_image


class PackedFile:
    """A file of images (M, S, S, 3) uint8, read by index.

    Nothing of it stays in the process's memory. A file that is cut short under a run raises
    UserError, which a mapped file would not survive.
    """

    def __init__(self, path: Path, count: int, side: int):
        self.path = path
        self.shape = (count, side, side, 3)
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def take(self, rows: np.ndarray | int) -> torch.Tensor:
        """Read these rows (B,), int64, or this row."""
        rows = np.asarray(rows)
        image_bytes = math.prod(self.shape[1:])
        pixels = np.empty(rows.size * image_bytes, np.uint8)
        view = memoryview(pixels)  # type: ignore[arg-type]
        for i, row in enumerate(rows.ravel().tolist()):
            image = os.pread(self._file, image_bytes, row * image_bytes)
            if len(image) < image_bytes:
                raise UserError(f"{self.path} is damaged; delete its folder, and it is made anew")
            view[i * image_bytes : (i + 1) * image_bytes] = image
        return torch.from_numpy(pixels).view(*rows.shape, *self.shape[1:])


class PackedImages:
    """Rows of a packed file, indexed as a tensor (N, S, S, 3) is.

    What is asked for is read; a slice reads nothing.
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
    def __getitem__(self, index):
        rows = self.rows[index]
        if isinstance(index, slice):
            return PackedImages(self.file, rows)
        return self.file.take(rows.numpy())


class _IndexEntry(NamedTuple):
    row: int  # of the images, where it can be used
    digest: str | None
    reason: str | None  # why it cannot be used


class Packed:
    """A packed folder."""

    def __init__(self, path: Path, side: int):
        self.path = path
        self._entries: dict[str, _IndexEntry] = {}
        rows = 0
        for line in (path / "index.jsonl").read_bytes().splitlines():
            name, digest, reason = json.loads(line)
            self._entries[name] = _IndexEntry(rows, digest, reason)
            rows += reason is None
        self._file = PackedFile(path / "images", rows, side)

    def look_up(self, name: str) -> tuple[str | None, str | None]:
        """Return (the image's digest, None) or (None, the reason why the file cannot be used).

        No pixel is read for it.
        """
        entry = self._entries[name]
        return entry.digest, entry.reason

    def images(self, names: Sequence[str]) -> PackedImages:
        """Return PackedImages in the order of these names.

        Raises UserError where some of them, evenly spread, are not what was packed. To read all
        would take as long as an epoch.
        """
        stride = -(-len(names) // CHECKED_IMAGES) or 1
        for name in names[::stride]:
            entry = self._entries[name]
            if pixel_digest(self._file.take(entry.row)) != entry.digest:
                raise UserError(f"{self.path} is damaged; delete it, and it is made anew")
        rows = [self._entries[name].row for name in names]
        return PackedImages(self._file, torch.tensor(rows, dtype=torch.int64))


def pack(
    cache_dir: str | Path, folder: Path, names: Sequence[str], side: int, read: ReadImage
) -> Packed:
    """Return the packed files of a folder, from cache_dir where they are there already.

    read(name) gives ((S, S, 3) uint8, None) or (None, the reason why not). Of several processes
    that ask for the same, one packs and the others wait.
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
    return Packed(path, side)


def pixel_digest(image: np.ndarray | torch.Tensor) -> str:
    """Return 16 hexadecimal digits of an image's pixels (H, W, 3), hashed channel by channel."""
    planes = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
    return hashlib.blake2b(planes.tobytes(), digest_size=8).hexdigest()


def _cache_key(folder, names):
    digest = hashlib.blake2b(str(FORMAT).encode(), digest_size=8)
    for name in names:
        path = os.path.join(os.path.abspath(folder), name)
        digest.update(b"\0" + os.fsencode(path))
        try:
            status = os.stat(path)
        except OSError:
            continue  # a link to nowhere, which is named when it is read
        digest.update(f"\0{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


@contextmanager
def _lock_cache(folder):
    """Be alone in the folder. A process that ends, even killed, lets go."""
    with open(folder / "lock", "a") as lock:
        if not try_lock(lock):
            print(f"waiting for another process that packs {folder}", flush=True)
            while not try_lock(lock):
                time.sleep(1)
        yield


def _pack_missing(part, images, names, side, read):
    """Append what is missing to the index and to the images."""
    part.touch()
    images.touch()
    lines = _valid_lines(part, images, names, side)
    usable = sum(json.loads(line)[2] is None for line in lines)
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
    """Return an index's lines up to the first that is cut short, foreign, or has no pixels."""
    lines = index.read_bytes().splitlines(keepends=True)
    rows = images.stat().st_size // (3 * side * side) if images.exists() else 0
    for i, (line, name) in enumerate(zip(lines, names)):
        try:
            indexed_name, _, reason = json.loads(line)
        except (ValueError, TypeError):
            return lines[:i]
        rows -= reason is None
        if indexed_name != name or rows < 0 or not line.endswith(b"\n"):
            return lines[:i]
    return lines[: len(names)]
