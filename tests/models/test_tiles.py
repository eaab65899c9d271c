"""Tiles cover an image, each pixel once, and are about squares of the training side."""

import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.tiles import ALIGNMENT, Tiles, WeightedMean, cut, split_tiles, tile_image, weigh
from tests.helpers import distort_all, photo_pieces
from utils.images import MIN_SIDE, to_nchw

LENGTHS = st.integers(MIN_SIDE, 400)
SIDES = st.integers(MIN_SIDE, 128)


@settings(deadline=None)
@given(LENGTHS, LENGTHS, SIDES)
@example(height=6000, width=4000, side=32)
def test_every_pixel_is_in_one_tile(height, width, side):
    count = np.zeros((height, width), int)

    for tiles in tile_image(height, width, side):
        for top, left in tiles.corners:
            assert top + tiles.height <= height
            assert left + tiles.width <= width
            count[top : top + tiles.height, left : left + tiles.width] += 1

    assert (count == 1).all()


@given(LENGTHS, LENGTHS, SIDES)
def test_a_tiles_side_is_near_the_training_side(height, width, side):
    """It is the side to the nearest multiple of 16, and half as much more or less at the end."""
    pitch = max(ALIGNMENT, ALIGNMENT * round(side / ALIGNMENT))

    for tiles in tile_image(height, width, side):
        for tile_length, length in ((tiles.height, height), (tiles.width, width)):
            assert min(length, pitch / 2) <= tile_length < 1.5 * pitch
            assert tile_length >= MIN_SIDE


@given(LENGTHS, LENGTHS, SIDES)
def test_tiles_begin_where_jpegs_blocks_do(height, width, side):
    for tiles in tile_image(height, width, side):
        assert not np.any(np.array(tiles.corners) % 16)


@given(SIDES, st.data())
def test_an_image_up_to_the_training_size_is_one_tile(side, data):
    height = data.draw(st.integers(MIN_SIDE, side))
    width = data.draw(st.integers(MIN_SIDE, side))

    assert tile_image(height, width, side) == [Tiles(height, width, [(0, 0)])]


def test_tiles_of_one_size_are_together():
    groups = tile_image(100, 150, 32)

    assert [(tiles.height, tiles.width) for tiles in groups] == [
        (32, 32),
        (32, 22),
        (36, 32),
        (36, 22),
    ]
    assert [len(tiles.corners) for tiles in groups] == [8, 2, 4, 1]


def test_cut_goes_image_by_image():
    images = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)

    tiles = cut(images, Tiles(4, 3, [(0, 0), (0, 3)]))

    assert tiles.shape == (4, 3, 4, 3)
    assert torch.equal(tiles[0], images[0, :, :, :3])
    assert torch.equal(tiles[1], images[0, :, :, 3:])
    assert torch.equal(tiles[2], images[1, :, :, :3])


def test_tiles_are_split_in_their_order():
    tiles = Tiles(4, 4, [(0, 0), (0, 4), (0, 8)])

    corners = [part.corners for part in split_tiles(tiles, 2)]

    assert corners == [[(0, 0), (0, 4)], [(0, 8)]]


def test_a_flat_tile_counts_less_than_a_busy_one():
    busy = to_nchw(photo_pieces(64, 64))
    flat = to_nchw(distort_all("contrast", photo_pieces(64, 64), level=1.0, direction=-1))

    assert (weigh(flat) < weigh(busy)).all()
    assert (weigh(torch.full_like(busy, 200)) > 0).all()


def test_weights_are_in_proportion_to_the_area():
    stripes = torch.tensor([0, 0, 255, 255], dtype=torch.uint8).repeat(3, 40, 10)[None]
    large = torch.cat([stripes, stripes], dim=2)

    assert torch.allclose(weigh(large), 2 * weigh(stripes))


def test_a_mean_is_weighted_within_each_image():
    mean = WeightedMean(2, 1, torch.device("cpu"))
    column = torch.tensor([[1.0], [2.0], [3.0], [4.0]])

    mean.add(column, torch.tensor([[1.0], [3.0], [0.0], [0.0]]))
    mean.add(column[:2], torch.tensor([[4.0], [0.0]]))

    assert mean.compute()[0].item() == (1 + 6 + 4) / 8
    assert mean.compute()[1].isnan()
