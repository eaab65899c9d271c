"""Distort a batch, each image in its own way, or a single image."""

import operator
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from distortions.arguments import is_number
from distortions.guard import advise_on_image_shape, advise_on_values, describe
from distortions.registry import DISTORTIONS, quality_of, unknown_type
from distortions.uint8_ops import chunked, scatter_rows, to_uint8
from utils.errors import UserError, describe_exception
from utils.images import MIN_SIDE, to_rgb
from utils.rng import CounterRNG, fold_in

# A user's distortion is called again for its first images, which shows random numbers of its own.
REPEATED_IMAGES = 4
REPEATED_ERROR = 2  # grey levels: sums in another order, in a smaller batch, round otherwise
_repeated: dict[int, Callable] = {}  # by id, because not every callable object has a hash


def distort(
    images: torch.Tensor,
    types: tuple[str, ...],
    label: torch.Tensor,
    level: torch.Tensor,
    direction: torch.Tensor,
    keys: torch.Tensor,
) -> torch.Tensor:
    """Distort each image in its own way, clip, and round to 8 bits.

    images: (B, H, W, 3) uint8. label: (B,) int64 index into types; −1 leaves an image as it is.
    level: (B,) in [0, 1]. direction: (B,) of −1 or +1. keys: (B,) int64 of the random numbers.
    Returns (B, H, W, 3) uint8 on the device of images.
    """
    # Sort the batch by type, so that every type is one contiguous slice.
    order = label.argsort()
    counts = torch.bincount(label + 1, minlength=len(types) + 1).tolist()  # label −1 comes first

    def sorted_slices(values):
        values = values.index_select(0, order.to(values.device))
        return values.to(images.device, non_blocking=True).split(counts)

    rows = order.to(images.device, non_blocking=True).split(counts)
    levels = sorted_slices(level)
    directions = sorted_slices(direction)
    image_keys = sorted_slices(keys)

    output = torch.empty_like(images)
    scatter_rows(images.index_select(0, rows[0]), output, rows[0])
    for i, name in enumerate(types, start=1):
        if len(rows[i]):
            chosen = images.index_select(0, rows[i])
            distorted = _distort_slice(name, chosen, levels[i], directions[i], image_keys[i])
            scatter_rows(distorted, output, rows[i])
    return output


def distort_alike(
    images: torch.Tensor, name: str, level: float | torch.Tensor, direction: int, keys: torch.Tensor
) -> torch.Tensor:
    """Distort all images (B, H, W, 3) uint8 by one type in one direction.

    level: one for all, or (B,) of each. keys: (B,) int64 of the random numbers.
    """
    count = len(images)
    levels = torch.as_tensor(level, dtype=torch.float32).expand(count)
    return distort(
        images,
        (name,),
        label=torch.zeros(count, dtype=torch.int64),
        level=levels,
        direction=torch.full((count,), direction),
        keys=keys,
    )


def _distort_slice(name, images, level, direction, keys):
    """Distort images (B, H, W, 3) by one type, each at its level and in its direction."""
    entry = DISTORTIONS[name]
    if entry.is_standard or id(entry.function) in _repeated:
        return _apply(entry, images, level, direction, keys)
    _repeated[id(entry.function)] = entry.function
    first = [values[:REPEATED_IMAGES].clone() for values in (images, level, direction, keys)]
    distorted = _apply(entry, images, level, direction, keys)
    again = _apply(entry, *first)
    difference = (again.int() - distorted[:REPEATED_IMAGES].int()).abs().max()
    if difference > REPEATED_ERROR:
        print(
            f"warning: {describe(entry.function)} made other pixels of the same images when it was "
            "called again, so that no result can be repeated; draw all random numbers from rng, "
            "and use nothing of other images",
            file=sys.stderr,
        )
    return distorted


def _apply(entry, images, level, direction, keys):
    """Call a distortion for images (B, H, W, 3) uint8, in its own dtype."""
    level = level.float().view(-1, 1, 1, 1)
    direction = direction.float().view(-1, 1, 1, 1)
    if entry.dtype == "uint8":
        return entry.apply(images, level, direction, CounterRNG(keys))

    @chunked
    def apply_in_float(images, level, direction, keys):
        values = (images / 255).contiguous()
        distorted = entry.apply(values, level, direction, CounterRNG(keys))
        return to_uint8((distorted * 255).contiguous())

    return apply_in_float(images, level, direction, keys)


def apply_parameter(
    images: torch.Tensor, distortion_type: str, parameter: float, keys: torch.Tensor
) -> torch.Tensor:
    """Distort images (B, H, W, 3) uint8 by a value of what a type's table holds.

    It may lie beyond the table. keys: (B,) int64 of the random numbers.
    """
    entry = DISTORTIONS[distortion_type]
    values = torch.full((len(images), 1, 1, 1), float(parameter), device=images.device)
    if entry.dtype == "uint8":
        return entry.function(images.clone(), values, CounterRNG(keys))
    distorted = entry.function((images / 255).contiguous(), values, CounterRNG(keys))
    return to_uint8((distorted * 255).contiguous())


def apply_distortion(
    image: Image.Image | np.ndarray | torch.Tensor,
    distortion_type: str,
    level: float,
    direction: int | None = None,
    seed: int = 0,
) -> tuple[Image.Image | np.ndarray | torch.Tensor, float]:
    """Distort one image.

    image: a PIL image, or uint8 values (H, W, 3) as an array or a tensor, with sides of 8 pixels
    or more. level: in [0, 1]. direction: −1 or +1 for types that have two; None draws it.
    seed: of the random numbers. Returns the image, in the kind that came, and its quality, 0–100,
    higher is better; it is 100 where no pixel changes. Raises ValueError for anything else.
    """
    if not isinstance(distortion_type, str) or distortion_type not in DISTORTIONS:
        raise UserError(unknown_type(distortion_type))
    level = _check_level(level)
    direction = _check_direction(direction, distortion_type)
    pixels = _to_array(image)
    key = fold_in(_check_seed(seed)).view(1)
    random_direction = CounterRNG(fold_in(key, 1)).sign()
    output = distort(
        torch.from_numpy(pixels)[None],
        types=(distortion_type,),
        label=torch.zeros(1, dtype=torch.int64),
        level=torch.tensor([level]),
        direction=random_direction if direction is None else torch.tensor([float(direction)]),
        keys=key,
    )
    quality = float(quality_of(distortion_type, level))
    if np.array_equal(output[0].numpy(), pixels):
        quality = 100.0  # such as the saturation of a grey image
    if isinstance(image, torch.Tensor):
        return output[0].to(image.device), quality
    distorted = output[0].numpy()
    if isinstance(image, Image.Image):
        return Image.fromarray(distorted), quality
    return distorted, quality


def _check_level(level):
    """Return the level as a float, or raise UserError."""
    number = level.item() if getattr(level, "ndim", None) == 0 else level
    if not is_number(number):
        raise UserError(f"level {level!r}: expected a number in 0–1")
    if not 0 <= number <= 1:
        raise UserError(f"level {number}: expected a number in 0–1")
    return float(number)


def _check_direction(direction, distortion_type):
    """Return −1, +1 or None, or raise UserError."""
    if direction is None or (is_number(direction) and direction in (-1, 1)):
        return direction
    names = DISTORTIONS[distortion_type].directions
    meaning = f" (of {distortion_type}, −1 is {names[0]!r}, +1 is {names[1]!r})" if names else ""
    raise UserError(f"direction {direction!r} is none of −1, +1, None{meaning}")


def _check_seed(seed):
    """Return the seed as an int of 64 bits, or raise UserError."""
    try:
        number = operator.index(seed)
    except TypeError:
        number = None
    if number is None or not -(2**63) <= number < 2**63:
        raise UserError(f"seed {seed!r}: expected a whole number of 64 bits at most")
    return number


def _to_array(image):
    """Return a copy of the image as an (H, W, 3) uint8 array, or raise UserError."""
    expected = (
        f"expected a PIL image or a uint8 array (H, W, 3) with sides of {MIN_SIDE} or more, got"
    )
    if isinstance(image, str | bytes | Path):
        raise UserError(f"{expected} {image!r}; read a file by `Image.open` of PIL")
    try:
        pixels = image
        if isinstance(image, Image.Image):
            pixels = to_rgb(image)
        elif isinstance(image, torch.Tensor):
            pixels = image.detach().cpu().numpy()
        pixels = np.array(pixels)
    except Exception as problem:  # Pillow and numpy raise many
        reason = describe_exception(problem)
        raise UserError(f"{expected} what cannot be read ({reason})") from problem
    if pixels.ndim == 0:
        raise UserError(f"{expected} an object of type {type(image).__name__}")
    advice = advise_on_image_shape(pixels.shape)
    if not advice and pixels.dtype != np.uint8:
        advice = advise_on_values(pixels)
    is_rgb = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    if not is_rgb or min(pixels.shape[:2]) < MIN_SIDE:
        end = f"; {advice}" if advice else ""
        raise UserError(f"{expected} {pixels.dtype} {pixels.shape}{end}")
    return pixels
