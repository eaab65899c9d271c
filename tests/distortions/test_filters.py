import cv2
import numpy as np
import pytest
import torch

from distortions.filters import (
    BORDERS,
    _blocks,
    _weighted_sums,
    filter_each,
    filter_separably,
    pixelate,
)
from references.sources import load_photo

SIZES = ((8, 9), (32, 32), (33, 8), (131, 20))


def pieces(height, width):
    """(3, 3, height, width) uint8."""
    arrays = [np.array(load_photo(i).crop((90, 50, 90 + width, 50 + height))) for i in range(3)]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def is_rounded(result, expected):
    """Whether bytes (3, H, W) are expected (H, W, 3), rounded."""
    return np.abs(result.permute(1, 2, 0).numpy() - expected).max() < 0.501


@pytest.fixture(params=("one by one", "as a batch"))
def both_ways(request, monkeypatch):
    if request.param == "as a batch":
        for module in ("distortions.uint8_ops", "distortions.filters"):
            monkeypatch.setattr(f"{module}.on_cpu", lambda images: False)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("height, width", SIZES)
def test_each_image_is_filtered_by_its_own_kernel_as_opencv_does(border, height, width, both_ways):
    images, kernels = pieces(height, width), torch.rand(3, 9, 9)
    kernels /= kernels.sum((1, 2), keepdim=True)
    for image, kernel, result in zip(images, kernels.numpy(), filter_each(images, kernels, border)):
        values = image.permute(1, 2, 0).numpy().astype(np.float64)
        assert is_rounded(result, cv2.filter2D(values, -1, kernel, borderType=BORDERS[border]))


@pytest.mark.parametrize("height, width", SIZES)
def test_a_separable_filter_is_rounded_once(height, width, both_ways):
    images, kernels = pieces(height, width), torch.rand(3, 15)
    kernels = kernels + kernels.flip(1)
    kernels[1, [0, 1, 13, 14]] = 0  # taps that may be left out
    kernels /= kernels.sum(1, keepdim=True)
    for image, kernel, result in zip(
        images, kernels.numpy(), filter_separably(images, kernels, "reflect")
    ):
        values = image.permute(1, 2, 0).numpy().astype(np.float64)
        whole = np.outer(kernel, kernel).astype(np.float64)
        assert is_rounded(
            result, cv2.filter2D(values, -1, whole, borderType=cv2.BORDER_REFLECT_101)
        )


@pytest.mark.parametrize("largest", (2.75, 3.984375, 5.5))
@pytest.mark.parametrize("height, width", (*SIZES, (70, 200)))
def test_pixelate_shows_the_mean_of_the_block_that_holds_a_pixels_centre(
    height, width, largest, both_ways
):
    """Pixels are drawn 64 times as large, so that every block is made of whole values."""
    images, sides = pieces(height, width), torch.tensor([1.0, 1.75, largest])
    down, across = torch.tensor([0.0, 1.25, 2.5]), torch.tensor([0.0, 0.5, 1.75])
    where = zip(sides.tolist(), down.tolist(), across.tolist())
    for image, (side, y, x), result in zip(
        images, where, pixelate(images, sides, down, across, longest=largest)
    ):
        expected = image.permute(1, 2, 0).numpy().astype(np.float64)
        for axis, origin in ((0, y), (1, x)):
            expected = block_means(expected, side, origin, axis)
        assert is_rounded(result, expected)


def test_pixelate_has_room_for_one_block_more_than_pixels(both_ways):
    """The grid is so near the first pixel's centre, and behind it, that only rounding puts the last one's behind it."""
    images, origin = pieces(32, 32), torch.full((3,), 0.50000006)
    result = pixelate(images, torch.ones(3), origin, origin, longest=1)
    assert torch.equal(result[:, :, ::31, ::31], images[:, :, ::31, ::31])


@pytest.mark.parametrize("side", (1, 2.75, 2.99, 5))
def test_blocks_hold_all_that_lies_between_their_edges(side):
    sides = torch.full((10000,), float(side))
    blocks = _blocks(sides, sides * torch.rand(10000), 40, side)
    lengths, shares = (
        values.gather(1, blocks.shown) for values in (blocks.held.sum(2), blocks.share)
    )
    assert torch.allclose(lengths * shares, torch.ones(10000, 40))


@pytest.mark.parametrize("largest", (2.75, 3.984375))
def test_sums_of_blocks_are_exact(largest):
    """Blocks of 50 images, on the same 50 rows."""
    values, sides = torch.randint(240, 256, (50, 1000)).float(), 1 + (largest - 1) * torch.rand(50)
    blocks = _blocks(sides, sides * torch.rand(50), 50, largest)

    def twice(values, held):
        return _weighted_sums(_weighted_sums(values, blocks.pixels, held)[:50], blocks.pixels, held)

    sums = twice(values, blocks.held)
    assert (
        torch.equal(sums.double(), twice(values.double(), blocks.held.double()))
        and sums.max() > 1000
    )


def block_means(values, side, origin, axis):
    fine = np.moveaxis(values, axis, 0).repeat(64, axis=0)
    blocks = np.floor((np.arange(len(fine)) + 0.5 - 64 * origin) / (64 * side)).astype(int)
    centres = np.floor(
        (64 * np.arange(values.shape[axis]) + 32 - 64 * origin) / (64 * side)
    ).astype(int)
    return np.moveaxis(np.stack([fine[blocks == block].mean(0) for block in centres]), 0, axis)
