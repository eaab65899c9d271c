"""Tiles cover an image, are about squares of the training side, and hardly overlap."""

import numpy as np
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from models.tiles import cut, tile_image

LENGTHS = st.integers(8, 400)
SIDES = st.integers(8, 96)


@given(LENGTHS, LENGTHS, SIDES)
@example(height=6000, width=4000, side=32)
def test_tiles_cover_every_pixel(height, width, side):
    tiling = tile_image(height, width, side)

    is_covered = np.zeros((height, width), bool)
    for top, left in tiling.corners:
        is_covered[top : top + tiling.height, left : left + tiling.width] = True

    assert is_covered.all()


@given(LENGTHS, LENGTHS, SIDES)
def test_tiles_lie_inside_the_image(height, width, side):
    tiling = tile_image(height, width, side)

    for top, left in tiling.corners:
        assert 0 <= top <= height - tiling.height
        assert 0 <= left <= width - tiling.width


@given(LENGTHS, LENGTHS, SIDES)
def test_a_tiles_side_is_near_the_training_side(height, width, side):
    """Where the image is large enough."""
    tiling = tile_image(height, width, side)

    for tile_length, length in ((tiling.height, height), (tiling.width, width)):
        assert min(length, 2 * side / 3) <= tile_length <= np.ceil(1.5 * side)


@given(LENGTHS, LENGTHS, SIDES)
def test_tiles_hardly_overlap(height, width, side):
    """The tiles of a row overlap by less than a pixel each, on average, and so do those above."""
    tiling = tile_image(height, width, side)
    tops, lefts = map(set, zip(*tiling.corners))

    assert len(tiling.corners) == len(tops) * len(lefts)
    assert len(tops) * tiling.height - height < len(tops)
    assert len(lefts) * tiling.width - width < len(lefts)


def test_an_image_of_the_training_size_or_less_is_one_tile():
    for height, width in ((32, 32), (8, 20), (32, 8)):
        assert tile_image(height, width, 32) == (height, width, [(0, 0)])


def test_cut_goes_image_by_image():
    images = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)

    tiles = cut(images, tile_image(4, 6, 3))

    assert tiles.shape == (4, 3, 4, 3)
    assert torch.equal(tiles[0], images[0, :, :, :3])
    assert torch.equal(tiles[1], images[0, :, :, 3:])
    assert torch.equal(tiles[2], images[1, :, :, :3])
