"""Load pristine images: CIFAR-10, a folder, or the photographs that come with two dependencies.

Splits never share a reference. Images for training and for validation come from the source's
training images, images for testing from its test images, and all crops of one photograph are in
the same split. Which references are taken depends on seeds alone.
"""

import os
import socket
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from references.packed import PackedFolder, PackedImages, pack, pixel_digest
from references.photos import PHOTOS, SMALLEST_PHOTO, photo_crops
from references.reading import FORMATS, UNREADABLE, fit, open_image, read_image
from utils.distributed import is_main_process
from utils.errors import UserError
from utils.images import one_line, printable
from utils.rng import SPLITS, fold_in, permutation

TEST_SHARE = 0.2  # of the images of a folder without subfolders train/ and test/
MAX_NAMED = 20  # so many unusable files are named; further ones are only counted
DOWNLOAD_TIMEOUT = 10  # seconds that the server may take to answer


@dataclass(frozen=True)
class References:
    """Pristine images, all of one size."""

    images: torch.Tensor | PackedImages  # (N, S, S, 3) uint8
    names: tuple[str, ...]
    digests: tuple[str, ...]  # 16 hexadecimal digits of each image's pixels
    photographs: np.ndarray  # (N,) int64: crops of one photograph have the same number
    source: str  # as it is printed, for example "CIFAR-10"

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
    """Return the value of --references, with a folder's path made absolute."""
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
    """Return References to train on and others to validate on, from the training images.

    Validation is taken first, so that runs with another train_samples are validated on the same
    images. With cache_dir, a folder's images are read from disk when they are needed.
    """
    if source == "photos":
        crop = partial(_photo_references, side=image_size, data_seed=data_seed, seed=data_seed)
        return crop("train", train_samples), crop("val", val_samples)
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
    """Return at most `count` References from the test images, and how many were left out.

    Images whose digests are in `exclude` are left out. data_seed splits a source that has no
    split of its own; seed decides which of the test images are taken.
    """
    if source == "photos":
        crops = _photo_references("test", count, side=image_size, data_seed=data_seed, seed=seed)
        return crops, 0
    pool = _make_pool(source, "test", image_size, data_root, data_seed, cache_dir)
    order = permutation(len(pool.names), seed, SPLITS.index("test"))
    taken, left_out = pool.take(count, order, set(exclude))
    if len(taken) == 0:
        raise UserError(f"{pool.source} has no usable test image that was not trained on")
    return taken, left_out


@dataclass(frozen=True)
class _Candidate:
    """An image that may become a reference: it has a digest, or a reason why it cannot be used."""

    name: str
    image: np.ndarray | None = None  # (S, S, 3) uint8; a packed folder's images stay on disk
    digest: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class _CandidatePool:
    """The images of one split, from which references are taken."""

    names: Sequence[str]
    read: Callable[[str], _Candidate]  # by name
    source: str  # as it is printed
    packed: PackedFolder | None = None  # holds the images, if `read` does not load them

    def take(
        self, count: int, order: torch.Tensor, exclude: Collection[str] = ()
    ) -> tuple[References, int]:
        """Return the first `count` usable images in this order, without copies.

        Also returns how many of the images on the way have a digest in `exclude`; they are not
        taken. Prints the names of unusable ones.
        """
        taken: list[_Candidate] = []
        digests: set[str] = set()  # of what is taken
        unusable = 0
        copies = 0
        excluded = 0
        with _progress_bar(count) as bar:
            for i in order.tolist():
                if len(taken) == count:
                    break
                candidate = self.read(self.names[i])
                if candidate.digest is None:
                    unusable += 1
                    if unusable <= MAX_NAMED:
                        bar.write(f"skipped {printable(candidate.name)} ({candidate.reason})")
                elif candidate.digest in exclude:
                    excluded += 1
                elif candidate.digest in digests:
                    copies += 1
                else:
                    digests.add(candidate.digest)
                    taken.append(candidate)
                    bar.update()
        if unusable or copies:
            print(
                f"{self.source}: {unusable} unusable images and {copies} copies of others skipped"
            )
        return self._to_references(taken), excluded

    def _to_references(self, taken):
        if self.packed is not None:
            images = self.packed.images([candidate.name for candidate in taken])
        elif taken:
            images = torch.from_numpy(np.stack([candidate.image for candidate in taken]))
        else:
            images = torch.empty((0, 1, 1, 3), dtype=torch.uint8)
        return References(
            images=images,
            names=tuple(printable(candidate.name) for candidate in taken),
            digests=tuple(candidate.digest for candidate in taken),
            photographs=np.arange(len(taken)),
            source=self.source,
        )


def _progress_bar(count):
    """Return a bar that appears after two seconds, in the main process only."""
    return tqdm(
        total=count,
        desc="references",
        unit="image",
        delay=2,
        leave=False,
        disable=not is_main_process(),
    )


def _make_pool(source, split, image_size, data_root, data_seed, cache_dir):
    """Return the candidates of CIFAR-10 or of a folder."""
    if source == "cifar10":
        return _cifar10_pool(split, image_size, data_root)
    return _folder_pool(Path(source), split, image_size, data_seed, cache_dir)


def _folder_pool(folder, split, image_size, data_seed, cache_dir):
    names_to_pack, names = _split_folder(folder, split, data_seed)

    def read_file(name):
        return read_image(folder / name, image_size)

    def read_candidate(name):
        image, reason = read_file(name)
        digest = None if image is None else pixel_digest(image)
        return _Candidate(name, image=image, digest=digest, reason=reason)

    def look_up_candidate(name):
        digest, reason = packed.look_up(name)
        return _Candidate(name, digest=digest, reason=reason)

    source = f"folder {folder.name}"
    if not cache_dir:
        return _CandidatePool(names, read_candidate, source=source)
    packed = pack(cache_dir, folder, names=names_to_pack, side=image_size, read=read_file)
    return _CandidatePool(names, look_up_candidate, source=source, packed=packed)


def _cifar10_pool(split, image_size, data_root):
    arrays = _load_cifar10(data_root, split)
    if image_size > arrays.shape[1]:
        raise UserError(
            f"--image_size {image_size} is larger than CIFAR-10's images, which are 32×32"
        )
    arrays_by_name = {f"{split}/{i}": array for i, array in enumerate(arrays)}

    def read_array(name):
        image = fit(Image.fromarray(arrays_by_name[name]), image_size)
        return _Candidate(name, image=image, digest=pixel_digest(image))

    return _CandidatePool(tuple(arrays_by_name), read_array, source="CIFAR-10")


def _load_cifar10(data_root, split):
    """Return CIFAR-10's images, (N, 32, 32, 3) uint8.

    Where the files are missing, one attempt is made to download them, without a long wait.
    """
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
    """Return the names of all files to pack together, and those of the split, both sorted.

    A folder with train/ and test/ (or val/) has its own split, and each of these is packed alone.
    From another folder, 20 % of the images are drawn for the test.
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


def _find_image_files(folder, subfolder):
    """Return the sorted names, relative to the folder, of all image files in a subfolder."""

    def print_skipped(path, reason):
        print(f"skipped {printable(os.path.relpath(path, folder))} ({reason})")

    names = []
    tree = os.walk(
        folder / subfolder, onerror=lambda error: print_skipped(error.filename, error.strerror)
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
        raise UserError(f"{folder / subfolder} holds no image ({', '.join(sorted(FORMATS))})")
    return tuple(sorted(names))


def largest_side(source: str, at_most: int) -> int:
    """Return the largest image size that the source allows, up to at_most pixels.

    A folder's size is that of its first image that can be opened.
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
            continue  # its name is printed when the references are loaded
    return at_most


def _photo_references(split, count, side, data_seed, seed):
    crops = photo_crops(split, count, side=side, data_seed=data_seed, seed=seed)
    return References(
        images=torch.from_numpy(crops.images),
        names=crops.names,
        digests=tuple(map(pixel_digest, crops.images)),
        photographs=crops.photographs,
        source=f"{len(PHOTOS)} bundled photographs (a demonstration)",
    )
