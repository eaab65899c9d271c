"""Cut images into tiles of the training size, which cover every pixel once."""

from collections.abc import Iterator
from itertools import pairwise, product
from typing import NamedTuple

import torch

# Tiles begin at multiples of so many pixels, because JPEG codes an image in blocks that do. In
# training on whole scenes, blocks begin at an image's corner, and the network knows them in no
# other place.
ALIGNMENT = 16
FLAT_WEIGHT = 1.0  # of a tile without detail, as of a mean gradient of so many grey levels a pixel


class Tiles(NamedTuple):
    """Tiles of one size, and where they lie in an image."""

    height: int  # pixels
    width: int
    corners: list[tuple[int, int]]  # (top, left) of each


def tile_image(height: int, width: int, side: int) -> list[Tiles]:
    """Return the tiles of an image: squares of about this side, and what is left at its end.

    A rest of less than half a side belongs to the last tile; a larger one is a tile of its own.
    """
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for rows, columns in product(_spans(height, side), _spans(width, side)):
        size = (rows[1] - rows[0], columns[1] - columns[0])
        groups.setdefault(size, []).append((rows[0], columns[0]))
    return [Tiles(*size, corners) for size, corners in groups.items()]


def split_tiles(tiles: Tiles, count: int) -> Iterator[Tiles]:
    """Yield so many of the tiles at a time."""
    for start in range(0, len(tiles.corners), count):
        yield tiles._replace(corners=tiles.corners[start : start + count])


def cut(images: torch.Tensor, tiles: Tiles) -> torch.Tensor:
    """Return (B × tiles, 3, height, width) of images (B, 3, H, W), image by image."""
    pixels = []
    for top, left in tiles.corners:
        pixels.append(images[:, :, top : top + tiles.height, left : left + tiles.width])
    return torch.stack(pixels, dim=1).flatten(0, 1)


def weigh(tiles: torch.Tensor) -> torch.Tensor:
    """Return (B, 1) float64: how much each of the tiles (B, 3, H, W) uint8 counts in its image.

    Its pixels, times the mean gradient of their brightness in grey levels a pixel: distortions
    show in detail, and a network that sees none, as in a clear sky, guesses.
    """
    red, green, blue = tiles.float().unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    down = luma.diff(dim=1)[:, :, 1:]
    across = luma.diff(dim=2)[:, 1:]
    gradient = (down.square() + across.square()).sqrt().mean((1, 2))
    pixels = tiles[0, 0].numel()
    return (pixels * (FLAT_WEIGHT + gradient.double()))[:, None]


def _spans(length, side):
    """Return (first, last + 1) of each tile along a side of so many pixels."""
    pitch = ALIGNMENT * max(1, round(side / ALIGNMENT))
    count = max(1, (length + pitch // 2) // pitch)
    return list(pairwise([*range(0, count * pitch, pitch), length]))


class WeightedMean:
    """A mean of what is said of each image's tiles, added a few tiles at a time."""

    def __init__(self, images: int, count: int, device: torch.device):
        self.total = torch.zeros(images, count, dtype=torch.float64, device=device)
        self.weight = torch.zeros(images, 1, dtype=torch.float64, device=device)

    def add(self, values: torch.Tensor, weights: torch.Tensor) -> None:
        """Add values (tiles, count) with weights (tiles, 1): all tiles of an image, then the next.

        Each image has as many.
        """
        images = len(self.total)
        self.total += (weights * values).unflatten(0, (images, -1)).sum(1)
        self.weight += weights.unflatten(0, (images, -1)).sum(1)

    def compute(self) -> torch.Tensor:
        """Return (images, count) float32; nan where an image has no weight."""
        return (self.total / self.weight).float()
