"""Where an image is bad."""

from typing import NamedTuple

import numpy as np


class QualityMap(NamedTuple):
    """What a run says of each place of an image, with T types.

    An answer is about a place and its surroundings, about as far as the side of a training image.
    The answers lie on a grid of cells: row i, column j is about the pixel (i, j) × cell_side.
    """

    quality: np.ndarray  # (H, W) float32 in 0–100 of each pixel, higher is better
    type_probabilities: np.ndarray  # (rows, columns, T + 1) float32 of each cell, pristine last
    cell_side: int  # pixels from one cell to the next
    types: tuple[str, ...]  # (T,) the types' names


def interpolate(values: np.ndarray, height: int, width: int, cell_side: float) -> np.ndarray:
    """Return (height, width) between values (rows, columns) at the pixels (i, j) × cell_side.

    It is linear from cell to cell. Pixels beyond the last cell have its value.
    """
    down = _interpolation(height, values.shape[0], cell_side)
    across = _interpolation(width, values.shape[1], cell_side)
    return down @ values @ across.T


def _interpolation(length, count, cell_side):
    """Return (length, count) float32: what each cell adds to each pixel; rows sum to 1."""
    place = np.minimum(np.arange(length, dtype=np.float32) / cell_side, count - 1)
    distance = np.abs(place[:, None] - np.arange(count, dtype=np.float32))
    return np.maximum(0, 1 - distance)
