"""Layouts of images in memory."""

import torch

from utils.images import to_nchw, to_nhwc


def test_layouts_change_without_a_copy_and_back():
    pixels = torch.arange(2 * 4 * 5 * 3).view(2, 4, 5, 3)

    images = to_nchw(pixels)

    assert images.shape == (2, 3, 4, 5)
    assert to_nhwc(images).data_ptr() == pixels.data_ptr()


def test_planes_are_copied_to_contiguous_pixels():
    planes = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)

    pixels = to_nhwc(planes)

    assert pixels.is_contiguous()
    assert torch.equal(pixels, planes.permute(0, 2, 3, 1))
