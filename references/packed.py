"""A folder's images at one size in one file, made once and read by index: for folders that do not fit into memory.

CACHE_DIR/32px_0123456789abcdef/ holds `images`, (N, 32, 32, 3) uint8, and `index.jsonl`, a line a file of the folder:
[name, digest of its pixels, null], or [name, null, why it cannot be used]. The index is called index.part until all is
there; packing that was interrupted goes on from it, and who packs holds `lock`. The digits stand for the files' names, sizes and times.
"""

import hashlib
import json
import math
import os
import time
import weakref
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from utils.errors import UserError
from utils.files import naming, try_lock

CHECKED = 1000  # images whose pixels are compared with the index before they are trained on
FORMAT = 2  # part of the key: raise it where files come to other pixels than before


class PackedFile:
    """A file of images (M, S, S, 3) uint8, read by index as (M, 3, S, S). Nothing of it stays in the process's memory,
    and one that is cut short under a run is told, which a mapped file would not survive."""

    def __init__(self, path, count, side):
        self.path, self.shape = path, (count, 3, side, side)
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def take(self, rows):
        """A tensor of these rows (B,) or this row, int64."""
        rows, size = np.asarray(rows), math.prod(self.shape[1:])
        pixels = np.empty(rows.size * size, np.uint8)
        view = memoryview(pixels)
        for i, row in enumerate(rows.ravel().tolist()):
            image = os.pread(self._file, size, row * size)
            if len(image) < size:
                raise UserError(f"{self.path} is damaged; delete its folder, and it is made anew")
            view[i * size : (i + 1) * size] = image
        return torch.from_numpy(pixels).view(*rows.shape, *self.shape[2:], 3).movedim(-1, -3)


class PackedImages:
    """Rows of a packed file, indexed as a tensor (N, 3, S, S) is. What is asked for is read, a slice reads nothing."""

    def __init__(self, file, rows):
        self.file, self.rows = file, rows  # (N,) int64
        self.shape = (len(rows), *file.shape[1:])

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        rows = self.rows[index]
        return (
            PackedImages(self.file, rows)
            if isinstance(index, slice)
            else self.file.take(rows.numpy())
        )


class Packed:
    """A packed folder."""

    def __init__(self, path, side):
        self.path, self._files, rows = path, {}, 0
        for line in (path / "index.jsonl").read_bytes().splitlines():
            name, digest, why = json.loads(line)
            self._files[name] = rows, digest, why
            rows += why is None
        self._file = PackedFile(path / "images", rows, side)

    def look(self, name):
        """(None, the image's digest, None), or (None, None, why the file cannot be used); no pixel is read for it."""
        return None, *self._files[name][1:]

    def images(self, names):
        """PackedImages in the order of these names. Raises UserError where some of them, evenly spread, are not what was
        packed; to read all would take as long as an epoch."""
        for name in names[:: -(-len(names) // CHECKED) or 1]:
            row, digest, _ = self._files[name]
            if pixel_digest(self._file.take(row)) != digest:
                raise UserError(f"{self.path} is damaged; delete it, and it is made anew")
        return PackedImages(
            self._file, torch.tensor([self._files[name][0] for name in names], dtype=torch.int64)
        )


def pack(cache_dir, folder, names, side, read):
    """The Packed files of a folder, from cache_dir where they are there already; read(name) gives ((3, S, S) uint8,
    None) or (None, why not). Of several processes that ask for the same, one packs and the others wait."""
    path = Path(cache_dir).expanduser() / f"{side}px_{_key(folder, names)}"
    path.mkdir(parents=True, exist_ok=True)
    index, part, images = path / "index.jsonl", path / "index.part", path / "images"
    with _lock(path):
        if index.exists() and len(_whole_lines(index, images, names, side)) < len(names):
            print(f"{path} is damaged; what is missing is packed again")
            os.replace(index, part)
        if not index.exists():
            _fill(part, images, names, side, read)
            os.replace(part, index)
    return Packed(path, side)


def pixel_digest(image):
    """16 hexadecimal digits."""
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=8).hexdigest()


def _key(folder, names):
    digest = hashlib.blake2b(str(FORMAT).encode(), digest_size=8)
    for name in names:
        path = os.path.join(os.path.abspath(folder), name)
        digest.update(b"\0" + os.fsencode(path))
        try:
            status = os.stat(path)
            digest.update(f"\0{status.st_size} {status.st_mtime_ns}".encode())
        except OSError:
            continue  # a link to nowhere: read tells
    return digest.hexdigest()


@contextmanager
def _lock(folder):
    """Alone in the folder; a process that ends, even killed, lets go."""
    with open(folder / "lock", "a") as lock:
        if not try_lock(lock):
            print(f"waiting for another process that packs {folder}", flush=True)
            while not try_lock(lock):
                time.sleep(1)
        yield


def _fill(part, images, names, side, read):
    """Append what is missing to both files."""
    part.touch()
    images.touch()
    lines = _whole_lines(part, images, names, side)
    usable = sum(json.loads(line)[2] is None for line in lines)
    os.truncate(part, sum(map(len, lines)))
    os.truncate(images, usable * 3 * side * side)
    rest = tqdm(
        names[len(lines) :],
        "packing",
        len(names),
        unit="image",
        initial=len(lines),
        delay=2,
        leave=False,
    )
    with naming(part.parent), open(part, "ab") as index, open(images, "ab") as pixels:
        for name in rest:
            image, why = read(name)
            if why is None:
                pixels.write(np.ascontiguousarray(image.transpose(1, 2, 0)))
            digest = pixel_digest(image) if why is None else None
            index.write(json.dumps([name, digest, why]).encode() + b"\n")
            usable += why is None
        for file in (pixels, index):
            file.flush()
            os.fsync(file.fileno())
    print(
        f"packed {usable} images into {part.parent}; {len(names) - usable} files cannot be used: see index.jsonl"
    )


def _whole_lines(index, images, names, side):
    """The lines of an index up to the first that is cut short, is not of this file, or has no pixels."""
    lines = index.read_bytes().splitlines(keepends=True)
    rows = images.stat().st_size // (3 * side * side) if images.exists() else 0
    for i, (line, name) in enumerate(zip(lines, names)):
        try:
            found, _, why = json.loads(line)
        except (ValueError, TypeError):
            return lines[:i]
        rows -= why is None
        if found != name or rows < 0 or not line.endswith(b"\n"):
            return lines[:i]
    return lines[: len(names)]
