"""Filters against OpenCV in float64, and blocks against pixels drawn 64 times as large."""

import math

import cv2
import numpy as np
import pytest
import torch

from distortions.filters import BORDERS, filter_each, filter_separably, motion_kernel
from distortions.pixelate import _blocks, _weighted_sums, pixelate
from references.photos import load_photo

SIZES = ((8, 9), (32, 32), (33, 8), (131, 20))


def photo_pieces(height, width):
    """Return (3, height, width, 3) uint8."""
    box = (90, 50, 90 + width, 50 + height)
    return torch.from_numpy(np.stack([np.array(load_photo(i).crop(box)) for i in range(3)]))


def is_rounded(result, expected):
    """Tell whether bytes are the expected values, rounded."""
    return np.abs(result.numpy() - expected).max() < 0.501


@pytest.fixture(params=("one by one", "as a batch"))
def both_ways(request, monkeypatch):
    """Run a test as on a CPU and as on a GPU."""
    if request.param == "as a batch":
        for module in ("uint8_ops", "filters", "pixelate"):
            monkeypatch.setattr(f"distortions.{module}.on_cpu", lambda images: False)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("height, width", SIZES)
def test_each_image_is_filtered_by_its_own_kernel(border, height, width, both_ways):
    images = photo_pieces(height, width)
    kernels = torch.rand(3, 9, 9)
    kernels /= kernels.sum((1, 2), keepdim=True)

    filtered = filter_each(images, kernels, border)

    for image, kernel, result in zip(images, kernels.numpy(), filtered):
        values = image.numpy().astype(np.float64)
        assert is_rounded(result, cv2.filter2D(values, -1, kernel, borderType=BORDERS[border]))


@pytest.mark.parametrize("height, width", SIZES)
def test_a_separable_filter_is_rounded_once(height, width, both_ways):
    images = photo_pieces(height, width)
    kernels = torch.rand(3, 15)
    kernels = kernels + kernels.flip(1)
    kernels[1, [0, 1, 13, 14]] = 0  # taps that may be left out
    kernels /= kernels.sum(1, keepdim=True)

    filtered = filter_separably(images, kernels, "reflect")

    for image, kernel, result in zip(images, kernels.numpy(), filtered):
        values = image.numpy().astype(np.float64)
        square = np.outer(kernel, kernel).astype(np.float64)
        expected = cv2.filter2D(values, -1, square, borderType=cv2.BORDER_REFLECT_101)
        assert is_rounded(result, expected)


def test_a_motion_kernel_is_centred_and_as_long_as_its_path():
    kernels = motion_kernel(torch.full((50, 1, 1), 8.67), math.pi * torch.rand(50, 1, 1))
    x = torch.arange(9.0) - 4
    y = x[:, None]

    assert torch.allclose(kernels.sum((1, 2)), torch.ones(50), atol=1e-5)
    assert (kernels * x).sum((1, 2)).abs().max() < 1e-4
    assert (kernels * y).sum((1, 2)).abs().max() < 1e-4
    farthest = ((kernels > 0) * (x**2 + y**2).sqrt()).amax((1, 2))
    assert (farthest <= 8.67 / 2 + 1).all()
    assert (farthest >= 8.67 / 2 - 1).all()


@pytest.mark.parametrize("largest", (2.75, 3.984375, 5.5))
@pytest.mark.parametrize("height, width", (*SIZES, (70, 200)))
def test_a_pixel_shows_the_mean_of_its_block(height, width, largest, both_ways):
    """Pixels are drawn 64 times as large, so that every block is made of whole values."""
    images = photo_pieces(height, width)
    sides = torch.tensor([1.0, 1.75, largest])
    top = torch.tensor([0.0, 1.25, 2.5])
    left = torch.tensor([0.0, 0.5, 1.75])

    shown = pixelate(images, sides, top, left, longest=largest)

    for i, result in enumerate(shown):
        expected = images[i].numpy().astype(np.float64)
        expected = block_means(expected, sides[i].item(), top[i].item(), axis=0)
        expected = block_means(expected, sides[i].item(), left[i].item(), axis=1)
        assert is_rounded(result, expected)


def block_means(values, side, origin, axis):
    """Return the mean of the block that holds each pixel's centre, along one axis."""
    fine = np.moveaxis(values, axis, 0).repeat(64, axis=0)
    blocks = np.floor((np.arange(len(fine)) + 0.5 - 64 * origin) / (64 * side)).astype(int)
    centres = 64 * np.arange(values.shape[axis]) + 32
    centre_blocks = np.floor((centres - 64 * origin) / (64 * side)).astype(int)
    means = np.stack([fine[blocks == block].mean(0) for block in centre_blocks])
    return np.moveaxis(means, 0, axis)


def test_there_is_room_for_one_block_more_than_pixels(both_ways):
    """The grid is so near the first pixel's centre, and behind it, that only rounding puts the
    last one's behind it."""
    images = photo_pieces(32, 32)
    origin = torch.full((3,), 0.50000006)

    result = pixelate(images, torch.ones(3), origin, origin, longest=1)

    assert torch.equal(result[:, ::31, ::31], images[:, ::31, ::31])


@pytest.mark.parametrize("side", (1, 2.75, 2.99, 5))
def test_blocks_cover_all_between_their_edges(side):
    sides = torch.full((10000,), float(side))

    blocks = _blocks(sides, sides * torch.rand(10000), 40, side)

    lengths = blocks.covered.sum(2).gather(1, blocks.shown)
    inverse_lengths = blocks.inverse_length.gather(1, blocks.shown)
    assert torch.allclose(lengths * inverse_lengths, torch.ones(10000, 40))


@pytest.mark.parametrize("largest", (2.75, 3.984375))
def test_sums_of_blocks_are_exact(largest):
    """Blocks of 50 images, on the same 50 rows, summed twice in float32 and in float64."""
    values = torch.randint(240, 256, (50, 1000)).float()
    sides = 1 + (largest - 1) * torch.rand(50)
    blocks = _blocks(sides, sides * torch.rand(50), 50, largest)

    def sum_twice(values, covered):
        sums = _weighted_sums(values, blocks.pixels, covered)[:50]
        return _weighted_sums(sums, blocks.pixels, covered)

    sums = sum_twice(values, blocks.covered)
    assert torch.equal(sums.double(), sum_twice(values.double(), blocks.covered.double()))
    assert sums.max() > 1000
