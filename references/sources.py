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

from references.crops import Crops, PhotographsInMemory, fixed_keys
from references.folders import held_out_split, list_files, part_of
from references.packed import PackedFolder, PackedImages, pack, pixel_digest
from references.photos import PHOTOS, SHARP_PHOTO, load_photo, photo_crops, photos_of_split
from references.reading import fit, read_image, read_photograph, shrink
from references.sizes import NativeCrops, too_small
from references.tally import Tally, counted, grey_share
from utils.distributed import is_main_process
from utils.errors import UserError
from utils.images import one_line, printable
from utils.rng import SPLITS, permutation

BUILTIN = ("auto", "cifar10", "photos")
BUILTIN_PREFIX = "builtin:"  # "builtin:photos" is never a folder
ALL = "all"  # of --train_samples: every reference that validation leaves
MAX_NAMED = 20  # so many unusable files are named; further ones are only counted
DOWNLOAD_TIMEOUT = 10  # seconds that the server may take to answer
RECOGNISED = 5  # so many of a folder's training images tell whether a run was trained on it


@dataclass(frozen=True)
class References:
    """Pristine images, all of one size."""

    images: torch.Tensor | PackedImages | Crops  # (N, S, S, 3) uint8
    names: tuple[str, ...]
    digests: tuple[str, ...]  # 16 hexadecimal digits of each image's, or its photograph's, pixels
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
    train_samples: int | str,
    val_samples: int,
    image_size: int,
    data_root: str,
    data_seed: int,
    cache_dir: str | None = None,
    crops: NativeCrops | None = None,
) -> tuple[References, References]:
    """Return References to train on and others to validate on, from the training images.

    source is what resolve_source returned. Validation is taken first, so that runs with another
    train_samples are validated on the same images. train_samples ALL takes all that are left. With
    cache_dir, a folder's images are read from disk when they are needed. With crops, the images
    are crops at their own scale, crops.per_reference of each photograph; without, whole scenes.
    """
    if source == "photos":
        if train_samples == ALL:
            raise UserError(
                "--train_samples all is for a folder of images; the bundled photographs give as "
                "many crops as you say: --train_samples 500"
            )
        crop = partial(
            _photo_references, side=image_size, data_seed=data_seed, seed=data_seed, crops=crops
        )
        return crop("train", train_samples), crop("val", val_samples)
    pool = _make_pool(source, "train", image_size, data_root, data_seed, cache_dir, crops)
    wanted = len(pool.names)
    if isinstance(train_samples, int):
        wanted = train_samples + val_samples
    order = permutation(len(pool.names), data_seed, SPLITS.index("train"))
    taken, _ = pool.take(wanted, order)
    if len(taken) == 0:
        raise UserError(_nothing_usable(pool, image_size))
    if train_samples == ALL and len(taken) <= val_samples:
        raise UserError(
            f"--val_samples {val_samples} leaves no reference to train on: {pool.source} has "
            f"{len(taken)} for training; lower it"
        )
    if train_samples != ALL and len(taken) < wanted:
        raise UserError(
            f"--train_samples {train_samples} and --val_samples {val_samples} need {wanted} "
            f"references, but {pool.source} has {len(taken)} for training; "
            f"give {len(taken) - len(taken) // 5} and {len(taken) // 5}, or fewer"
        )
    return pool.to_references(taken[val_samples:]), pool.to_references(taken[:val_samples])


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
    crops: NativeCrops | None = None,
) -> tuple[References, int]:
    """Return at most `count` References to test on, and how many were left out.

    part: 'held_out', the source's test images, or 'all' of a folder's. Images whose digests are in
    `exclude` are left out. data_seed splits a source that has no split of its own; seed decides
    which of the images are taken, where there are more. crops is what it is for training.
    """
    if part == "all" and source in BUILTIN:
        raise UserError(f"--test_part all is for a folder; {source} has test images of its own")
    if source == "photos":
        references = _photo_references(
            "test", count, side=image_size, data_seed=data_seed, seed=seed, crops=crops
        )
        return references, 0
    pool = _make_pool(source, part, image_size, data_root, data_seed, cache_dir, crops)
    order = permutation(len(pool.names), seed, SPLITS.index("test"))
    taken, left_out = pool.take(count, order, set(exclude))
    if len(taken) == 0:
        if left_out == 0:
            raise UserError(_nothing_usable(pool, image_size))
        raise UserError(f"{pool.source} has no usable test image that was not trained on")
    return pool.to_references(taken), left_out


def choose_test_part(
    source: str,
    own_source: str,
    reference_digests: Sequence[str],
    image_size: int,
    data_seed: int,
    crops: NativeCrops | None = None,
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
    pool = _folder_pool(Path(source), "train", image_size, data_seed, None, crops)
    order = permutation(len(pool.names), data_seed, SPLITS.index("train"))
    return "held_out" if pool.begins_with(set(reference_digests), order) else "all"


@dataclass(frozen=True)
class _Candidate:
    """An image that may become a reference: it has a digest, or a reason why it cannot be used."""

    name: str
    image: np.ndarray | None = None  # (H, W, 3) uint8; a packed folder's images stay on disk
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
    other_parts: int = 0  # files of images that are not in this part
    not_read: Counter[str] = field(default_factory=Counter)  # files of other kinds, by suffix
    packed: PackedFolder | None = None  # holds the images, if `read` does not load them
    side: int = 0  # of the references
    crops: NativeCrops | None = None

    def take(
        self, count: int, order: torch.Tensor, exclude: Collection[str] = ()
    ) -> tuple[list[_Candidate], int]:
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
        print(self._line(tally, taken))
        return taken, tally.excluded

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

    def _line(self, tally, taken):
        """Return what was found, used and skipped, which part this is, and how much is grey."""
        used = f"{len(taken)} used"
        if self.crops is not None:
            used += f", {counted(self.crops.per_reference, 'crop')} of each"
        used += grey_share(self.to_references(taken).images)
        parts = [f"references: {self.found}, {used}"]
        parts.append(self.split)
        if self.other_parts:
            parts.append(f"not in this part: {self.other_parts}")
        if tally.excluded:
            parts.append(f"left out: {tally.excluded} that the run was trained or validated on")
        if skipped := tally.describe_skipped(self.not_read):
            parts.append(f"skipped: {skipped}")
        unseen = len(self.names) - tally.seen
        if unseen:
            parts.append(f"not needed: {unseen}")
        return "; ".join(parts)

    def to_references(self, taken: Sequence[_Candidate]) -> References:
        """Return the references that candidates make: each one image, or several crops."""
        names = [printable(candidate.name) for candidate in taken]
        digests = [candidate.digest or "" for candidate in taken]
        if self.crops is None:
            return References(
                images=self._whole_images(taken),
                names=tuple(names),
                digests=tuple(digests),
                photographs=np.arange(len(taken)),
                source=self.source,
            )
        return _crop_references(
            self._photographs(taken),
            names,
            digests,
            side=self.side,
            per_reference=self.crops.per_reference,
            source=self.source,
        )

    def _photographs(self, taken):
        if self.packed is not None:
            return self.packed.photographs([candidate.name for candidate in taken])
        return PhotographsInMemory([candidate.image for candidate in taken])

    def _whole_images(self, taken):
        if self.packed is not None:
            return self.packed.images([candidate.name for candidate in taken])
        if taken:
            return torch.from_numpy(np.stack([candidate.image for candidate in taken]))
        return torch.empty((0, 1, 1, 3), dtype=torch.uint8)


def _crop_references(photographs, names, digests, side, per_reference, source):
    """Return References to `per_reference` crops of each photograph."""
    count = len(names)
    crops = Crops(
        photographs,
        rows=torch.arange(count).repeat_interleave(per_reference),
        keys=fixed_keys(digests, per_reference).flatten(),
        side=side,
    )
    return References(
        images=crops,
        names=tuple(f"{name}/{k}" for name in names for k in range(per_reference)),
        digests=tuple(digest for digest in digests for _ in range(per_reference)),
        photographs=np.arange(count).repeat(per_reference),
        source=source,
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


def _make_pool(source, part, image_size, data_root, data_seed, cache_dir, crops):
    """Return the candidates of CIFAR-10's or a folder's part: 'train', 'held_out' or 'all'."""
    if source == "cifar10":
        split = "train" if part == "train" else "test"
        return _cifar10_pool(split, image_size, data_root, crops)
    return _folder_pool(Path(source), part, image_size, data_seed, cache_dir, crops)


def _folder_pool(path, part_name, image_size, data_seed, cache_dir, crops):
    if part_name != "all" and path.is_file():
        raise UserError(f"--references {path}: expected a folder of images, not this file")
    listing = list_files(path)
    folder = listing.folder
    part = part_of(listing, part_name, data_seed)

    def read_file(name):
        return _read_pixels(folder / name, image_size, crops)

    def read_candidate(name):
        return _read_candidate(folder, name, image_size, crops)

    def look_up_candidate(name):
        digest, reason = packed.look_up(name)
        reason = reason or too_small(packed.size_of(name), image_size)
        return _Candidate(name, digest=None if reason else digest, reason=reason)

    make_pool = partial(
        _CandidatePool,
        part.names,
        source=f"folder {printable(folder.name or str(folder))}",
        found=f"folder {printable(str(folder))}, {counted(listing.file_count, 'file')}",
        split=f"split: {part.description}",
        other_parts=len(listing.names) - len(part.names),
        not_read=listing.suffixes,
        side=image_size,
        crops=crops,
    )
    if not cache_dir:
        return make_pool(read_candidate)
    packed = pack(
        cache_dir,
        folder,
        names=part.names_to_pack,
        side=image_size if crops is None else None,
        read=read_file,
        working_size=None if crops is None else crops.working_size,
    )
    return make_pool(look_up_candidate, packed=packed)


def file_digest(path: Path, image_size: int, crops: NativeCrops | None) -> str | None:
    """Return the digest that a run knows a file's image by, or None where it cannot be used."""
    return _read_candidate(path.parent, path.name, image_size, crops).digest


def _read_candidate(folder, name, image_size, crops):
    image, reason = _read_pixels(folder / name, image_size, crops)
    reason = reason or too_small(image.shape[:2], image_size)
    if reason:
        return _Candidate(name, reason=reason)
    return _Candidate(name, image=image, digest=pixel_digest(image))


def _read_pixels(path, image_size, crops):
    """Return (the image of a reference, or of the photograph of one, "") or (None, a reason)."""
    if crops is None:
        return read_image(path, image_size)
    return read_photograph(path, crops.working_size)


def _cifar10_pool(split, image_size, data_root, crops):
    if crops is not None:
        raise UserError(
            "crops at their own scale are of photographs, and CIFAR-10's images are taken whole; "
            "give a folder by --references, or --crop whole without a preset"
        )
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


def _photo_references(split, count, side, data_seed, seed, crops):
    source = f"{len(PHOTOS)} bundled photographs (a demonstration)"
    if crops is None:
        drawn = photo_crops(split, count, side=side, data_seed=data_seed, seed=seed)
        references = References(
            images=torch.from_numpy(drawn.images),
            names=drawn.names,
            digests=tuple(map(pixel_digest, drawn.images)),
            photographs=drawn.photographs,
            source=source,
        )
    else:
        members = photos_of_split(split, data_seed)
        arrays = [shrink(load_photo(i), min(crops.working_size, SHARP_PHOTO)) for i in members]
        if side > min(crops.working_size, SHARP_PHOTO):
            raise UserError(
                f"--image_size {side} is larger than the bundled photographs are at "
                f"--working_size {crops.working_size}, at most {SHARP_PHOTO} pixels; lower it"
            )
        every = _crop_references(
            PhotographsInMemory(arrays),
            names=[Path(PHOTOS[i][1]).stem for i in members],
            digests=[pixel_digest(array) for array in arrays],
            side=side,
            per_reference=-(-count // len(members)),
            source=source,
        )
        references = every.slice(0, count)
    photographs = len(np.unique(references.photographs))
    print(
        f"references: {source}, {counted(count, 'crop')} used{grey_share(references.images)}; "
        f"split: {counted(photographs, 'photograph')} for {split}"
    )
    return references
