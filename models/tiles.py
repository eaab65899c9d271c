"""Cut images into tiles of about the training size, which cover every pixel."""

from typing import NamedTuple

import numpy as np
import torch


class Tiling(NamedTuple):
    """Where the tiles of an image lie. They are all of one size."""

    height: int  # of a tile, pixels
    width: int
    corners: list[tuple[int, int]]  # (top, left) of each tile, row by row


def tile_image(height: int, width: int, side: int) -> Tiling:
    """Return the tiles that cover an image, each about a square of this side.

    As many as fit best stand side by side, and are stretched to cover the image: between 2/3 and
    3/2 of the side, or less where the image is smaller. They overlap by less than a pixel each,
    because a tile's sides are whole numbers.
    """
    rows = max(1, round(height / side))
    columns = max(1, round(width / side))
    tile_height = -(-height // rows)
    tile_width = -(-width // columns)
    tops = _spread(rows, height - tile_height)
    lefts = _spread(columns, width - tile_width)
    return Tiling(tile_height, tile_width, [(top, left) for top in tops for left in lefts])


def cut(images: torch.Tensor, tiling: Tiling) -> torch.Tensor:
    """Return (B × tiles, 3, height, width) of images (B, 3, H, W), image by image."""
    tiles = []
    for top, left in tiling.corners:
        tiles.append(images[:, :, top : top + tiling.height, left : left + tiling.width])
    return torch.stack(tiles, dim=1).flatten(0, 1)


def _spread(count, last):
    """Return whole positions from 0 to last, evenly spread."""
    return [int(round(position)) for position in np.linspace(0, last, count)]
