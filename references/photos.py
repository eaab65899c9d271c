"""Read the photographs that come with scikit-learn and scikit-image, and crop them."""

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from utils.errors import UserError
from utils.rng import SPLITS, CounterRNG, fold_in, permutation

# The packages' colour photographs of real scenes. Their drawings, a colour wheel, microscopy, a
# retina and a star field are left out, and so is motorcycle_right.png, which shows the scene of
# motorcycle_left.png.
PHOTOS = (
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/motorcycle_left.png"),
    ("skimage", "data/rocket.jpg"),
)
SMALLEST_PHOTO = 300  # pixels: the shortest side among the photographs
SHARP_PHOTO = 256  # pixels: shrunk to this shorter side, little is left of the cameras' blur
# PHOTOS are shuffled. The first two are for the test, the next for validation.
_PHOTOS_OF_SPLIT = {"test": slice(0, 2), "val": slice(2, 3), "train": slice(3, 7)}


class PhotoCrops(NamedTuple):
    """Crops of the photographs of one split."""

    images: np.ndarray  # (N, S, S, 3) uint8
    names: tuple[str, ...]
    photographs: np.ndarray  # (N,) int64: the index in PHOTOS of each crop's photograph


def load_photo(i: int) -> Image.Image:
    """Read photograph i of PHOTOS from its package's files, as 8-bit RGB."""
    package, path = PHOTOS[i]
    specification = find_spec(package)
    if specification is None or specification.origin is None:
        raise UserError(f"--references photos needs the package {package}; install it")
    return Image.open(Path(specification.origin).parent / path).convert("RGB")


def photos_of_split(split: str, data_seed: int) -> list[int]:
    """Return the indices in PHOTOS of a split's photographs."""
    return permutation(len(PHOTOS), data_seed)[_PHOTOS_OF_SPLIT[split]].tolist()


def photo_crops(split: str, count: int, side: int, data_seed: int, seed: int) -> PhotoCrops:
    """Crop this split's photographs, one after the other, at random places and scales.

    A crop is shrunk at least twofold if the photograph is large enough, so that little of the
    camera's noise and blur is left. data_seed decides which photographs a split has, and seed
    decides the crops.
    """
    if side > SMALLEST_PHOTO:
        raise UserError(
            f"--image_size {side} is larger than the bundled photographs allow "
            f"({SMALLEST_PHOTO} pixels)"
        )
    members = photos_of_split(split, data_seed)
    photos = {i: load_photo(i) for i in members}
    keys = fold_in(seed, SPLITS.index(split), torch.arange(count))
    places = CounterRNG(keys).uniform(shape=(3,)).tolist()
    images = np.empty((count, side, side, 3), np.uint8)
    names = []
    photographs = []
    for k, (scale, across, down) in enumerate(places):
        i = members[k % len(members)]
        images[k] = _crop(photos[i], side, scale, across, down)
        names.append(f"{Path(PHOTOS[i][1]).stem}/{k}")
        photographs.append(i)
    return PhotoCrops(images, tuple(names), np.array(photographs, np.int64))


def _crop(photo, side, scale, across, down):
    """Shrink a square of the photo to (side, side, 3); scale, across and down are in [0, 1)."""
    largest = min(photo.size) / side  # how far the whole photograph could be shrunk
    smallest = min(2, largest)
    edge = side * smallest * (largest / smallest) ** scale
    left = across * (photo.width - edge)
    top = down * (photo.height - edge)
    box = (left, top, left + edge, top + edge)
    return np.asarray(photo.resize((side, side), Image.Resampling.LANCZOS, box=box))
