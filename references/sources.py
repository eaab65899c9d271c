"""Where pristine images come from: CIFAR-10, a folder, or the photographs that come with two dependencies.

Parts never share a reference: validation is carved from the training part, and the test part stands apart. Crops of
one photograph stay on one side. Which references are taken depends on a seed alone.
"""

import os
import socket
import stat
import struct
import zlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from distortions.uint8_ops import from_interleaved
from references.packed import PackedImages, pack, pixel_digest
from utils import distributed
from utils.errors import UserError
from utils.images import to_rgb
from utils.rng import PARTS, Draw, make_key, permutation

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}  # by a file's suffix, Pillow's name
TEST_SHARE = 0.2  # of a folder that has no parts of its own
MAX_BYTES = (
    2**30
)  # of a file; some formats are read into memory whole. Pillow has the limit on pixels: 179 million
NAMED = 20  # unusable files that are named; the others are counted
DOWNLOAD_TIMEOUT = 10  # seconds without an answer
# The colour photographs of real scenes among the images of scikit-learn and scikit-image. Left out: drawings, a colour
# wheel, microscopy, a retina, a star field, and motorcycle_right.png, which is the scene of motorcycle_left.png again.
PHOTOS = (
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/motorcycle_left.png"),
    ("skimage", "data/rocket.jpg"),
)
SMALLEST_PHOTO = 300  # pixels, the shortest side of them all
PHOTO_COUNTS = {"test": 2, "val": 1, "train": 4}
# What Pillow raises for damaged files; MemoryError where a header promises more than there is.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError,
               MemoryError)  # fmt: skip


@dataclass(frozen=True)
class References:
    images: torch.Tensor | PackedImages  # (N, 3, S, S) uint8, interleaved in memory (pixels.py)
    names: tuple[str, ...]
    digests: tuple[str, ...]  # 16 hexadecimal digits each, from the pixels
    photographs: np.ndarray  # (N,) int64: crops of one photograph share a number
    source: str  # for people: "CIFAR-10"

    def __len__(self):
        return len(self.images)


def absolute(references):
    """What --references says, a folder by its absolute path."""
    return (
        references
        if references in ("auto", "cifar10", "photos")
        else str(Path(references).expanduser().resolve())
    )


def resolve_source(references, data_root):
    """'cifar10', 'photos' or an absolute path for what --references says, and None or a warning about 'auto'."""
    if references != "auto":
        return absolute(references), None
    try:
        _cifar10(data_root, "train")
        return "cifar10", None
    except UserError as problem:
        return (
            "photos",
            f"{problem}; going on with --references photos, a demonstration on {len(PHOTOS)} photographs",
        )


def load_training_references(
    source, train_samples, val_samples, image_size, data_root, data_seed, cache_dir=None
):
    """(train, val): disjoint References from the source's training part. Validation is taken first, so that runs
    that differ in train_samples are judged on the same images. A folder's stay on disk where cache_dir is given."""
    if source == "photos":
        return tuple(
            _photo_crops(part, count, image_size, data_seed, data_seed)
            for part, count in (("train", train_samples), ("val", val_samples))
        )
    pool = _pool(source, "train", image_size, data_root, data_seed, cache_dir)
    taken, _ = pool.take(
        train_samples + val_samples, permutation(len(pool.names), data_seed, PARTS.index("train"))
    )
    if len(taken) == 0:
        raise UserError(
            f"{pool.source} has no image that can be used at {image_size}×{image_size} pixels"
        )
    if len(taken) < train_samples + val_samples:
        raise UserError(
            f"--train_samples {train_samples} and --val_samples {val_samples} need {train_samples + val_samples} "
            f"references, but {pool.source} has {len(taken)} for training; lower them to that in all"
        )
    return _slice(taken, val_samples, None), _slice(taken, 0, val_samples)


def load_test_references(
    source, count, image_size, data_root, data_seed, seed, exclude=(), cache_dir=None
):
    """At most `count` References of the held-out part, and how many were dropped because their pixel digests are in
    `exclude`. `data_seed` decides the split where the source has none; `seed` decides which are taken."""
    if source == "photos":
        return _photo_crops("test", count, image_size, data_seed, seed), 0
    pool = _pool(source, "test", image_size, data_root, data_seed, cache_dir)
    taken, dropped = pool.take(
        count, permutation(len(pool.names), seed, PARTS.index("test")), set(exclude)
    )
    if len(taken) == 0:
        raise UserError(f"{pool.source} has no usable test image that was not trained on")
    return taken, dropped


class _Pool:
    """The candidates of one part: names, and read(name), which gives (its (3, S, S) uint8, its digest, None) or (None,
    None, why it cannot be used). Of a packed folder the pixels are not read here: (None, its digest, None)."""

    def __init__(self, names, read, source, packed=None):
        self.names, self.read, self.source, self.packed = names, read, source, packed

    def take(self, count, order, exclude=()):
        """The first `count` usable and different candidates in this order, and how many were passed over because their
        digests are in `exclude`. What cannot be used is named."""
        images, taken, skipped, copies, excluded, seen = [], {}, 0, 0, 0, set(exclude)
        with tqdm(
            total=count,
            desc="references",
            unit="image",
            delay=2,
            leave=False,
            disable=not distributed.is_first(),
        ) as bar:
            for name in (self.names[i] for i in order.tolist()):
                if len(taken) == count:
                    break
                image, digest, why = self.read(name)
                if why is not None:
                    skipped += 1
                    if skipped <= NAMED:
                        bar.write(f"skipped {_printable(name)} ({why})")
                    continue
                if digest in seen:
                    excluded += digest in exclude
                    copies += digest not in exclude
                    continue
                seen.add(digest)
                taken[name] = digest
                if self.packed is None:
                    images.append(image)
                bar.update()
        if skipped or copies:
            print(f"{self.source}: {skipped} unusable images and {copies} copies of others skipped")
        images = self.packed.images(list(taken)) if self.packed else _stack(images)
        names, digests = tuple(map(_printable, taken)), tuple(taken.values())
        return References(images, names, digests, np.arange(len(names)), self.source), excluded


def _stack(images):
    """(N, 3, S, S) of images (3, S, S), interleaved in memory."""
    pixels = (
        np.stack([image.transpose(1, 2, 0) for image in images])
        if images
        else np.empty((0, 1, 1, 3), np.uint8)
    )
    return from_interleaved(torch.from_numpy(pixels))


def _pool(source, part, image_size, data_root, data_seed, cache_dir):
    if source == "cifar10":
        arrays = _cifar10(data_root, part)
        if image_size > arrays.shape[1]:
            raise UserError(
                f"--image_size {image_size} is larger than CIFAR-10's images, which are 32×32"
            )
        named = {f"{part}/{i}": array for i, array in enumerate(arrays)}

        def read_array(name):
            return _with_digest(_square(Image.fromarray(named[name]), image_size), None)

        return _Pool(tuple(named), read_array, "CIFAR-10")
    folder = Path(source)
    together, names = _folder_part(folder, part, data_seed)

    def read(name):
        return read_image(folder / name, image_size)

    if cache_dir:
        packed = pack(cache_dir, folder, together, image_size, read)
        return _Pool(names, packed.look, f"folder {folder.name}", packed)
    return _Pool(names, lambda name: _with_digest(*read(name)), f"folder {folder.name}")


def _with_digest(image, why):
    return image, None if image is None else pixel_digest(image), why


def _cifar10(data_root, part):
    """(N, 32, 32, 3) uint8; downloaded, once and briefly, where it is missing."""
    from torchvision.datasets import CIFAR10  # a slow import that only this source needs

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        if not any(
            Path(data_root, name).exists() for name in (CIFAR10.base_folder, CIFAR10.filename)
        ):
            urlopen(CIFAR10.url).close()  # torchvision would try twice
        return CIFAR10(data_root, train=part == "train", download=True).data
    except (OSError, RuntimeError) as problem:
        raise UserError(
            f"CIFAR-10 is not under {data_root} and could not be downloaded ({_one_line(problem)})"
        ) from problem
    finally:
        socket.setdefaulttimeout(timeout)


def _folder_part(folder, part, data_seed):
    """(names of all image files that share a tree, names of the part among them), sorted."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"--references {folder}: no such folder (nor is it 'cifar10', 'photos' or 'auto')"
        )
    held_out = next((name for name in ("test", "val") if (folder / name).is_dir()), None)
    if (folder / "train").is_dir() and held_out:
        names = _image_files(folder, "train" if part == "train" else held_out)
        return names, names
    if held_out:
        raise UserError(
            f"--references {folder} has {held_out}/ but no train/; add it, or name another folder"
        )
    names = _image_files(folder, ".")
    order = np.argsort(
        make_key(data_seed, torch.tensor([zlib.crc32(os.fsencode(name)) for name in names])).numpy()
    )
    if len(names) == 1:
        raise UserError(
            f"{folder} holds a single image, which cannot be split into training and test"
        )
    cut = max(1, round(TEST_SHARE * len(names)))
    return names, tuple(names[i] for i in np.sort(order[:cut] if part == "test" else order[cut:]))


def _image_files(folder, below):
    def tell(problem):
        print(
            f"skipped {_printable(os.path.relpath(problem.filename, folder))} ({problem.strerror})"
        )

    found = []
    for directory, folders, files in os.walk(folder / below, onerror=tell):
        for link in filter(os.path.islink, (os.path.join(directory, name) for name in folders)):
            print(
                f"skipped {_printable(os.path.relpath(link, folder))} (links to folders are not followed)"
            )
        paths = (Path(directory, name) for name in files if not name.startswith("."))
        found += [str(path.relative_to(folder)) for path in paths if path.suffix.lower() in FORMATS]
    if not found:
        raise UserError(f"{folder / below} holds no image ({', '.join(sorted(FORMATS))})")
    return tuple(sorted(found))


def read_image(path, side):
    """((3, side, side) uint8, None) of an image file, or (None, why it cannot be used)."""
    try:
        with _open(path) as image:
            return _square(to_rgb(image), side), None
    except _UNREADABLE as problem:
        return None, _one_line(problem)


def _open(path):
    """A PIL image of which only the header has been read. Raises one of _UNREADABLE for what is no still image of the
    format that the file's name says."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")  # opening a pipe would wait for ever
    if status.st_size > MAX_BYTES:
        raise ValueError(f"{status.st_size} bytes, more than {MAX_BYTES}")
    name = FORMATS[path.suffix.lower()]
    try:
        image = Image.open(path, formats=(name,))
    except UnidentifiedImageError as problem:
        raise ValueError(f"not a {name} file") from problem
    if name in ("PNG", "WEBP") and getattr(image, "is_animated", False):
        image.close()
        raise ValueError("animated")
    return image


def largest_side(source, at_most):
    """The side of a reference that the source's images allow, going by its first that opens, up to at_most pixels."""
    if source in ("cifar10", "photos"):
        return min(at_most, 32 if source == "cifar10" else SMALLEST_PHOTO)
    for name in _folder_part(Path(source), "train", 0)[1]:
        try:
            with _open(Path(source) / name) as image:
                return min(at_most, *image.size)
        except _UNREADABLE:
            continue  # the loader names it
    return at_most


def fit(image, side):
    """Shrink the shorter side of an RGB image to `side`, keep the centre square: (side, side, 3) uint8. It is never
    enlarged: that would blur it."""
    short = min(image.size)
    if short < side:
        raise ValueError(f"{image.width}×{image.height} is smaller than {side}×{side}")
    left, top = (image.width - short) / 2, (image.height - short) / 2
    if short == side:
        return np.asarray(image)[int(top) : int(top) + side, int(left) : int(left) + side]
    box = (left, top, left + short, top + short)
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS, box=box))


def _square(image, side):
    return fit(image, side).transpose(2, 0, 1)


def _photo_crops(part, count, side, data_seed, seed):
    """Crops at random places and scales of this part's photographs, in turn. A crop is shrunk at least twofold where
    the photograph allows, so that it is clean."""
    order = permutation(len(PHOTOS), data_seed)
    ends = np.cumsum(list(PHOTO_COUNTS.values()))
    starts = dict(zip(PHOTO_COUNTS, ends - list(PHOTO_COUNTS.values())))
    members = order[starts[part] : starts[part] + PHOTO_COUNTS[part]].tolist()
    photos = {i: load_photo(i) for i in members}
    if side > SMALLEST_PHOTO:
        raise UserError(
            f"--image_size {side} is larger than the bundled photographs allow ({SMALLEST_PHOTO} pixels)"
        )
    draws = Draw(make_key(seed, PARTS.index(part), torch.arange(count))).uniforms(3).tolist()
    chosen = [members[i % len(members)] for i in range(count)]
    crops = [_crop(photos[i], side, *draw) for i, draw in zip(chosen, draws)]
    names = tuple(f"{Path(PHOTOS[i][1]).stem}/{k}" for k, i in enumerate(chosen))
    images = from_interleaved(
        torch.from_numpy(np.array(crops, np.uint8).reshape(count, side, side, 3))
    )
    digests = tuple(map(pixel_digest, images.numpy()))
    return References(
        images,
        names,
        digests,
        np.array(chosen),
        f"{len(PHOTOS)} bundled photographs (a demonstration)",
    )


def load_photo(i):
    """Photograph i of PHOTOS, from its package's files."""
    package, path = PHOTOS[i]
    return Image.open(Path(find_spec(package).origin).parent / path).convert("RGB")


def _crop(photo, side, scale, across, down):
    largest = min(photo.size) / side  # how far the whole photograph could be shrunk
    smallest = min(2, largest)
    edge = side * smallest * (largest / smallest) ** scale
    left, top = across * (photo.width - edge), down * (photo.height - edge)
    box = (left, top, left + edge, top + edge)
    return np.asarray(photo.resize((side, side), Image.Resampling.LANCZOS, box=box))


def _slice(references, start, stop):
    whole = references.images, references.names, references.digests, references.photographs
    return References(*(values[start:stop] for values in whole), references.source)


def _printable(name):
    return name if name.isprintable() else ascii(name)[1:-1]


def _one_line(problem):
    return " ".join(str(problem).split()) or type(problem).__name__
