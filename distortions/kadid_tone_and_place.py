"""The last ten of KADID-10k's 25 distortions: see kadid.py.

They change brightness, move or cover pixels, sharpen, and change contrast.
"""

import cv2
import numpy as np
from torch import Tensor

from distortions.kadid_ops import (
    block_size,
    bytes_from_lab,
    covered_pixels,
    draw_whole,
    from_lab,
    moved_inside,
    quantize_levels,
    raise_tones,
    scatter_pixels,
    shown_pixels,
    to_bytes,
    to_lab,
)
from distortions.registry import distortion, per_image
from distortions.uint8_ops import map_values
from utils.rng import CounterRNG, ImageRNG

PATCH_SIDE = 16  # pixels
PATCH_DISTANCE = (4, 8)  # pixels: how far a patch is moved
BLOCK_SIDE = 32  # pixels


@distortion(
    worst_quality=35,
    parameter="amount of the tone curve",
    levels=(0, 0.258, 0.434, 0.605, 0.819, 1.08),
)
@per_image
def kadid_brighten(image: np.ndarray, amount: float, rng: ImageRNG) -> np.ndarray:
    """Raise middle tones by a tone curve that keeps black and white.

    A third of it acts on CIELAB's L alone, the rest on each channel.
    """
    if amount == 0:
        return image
    lightness, a, b = to_lab(image)
    raised = 100 * raise_tones(lightness / 100, amount).clip(0, 1)
    of_channels = 255 * raise_tones(np.arange(256) / 255, amount).clip(0, 1)
    total = cv2.LUT(image, 2 * of_channels)
    total += 255 * from_lab(raised, a, b)
    return np.rint(total / 3).astype(np.uint8)


@distortion(
    worst_quality=45,
    parameter="amount of the tone curve",
    levels=(0, 0.221, 0.351, 0.478, 0.612, 0.783),
    dtype="uint8",
)
def kadid_darken(images: Tensor, amount: Tensor, rng: CounterRNG) -> Tensor:
    """Lower middle tones by a tone curve that keeps black and white."""
    amount = amount.view(-1, 1)
    return map_values(images, lambda values: 255 * raise_tones(values / 255, -amount))


@distortion(
    worst_quality=92,
    parameter="shift, of values in 0–1",
    levels={
        "dark": (0, -0.0236, -0.0472, -0.0708, -0.0862, -0.0964),
        "bright": (0, 0.067, 0.0928, 0.109, 0.124, 0.14),
    },
    dtype="uint8",
)
def kadid_mean_shift(images: Tensor, shift: Tensor, rng: CounterRNG) -> Tensor:
    """Add one shift to all values.

    Between two whole grey levels each image draws one.
    """
    whole = (255 * shift + rng.uniform(shape=(1, 1, 1))).floor().view(-1, 1)
    return map_values(images, lambda values: values + whole)


@distortion(
    worst_quality=24,
    parameter="standard deviation of the distance, pixels",
    levels=(0, 0.111, 0.188, 0.292, 0.448, 0.958),
)
@per_image
def kadid_jitter(image: np.ndarray, amount: float, rng: ImageRNG) -> np.ndarray:
    """Take each pixel from a random place near it, five times over."""
    return scatter_pixels(image, amount, passes=5, rng=rng)


@distortion(
    worst_quality=69,
    parameter="patches of 16×16 pixels, in 512×384",
    levels=(0, 19.8, 31.6, 54.8, 74.1, 97.7),
    in_places=True,
)
@per_image
def kadid_non_eccentricity_patch(image: np.ndarray, number: float, rng: ImageRNG) -> np.ndarray:
    """Copy small patches to places near them."""
    if number == 0:
        return image
    height, width = image.shape[:2]
    count, patch_height, patch_width = block_size(number, PATCH_SIDE, height, width)
    original = image.copy()
    for place_y, place_x, turn, far in rng.uniform(shape=(count, 4)):
        rows = covered_pixels(place_y, patch_height, height)
        columns = covered_pixels(place_x, patch_width, width)
        distance = PATCH_DISTANCE[0] + far * (PATCH_DISTANCE[1] - PATCH_DISTANCE[0])
        from_rows = moved_inside(rows, distance * np.sin(2 * np.pi * turn), height)
        from_columns = moved_inside(columns, distance * np.cos(2 * np.pi * turn), width)
        image[rows, columns] = original[from_rows, from_columns]
    return image


@distortion(
    worst_quality=27, parameter="block side, pixels", levels=(1, 1.11, 1.23, 1.8, 2.49, 3.45)
)
@per_image
def kadid_pixelate(image: np.ndarray, side: float, rng: ImageRNG) -> np.ndarray:
    """Show one pixel of each square block in all of it; where the grid begins is random."""
    if side == 1:
        return image
    top, left = side * rng.uniform(shape=2)
    rows = shown_pixels(image.shape[0], side, top)
    columns = shown_pixels(image.shape[1], side, left)
    return image.take(rows, axis=0).take(columns, axis=1)


@distortion(
    worst_quality=58, parameter="grey levels (256: all)", levels=(256, 31.1, 15.4, 11.4, 8.83, 7.07)
)
@per_image
def kadid_quantization(image: np.ndarray, count: float, rng: ImageRNG) -> np.ndarray:
    """Show all channels in so many grey levels, as the image's values suggest."""
    whole = draw_whole(count, rng)
    return image if whole >= 256 else quantize_levels(image, whole)


@distortion(
    worst_quality=40,
    parameter="blocks of 32×32 pixels, in 512×384",
    levels=(0, 0.533, 1.07, 1.6, 2.62, 9.64),
    local=True,
)
@per_image
def kadid_color_block(image: np.ndarray, number: float, rng: ImageRNG) -> np.ndarray:
    """Cover square blocks by one random colour each."""
    if number == 0:
        return image
    height, width = image.shape[:2]
    count, block_height, block_width = block_size(number, BLOCK_SIDE, height, width)
    for place_y, place_x, *color in rng.uniform(shape=(count, 5)):
        rows = covered_pixels(place_y, block_height, height)
        columns = covered_pixels(place_x, block_width, width)
        image[rows, columns] = to_bytes(255 * np.array(color))
    return image


@distortion(
    worst_quality=24, parameter="amount of unsharp masking", levels=(0, 0.633, 1.22, 1.96, 3.52, 11)
)
@per_image
def kadid_high_sharpen(image: np.ndarray, amount: float, rng: ImageRNG) -> np.ndarray:
    """Add to CIELAB's L so many times its difference from a Gaussian blur of 3 pixels."""
    if amount == 0:
        return image
    lightness, a, b = to_lab(image)
    blurred = cv2.GaussianBlur(lightness, (13, 13), 3, borderType=cv2.BORDER_REPLICATE)
    sharpened = (lightness + amount * (lightness - blurred)).clip(0, 100)
    return bytes_from_lab(sharpened, a, b)


@distortion(
    worst_quality=73,
    parameter="amount of the tone curve (-0.2: none)",
    levels={
        "low": (-0.2, -0.3, -0.4, -0.456, -0.512, -0.569),
        "high": (-0.2, -0.0519, 0.0518, 0.132, 0.21, 0.289),
    },
    dtype="uint8",
)
def kadid_contrast_change(images: Tensor, amount: Tensor, rng: CounterRNG) -> Tensor:
    """Turn the tone curve about middle grey; black and white stay.

    It is the cubic through 0.25 − amount / 4 at 0.3, and 0.75 + amount / 4 at 0.7.
    """
    turn = ((amount + 0.2) / 0.168).view(-1, 1)

    def curve(values):
        from_middle = values / 255 - 0.5
        return values + 255 * turn * from_middle * (0.25 - from_middle**2)

    return map_values(images, curve)
