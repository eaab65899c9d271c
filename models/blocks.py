"""Cut a large image into blocks, whose features are those that the whole image would have."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

# A block's side in pixels, with its margins: one in a forward pass takes a few hundred MB at most.
BLOCK_SIDE = 1024
MARGIN = 64  # pixels beside a block's own; the network sees little beyond


class Span(NamedTuple):
    """Where a block lies along one side of an image."""

    pixels: slice  # of the image, margins included
    own: slice  # the cells of the block's feature map that count, without margins
    cells: slice  # where these are among the cells of the whole image


class Block(NamedTuple):
    """A part of an image."""

    rows: Span
    columns: Span


def blocks_of(height: int, width: int, cell_side: int) -> Iterator[Block]:
    """Yield the blocks of an image, row by row. Every cell of its feature map is in one of them."""
    for rows, columns in product(_spans(height, cell_side), _spans(width, cell_side)):
        yield Block(rows, columns)


def _spans(length, cell_side):
    """Return the spans of blocks along a side of so many pixels, about equally long."""
    count = -(-length // cell_side)  # cells
    margin = MARGIN // cell_side
    longest = BLOCK_SIDE // cell_side
    if count <= longest:
        return [Span(slice(0, length), slice(0, count), slice(0, count))]
    parts = -(-count // (longest - 2 * margin))
    spans = []
    for part in range(parts):
        first = part * count // parts
        last = (part + 1) * count // parts
        start = max(0, first - margin)
        stop = min(count, last + margin)
        spans.append(
            Span(
                pixels=slice(start * cell_side, min(length, stop * cell_side)),
                own=slice(first - start, last - start),
                cells=slice(first, last),
            )
        )
    return spans
