"""Where pristine images come from: CIFAR-10, a folder, or the photographs of two dependencies.

Splits never share a reference: validation is carved from the training part, and the test part
stands apart. Crops of one photograph stay on one side. Which references are taken depends on a
seed alone.
"""

import os
import socket
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from references.packed import Packed, PackedImages, pack, pixel_digest
from references.photos import PHOTOS, SMALLEST_PHOTO, photo_crops
from references.reading import FORMATS, UNREADABLE, fit, open_image, read_image
from utils.distributed import is_main_process
from utils.errors import UserError
from utils.images import one_line, printable
from utils.rng import SPLITS, fold_in, permutation

TEST_SHARE = 0.2  # of a folder that has no split of its own
MAX_NAMED = 20  # unusable files that are named; the others are counted
DOWNLOAD_TIMEOUT = 10  # seconds without an answer


@dataclass(frozen=True)
class References:
    """Pristine images, all of one size."""

    images: torch.Tensor | PackedImages  # (N, S, S, 3) uint8
    names: tuple[str, ...]
    digests: tuple[str, ...]  # 16 hexadecimal digits each, from the pixels
    photographs: np.ndarray  # (N,) int64: crops of one photograph share a number
    source: str  # for people: "CIFAR-10"

    def __len__(self) -> int:
        return len(self.images)

    def slice(self, start: int, stop: int | None) -> "References":
        """Return the references from start up to stop."""
        return References(
            images=self.images[start:stop],
            names=self.names[start:stop],
            digests=self.digests[start:stop],
            photographs=self.photographs[start:stop],
            source=self.source,
        )


def absolute(references: str) -> str:
    """Return what --references says, a folder by its absolute path."""
    if references in ("auto", "cifar10", "photos"):
        return references
    return str(Path(references).expanduser().resolve())


def resolve_source(references: str, data_root: str) -> tuple[str, str | None]:
    """Return 'cifar10', 'photos' or an absolute path, and None or a warning about 'auto'."""
    if references != "auto":
        return absolute(references), None
    try:
        _load_cifar10(data_root, "train")
        return "cifar10", None
    except UserError as problem:
        warning = (
            f"{problem}; going on with --references photos, a demonstration on {len(PHOTOS)} "
            "photographs"
        )
        return "photos", warning


def load_training_references(
    source: str,
    train_samples: int,
    val_samples: int,
    image_size: int,
    data_root: str,
    data_seed: int,
    cache_dir: str | None = None,
) -> tuple[References, References]:
    """Return disjoint References to train and to validate on, from the source's training part.

    Validation is taken first, so that runs that differ in train_samples are judged on the same
    images. A folder's images stay on disk where cache_dir is given.
    """
    if source == "photos":
        train = _photo_references("train", train_samples, image_size, data_seed, data_seed)
        return train, _photo_references("val", val_samples, image_size, data_seed, data_seed)
    pool = _make_pool(source, "train", image_size, data_root, data_seed, cache_dir)
    wanted = train_samples + val_samples
    order = permutation(len(pool.names), data_seed, SPLITS.index("train"))
    taken, _ = pool.take(wanted, order)
    if len(taken) == 0:
        raise UserError(
            f"{pool.source} has no image that can be used at {image_size}×{image_size} pixels"
        )
    if len(taken) < wanted:
        raise UserError(
            f"--train_samples {train_samples} and --val_samples {val_samples} need {wanted} "
            f"references, but {pool.source} has {len(taken)} for training; "
            "lower them to that in all"
        )
    return taken.slice(val_samples, None), taken.slice(0, val_samples)


def load_test_references(
    source: str,
    count: int,
    image_size: int,
    data_root: str,
    data_seed: int,
    seed: int,
    exclude: Collection[str] = (),
    cache_dir: str | None = None,
) -> tuple[References, int]:
    """Return at most `count` References of the held-out part, and how many were left out.

    Left out are those whose pixel digests are in `exclude`. data_seed decides the split where the
    source has none; seed decides which references are taken.
    """
    if source == "photos":
        return _photo_references("test", count, image_size, data_seed, seed), 0
    pool = _make_pool(source, "test", image_size, data_root, data_seed, cache_dir)
    order = permutation(len(pool.names), seed, SPLITS.index("test"))
    taken, left_out = pool.take(count, order, set(exclude))
    if len(taken) == 0:
        raise UserError(f"{pool.source} has no usable test image that was not trained on")
    return taken, left_out


class _Candidate(NamedTuple):
    """What reading a file gave: a digest, or the reason why it cannot be used."""

    image: np.ndarray | None  # (S, S, 3) uint8; None where it cannot be used, or stays in a cache
    digest: str | None
    reason: str | None


@dataclass(frozen=True)
class _Pool:
    """The candidates of one split."""

    names: Sequence[str]
    read: Callable[[str], _Candidate]
    source: str  # for people
    packed: Packed | None = None  # where their pixels stay, if they are not read

    def take(
        self, count: int, order: torch.Tensor, exclude: Collection[str] = ()
    ) -> tuple[References, int]:
        """Return the first `count` usable and different candidates in this order.

        Also returns how many were passed over because their digests are in `exclude`. What cannot
        be used is named.
        """
        images = []
        digests: dict[str, str] = {}  # name: digest, of those that are taken
        seen = set(exclude)
        unusable = 0
        copies = 0
        excluded = 0
        bar = tqdm(
            total=count,
            desc="references",
            unit="image",
            delay=2,
            leave=False,
            disable=not is_main_process(),
        )
        with bar:
            for i in order.tolist():
                if len(digests) == count:
                    break
                name = self.names[i]
                image, digest, reason = self.read(name)
                if digest is None:
                    unusable += 1
                    if unusable <= MAX_NAMED:
                        bar.write(f"skipped {printable(name)} ({reason})")
                elif digest in exclude:
                    excluded += 1
                elif digest in seen:
                    copies += 1
                else:
                    seen.add(digest)
                    digests[name] = digest
                    images.append(image)
                    bar.update()
        if unusable or copies:
            print(
                f"{self.source}: {unusable} unusable images and {copies} copies of others skipped"
            )
        return self._to_references(images, digests), excluded

    def _to_references(self, images, digests):
        if self.packed is not None:
            pixels = self.packed.images(list(digests))
        elif images:
            pixels = torch.from_numpy(np.stack(images))
        else:
            pixels = torch.empty((0, 1, 1, 3), dtype=torch.uint8)
        return References(
            images=pixels,
            names=tuple(map(printable, digests)),
            digests=tuple(digests.values()),
            photographs=np.arange(len(digests)),
            source=self.source,
        )


def _make_pool(source, split, image_size, data_root, data_seed, cache_dir):
    """Return the candidates of CIFAR-10 or of a folder."""
    if source == "cifar10":
        return _cifar10_pool(split, image_size, data_root)
    folder = Path(source)
    all_names, names = _split_folder(folder, split, data_seed)

    def read_file(name):
        return read_image(folder / name, image_size)

    def read_candidate(name):
        image, reason = read_file(name)
        return _Candidate(image, None if image is None else pixel_digest(image), reason)

    if not cache_dir:
        return _Pool(names, read_candidate, f"folder {folder.name}")
    packed = pack(cache_dir, folder, all_names, image_size, read_file)

    def look_up(name):
        digest, reason = packed.look_up(name)
        return _Candidate(None, digest, reason)

    return _Pool(names, look_up, f"folder {folder.name}", packed)


def _cifar10_pool(split, image_size, data_root):
    arrays = _load_cifar10(data_root, split)
    if image_size > arrays.shape[1]:
        raise UserError(
            f"--image_size {image_size} is larger than CIFAR-10's images, which are 32×32"
        )
    arrays_by_name = {f"{split}/{i}": array for i, array in enumerate(arrays)}

    def read_array(name):
        image = fit(Image.fromarray(arrays_by_name[name]), image_size)
        return _Candidate(image, pixel_digest(image), None)

    return _Pool(tuple(arrays_by_name), read_array, "CIFAR-10")


def _load_cifar10(data_root, split):
    """Return (N, 32, 32, 3) uint8. It is downloaded, once and briefly, where it is missing."""
    from torchvision.datasets import CIFAR10  # a slow import that only this source needs

    previous_timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        files = (Path(data_root, CIFAR10.base_folder), Path(data_root, CIFAR10.filename))
        if not any(file.exists() for file in files):
            urlopen(CIFAR10.url).close()  # torchvision would try twice
        return CIFAR10(data_root, train=split == "train", download=True).data
    except (OSError, RuntimeError) as problem:
        raise UserError(
            f"CIFAR-10 is not under {data_root} and could not be downloaded ({one_line(problem)})"
        ) from problem
    finally:
        socket.setdefaulttimeout(previous_timeout)


def _split_folder(folder, split, data_seed):
    """Return the names of all image files that share a tree, and those of the split, sorted.

    A folder with train/ and test/ (or val/) has its own splits. Of another, 20 % are held out.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"--references {folder}: no such folder (nor is it 'cifar10', 'photos' or 'auto')"
        )
    held_out = next((name for name in ("test", "val") if (folder / name).is_dir()), None)
    if held_out and (folder / "train").is_dir():
        names = _find_image_files(folder, "train" if split == "train" else held_out)
        return names, names
    if held_out:
        raise UserError(
            f"--references {folder} has {held_out}/ but no train/; add it, or name another folder"
        )
    names = _find_image_files(folder, ".")
    if len(names) == 1:
        raise UserError(
            f"{folder} holds a single image, which cannot be split into training and test"
        )
    checksums = torch.tensor([zlib.crc32(os.fsencode(name)) for name in names])
    order = np.argsort(fold_in(data_seed, checksums).numpy())
    test_count = max(1, round(TEST_SHARE * len(names)))
    chosen = order[:test_count] if split == "test" else order[test_count:]
    return names, tuple(names[i] for i in np.sort(chosen))


def _find_image_files(folder, below):
    """Return the sorted names, relative to the folder, of all image files below a part of it."""

    def print_skipped(path, reason):
        print(f"skipped {printable(os.path.relpath(path, folder))} ({reason})")

    names = []
    tree = os.walk(
        folder / below, onerror=lambda error: print_skipped(error.filename, error.strerror)
    )
    for directory, folders, files in tree:
        for name in folders:
            path = os.path.join(directory, name)
            if os.path.islink(path):
                print_skipped(path, "links to folders are not followed")
        for name in files:
            path = Path(directory, name)
            if not name.startswith(".") and path.suffix.lower() in FORMATS:
                names.append(str(path.relative_to(folder)))
    if not names:
        raise UserError(f"{folder / below} holds no image ({', '.join(sorted(FORMATS))})")
    return tuple(sorted(names))


def largest_side(source: str, at_most: int) -> int:
    """Return the side of a reference that the source's images allow, up to at_most pixels.

    Of a folder the first image that opens decides.
    """
    if source == "cifar10":
        return min(at_most, 32)
    if source == "photos":
        return min(at_most, SMALLEST_PHOTO)
    _, names = _split_folder(Path(source), "train", 0)
    for name in names:
        try:
            with open_image(Path(source) / name) as image:
                return min(at_most, *image.size)
        except UNREADABLE:
            continue  # it is named when the references are loaded
    return at_most


def _photo_references(split, count, side, data_seed, seed):
    crops = photo_crops(split, count, side, data_seed, seed)
    return References(
        images=torch.from_numpy(crops.images),
        names=crops.names,
        digests=tuple(map(pixel_digest, crops.images)),
        photographs=crops.photographs,
        source=f"{len(PHOTOS)} bundled photographs (a demonstration)",
    )
