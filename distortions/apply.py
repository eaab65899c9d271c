"""Distort a batch, each image in its own way, or a single image."""

import numpy as np
import torch
from PIL import Image

from distortions.registry import DISTORTIONS, quality_of
from distortions.uint8_ops import chunked, scatter_rows, to_uint8
from utils.errors import UserError
from utils.images import MIN_SIDE, to_rgb
from utils.rng import CounterRNG, fold_in


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
            distorted = _distort_alike(name, chosen, levels[i], directions[i], image_keys[i])
            scatter_rows(distorted, output, rows[i])
    return output


def _distort_alike(name, images, level, direction, keys):
    """Distort all images (B, H, W, 3) uint8 by one type."""
    entry = DISTORTIONS[name]
    level = level.float().view(-1, 1, 1, 1)
    direction = direction.float().view(-1, 1, 1, 1)
    if entry.dtype == "uint8":
        distorted = entry.apply(images, level, direction, CounterRNG(keys))
        _check_output(name, distorted, images)
        return distorted

    @chunked
    def distort_in_float(images, level, direction, keys):
        values = (images / 255).contiguous()
        distorted = entry.apply(values, level, direction, CounterRNG(keys))
        _check_output(name, distorted, values)
        return to_uint8((distorted.float() * 255).contiguous())

    return distort_in_float(images, level, direction, keys)


def _check_output(name, output, images):
    """Raise UserError where a distortion returned what it must not."""
    if output.shape != images.shape:
        shape = tuple(output.shape)
        raise UserError(f"{name} returned shape {shape}, expected {tuple(images.shape)}")
    if images.dtype == torch.uint8 and output.dtype != torch.uint8:
        raise UserError(f"{name} returned {output.dtype}, expected uint8")
    if output.is_floating_point() and not output.sum().isfinite():
        raise UserError(f"{name} returned values that are not finite")


def apply_distortion(
    image: Image.Image | np.ndarray,
    distortion_type: str,
    level: float,
    direction: int | None = None,
    seed: int = 0,
) -> tuple[Image.Image | np.ndarray, float]:
    """Distort one image.

    image: a PIL image or an (H, W, 3) uint8 array, with sides of 8 pixels or more. level: in [0,
    1]. direction: −1 or +1 for types that have two; None draws it. seed: of the random numbers.
    Returns the image, in the kind that came, and its quality, 0–100, higher is better. Raises
    ValueError for anything else.
    """
    if distortion_type not in DISTORTIONS:
        names = ", ".join(DISTORTIONS)
        raise UserError(f"unknown distortion {distortion_type!r}; there are: {names}")
    if not 0 <= level <= 1:
        raise UserError(f"level {level} is outside 0–1")
    if direction not in (None, -1, 1):
        raise UserError(f"direction {direction!r} is none of −1, +1, None")
    pixels = _to_array(image)
    key = fold_in(seed).view(1)
    random_direction = CounterRNG(fold_in(key, 1)).sign()
    output = distort(
        torch.from_numpy(pixels)[None],
        types=(distortion_type,),
        label=torch.zeros(1, dtype=torch.int64),
        level=torch.tensor([float(level)]),
        direction=random_direction if direction is None else torch.tensor([float(direction)]),
        keys=key,
    )
    distorted = output[0].numpy()
    quality = float(quality_of(distortion_type, level))
    if isinstance(image, Image.Image):
        return Image.fromarray(distorted), quality
    return distorted, quality


def _to_array(image):
    """Return a copy of the image as an (H, W, 3) uint8 array, or raise UserError."""
    pixels = np.array(to_rgb(image) if isinstance(image, Image.Image) else image)
    is_rgb = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    if not is_rgb or min(pixels.shape[:2]) < MIN_SIDE:
        raise UserError(
            f"expected a PIL image or a uint8 array (H, W, 3) with sides of {MIN_SIDE} or more, "
            f"got {pixels.dtype} {pixels.shape}"
        )
    return pixels
