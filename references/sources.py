"""Load pristine images: CIFAR-10, a folder, or the photographs that come with two dependencies.

Splits never share a reference. Images for training and for validation come from the source's
training images, images for testing from its test images, and all crops of one photograph are in
the same split. Which references are taken depends on seeds alone.
"""

import socket
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from references.folders import held_out_split, list_files, part_of
from references.packed import PackedFolder, PackedImages, pack, pixel_digest
from references.photos import PHOTOS, SMALLEST_PHOTO, photo_crops
from references.reading import UNREADABLE, fit, open_image, read_image
from references.tally import Tally, grey_share
from utils.distributed import is_main_process
from utils.errors import UserError
from utils.images import one_line, printable
from utils.rng import SPLITS, permutation

BUILTIN = ("auto", "cifar10", "photos")
BUILTIN_PREFIX = "builtin:"  # "builtin:photos" is never a folder
MAX_NAMED = 20  # so many unusable files are named; further ones are only counted
DOWNLOAD_TIMEOUT = 10  # seconds that the server may take to answer
RECOGNISED = 5  # so many of a folder's training images tell whether a run was trained on it


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
    """Return a value of --references, with a folder's path made absolute."""
    if references.removeprefix(BUILTIN_PREFIX) in BUILTIN:
        return references
    return str(Path(references).expanduser().resolve())


def resolve_source(references: str, data_root: str) -> tuple[str, str | None]:
    """Return 'cifar10', 'photos' or an absolute path, and None or a warning about 'auto'.

    references is what a user typed. Raises UserError where it can mean two things.
    """
    name = references.removeprefix(BUILTIN_PREFIX)
    if name not in BUILTIN:
        if name != references:
            raise UserError(
                f"--references {references}: there are {BUILTIN_PREFIX}auto, "
                f"{BUILTIN_PREFIX}cifar10 and {BUILTIN_PREFIX}photos"
            )
        meant = references.lower().replace("-", "").replace("_", "")
        if meant in BUILTIN and not Path(references).expanduser().exists():
            raise UserError(f"--references {references}: no such folder; did you mean {meant}?")
        return absolute(references), None
    if name == references and Path(name).is_dir():
        raise UserError(
            f"--references {name} can mean two things, because there is a folder of this name "
            f"here: give ./{name} for the folder, or {BUILTIN_PREFIX}{name} for "
            f"{_BUILTIN_MEANINGS[name]}"
        )
    if name != "auto":
        return name, None
    try:
        _load_cifar10(data_root, "train")
        return "cifar10", None
    except UserError as problem:
        warning = (
            f"{problem}; going on with --references photos, a demonstration on {len(PHOTOS)} "
            "photographs"
        )
        return "photos", warning


_BUILTIN_MEANINGS = {
    "auto": "CIFAR-10, or else the bundled photographs",
    "cifar10": "CIFAR-10 of torchvision",
    "photos": "the bundled photographs",
}


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

    source is what resolve_source returned. Validation is taken first, so that runs with another
    train_samples are validated on the same images. With cache_dir, a folder's images are read from
    disk when they are needed.
    """
    if source == "photos":
        crop = partial(_photo_references, side=image_size, data_seed=data_seed, seed=data_seed)
        return crop("train", train_samples), crop("val", val_samples)
    pool = _make_pool(source, "train", image_size, data_root, data_seed, cache_dir)
    wanted = train_samples + val_samples
    order = permutation(len(pool.names), data_seed, SPLITS.index("train"))
    taken, _ = pool.take(wanted, order)
    if len(taken) == 0:
        raise UserError(_nothing_usable(pool, image_size))
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
    part: str = "held_out",
) -> tuple[References, int]:
    """Return at most `count` References to test on, and how many were left out.

    part: 'held_out', the source's test images, or 'all' of a folder's. Images whose digests are in
    `exclude` are left out. data_seed splits a source that has no split of its own; seed decides
    which of the images are taken.
    """
    if part == "all" and source in BUILTIN:
        raise UserError(f"--test_part all is for a folder; {source} has test images of its own")
    if source == "photos":
        crops = _photo_references("test", count, side=image_size, data_seed=data_seed, seed=seed)
        return crops, 0
    pool = _make_pool(source, part, image_size, data_root, data_seed, cache_dir)
    order = permutation(len(pool.names), seed, SPLITS.index("test"))
    taken, left_out = pool.take(count, order, set(exclude))
    if len(taken) == 0:
        if left_out == 0:
            raise UserError(_nothing_usable(pool, image_size))
        raise UserError(f"{pool.source} has no usable test image that was not trained on")
    return taken, left_out


def choose_test_part(
    source: str, own_source: str, reference_digests: Sequence[str], image_size: int, data_seed: int
) -> str:
    """Return which part of a source a run is tested on: 'held_out' or 'all'.

    A folder that the run has not seen is tested on whole, unless it has test images of its own.
    own_source is what the run was trained on. It is recognised by its images too, because the
    folder may have moved.
    """
    if source in BUILTIN or source == own_source:
        return "held_out"
    listing = list_files(Path(source), report=False)
    if held_out_split(listing) is not None:
        return "held_out"
    if len(listing.names) < 2:
        return "all"
    pool = _folder_pool(Path(source), "train", image_size, data_seed, cache_dir=None)
    order = permutation(len(pool.names), data_seed, SPLITS.index("train"))
    return "held_out" if pool.begins_with(set(reference_digests), order) else "all"


@dataclass(frozen=True)
class _Candidate:
    """An image that may become a reference: it has a digest, or a reason why it cannot be used."""

    name: str
    image: np.ndarray | None = None  # (S, S, 3) uint8; a packed folder's images stay on disk
    digest: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class _CandidatePool:
    """The images of one part of a source, from which references are taken."""

    names: Sequence[str]
    read: Callable[[str], _Candidate]  # by name
    source: str  # as it is printed
    found: str  # what was found where, for the source's line
    split: str  # which part this is, and why
    not_read: Counter[str] = field(default_factory=Counter)  # files of other kinds, by suffix
    packed: PackedFolder | None = None  # holds the images, if `read` does not load them

    def take(
        self, count: int, order: torch.Tensor, exclude: Collection[str] = ()
    ) -> tuple[References, int]:
        """Return the first `count` usable images in this order, without copies.

        Also returns how many of the images on the way have a digest in `exclude`; they are not
        taken. Prints the names of unusable ones, and the source's line.
        """
        taken: list[_Candidate] = []
        digests: set[str] = set()  # of what is taken
        tally = Tally()
        with _progress_bar(count) as bar:
            for i in order.tolist():
                if len(taken) == count:
                    break
                candidate = self.read(self.names[i])
                tally.seen += 1
                if candidate.digest is None:
                    tally.skip(candidate.name, candidate.reason)
                    if tally.skipped.total() <= MAX_NAMED:
                        bar.write(f"skipped {printable(candidate.name)} ({candidate.reason})")
                elif candidate.digest in exclude:
                    tally.excluded += 1
                elif candidate.digest in digests:
                    tally.copies += 1
                else:
                    digests.add(candidate.digest)
                    taken.append(candidate)
                    bar.update()
        references = self._to_references(taken)
        print(self._line(tally, references))
        return references, tally.excluded

    def begins_with(self, digests: Collection[str], order: torch.Tensor) -> bool:
        """Tell whether the first usable images in this order have these digests."""
        found = 0
        for i in order.tolist():
            candidate = self.read(self.names[i])
            if candidate.digest is None:
                continue
            if candidate.digest not in digests:
                return False
            found += 1
            if found == RECOGNISED:
                break
        return found > 0

    def _line(self, tally, references):
        """Return what was found, used and skipped, which part this is, and how much is grey."""
        used = f"{len(references)} used{grey_share(references.images)}"
        parts = [f"references: {self.found}, {used}"]
        parts.append(self.split)
        if tally.excluded:
            parts.append(f"left out: {tally.excluded} that the run was trained or validated on")
        if skipped := tally.describe_skipped(self.not_read):
            parts.append(f"skipped: {skipped}")
        unseen = len(self.names) - tally.seen
        if unseen:
            parts.append(f"not needed: {unseen}")
        return "; ".join(parts)

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


def _nothing_usable(pool, side):
    return f"{pool.source} has no image that can be used at {side}×{side} pixels"


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


def _make_pool(source, part, image_size, data_root, data_seed, cache_dir):
    """Return the candidates of CIFAR-10's or a folder's part: 'train', 'held_out' or 'all'."""
    if source == "cifar10":
        return _cifar10_pool("train" if part == "train" else "test", image_size, data_root)
    return _folder_pool(Path(source), part, image_size, data_seed, cache_dir)


def _folder_pool(path, part_name, image_size, data_seed, cache_dir):
    if part_name != "all" and path.is_file():
        raise UserError(f"--references {path}: expected a folder of images, not this file")
    listing = list_files(path)
    folder = listing.folder
    part = part_of(listing, part_name, data_seed)

    def read_file(name):
        return read_image(folder / name, image_size)

    def read_candidate(name):
        image, reason = read_file(name)
        digest = None if image is None else pixel_digest(image)
        return _Candidate(name, image=image, digest=digest, reason=reason or "")

    def look_up_candidate(name):
        digest, reason = packed.look_up(name)
        return _Candidate(name, digest=digest, reason=reason or "")

    make_pool = partial(
        _CandidatePool,
        part.names,
        source=f"folder {printable(folder.name or str(folder))}",
        found=f"folder {printable(str(folder))}, {listing.file_count} files",
        split=f"split: {part.description}",
        not_read=listing.suffixes,
    )
    if not cache_dir:
        return make_pool(read_candidate)
    packed = pack(cache_dir, folder, names=part.names_to_pack, side=image_size, read=read_file)
    return make_pool(look_up_candidate, packed=packed)


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

    return _CandidatePool(
        tuple(arrays_by_name),
        read_array,
        source="CIFAR-10",
        found=f"CIFAR-10 in {data_root}, {len(arrays)} images",
        split=f"split: its own {'training' if split == 'train' else 'test'} images",
    )


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
            f"CIFAR-10 is not under {data_root} and could not be downloaded ({one_line(problem)}); "
            "give its folder by --data_root, or a folder of images by --references"
        ) from problem
    finally:
        socket.setdefaulttimeout(previous_timeout)


def largest_side(source: str, at_most: int) -> int:
    """Return the largest image size that the source allows, up to at_most pixels.

    A folder's size is that of its first image that can be opened.
    """
    if source == "cifar10":
        return min(at_most, 32)
    if source == "photos":
        return min(at_most, SMALLEST_PHOTO)
    listing = list_files(Path(source), report=False)
    for name in listing.names:
        try:
            with open_image(listing.folder / name) as image:
                return min(at_most, *image.size)
        except UNREADABLE:
            continue  # its name is printed when the references are loaded
    return at_most


def _photo_references(split, count, side, data_seed, seed):
    crops = photo_crops(split, count, side=side, data_seed=data_seed, seed=seed)
    references = References(
        images=torch.from_numpy(crops.images),
        names=crops.names,
        digests=tuple(map(pixel_digest, crops.images)),
        photographs=crops.photographs,
        source=f"{len(PHOTOS)} bundled photographs (a demonstration)",
    )
    photographs = len(np.unique(crops.photographs))
    print(
        f"references: {references.source}, {count} crops used{grey_share(references.images)}; "
        f"split: {photographs} of the photographs are for {split}"
    )
    return references
