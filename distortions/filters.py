"""Filters for a batch of bytes in which each image has a kernel of its own."""

import math
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from distortions.uint8_ops import (
    each_on_cpu,
    few_at_a_time,
    from_interleaved,
    interleaved,
    one_by_one,
    to_bytes,
)

BORDERS = {
    "replicate": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT_101,
}  # a mode of F.pad: OpenCV's


def motion_kernel(length, angle):
    """(B, 9, 9): the share that each pixel around a point has in the mean along a path of this length, pixels, and angle,
    radians; both (B, 1, 1)."""
    reach = (length - 1) / 2  # to either side
    x = torch.arange(-4, 5, device=length.device)
    y = x[:, None]
    along = (x * angle.cos() + y * angle.sin()).clamp(-reach, reach)  # nearest point of the path
    distance = ((x - along * angle.cos()) ** 2 + (y - along * angle.sin()) ** 2).sqrt()
    weights = (1 - distance).clamp(min=0)
    return weights / weights.sum((1, 2), keepdim=True)


def filter_each(images, kernels, border):
    """Image i of images (B, 3, H, W) uint8 correlated with kernel i of kernels (B, h, w), of odd sides, float32."""
    if one_by_one(images):

        def correlate(image, kernel, into):
            cv2.filter2D(image, -1, kernel, into, borderType=BORDERS[border])

        return each_on_cpu(images, correlate, kernels.numpy())
    return _rounded(_correlate(images.float(), kernels, border))


def filter_separably(images, kernels, border):
    """Image i of images (B, 3, H, W) uint8 correlated with row i of kernels (B, taps), odd, symmetric, float32,
    positive up to a reach and 0 beyond, along its columns and along its rows; rounded once, at the end."""
    if not one_by_one(images):
        columns = _correlate(images.float(), kernels[:, :, None], border)
        return _rounded(_correlate(columns, kernels[:, None], border))
    middle = kernels.shape[1] // 2
    reaches = (kernels[:, middle:] > 0).sum(1) - 1  # taps of weight 0 take as long as others
    values = np.empty(
        (*images.shape[2:], 3), np.float32
    )  # for bytes OpenCV would round the kernel to 256ths

    def filter_one(image, kernel, reach, into):
        taps = kernel[middle - reach : middle + reach + 1]
        cv2.sepFilter2D(image, cv2.CV_32F, taps, taps, values, borderType=BORDERS[border])
        cv2.convertScaleAbs(values, into)

    return each_on_cpu(images, filter_one, kernels.numpy(), reaches.tolist())


def pixelate(images, side, down, across, *, longest):
    """Images (B, 3, H, W) uint8 in square blocks: each is averaged, then shown by the pixels whose centres it holds.

    side, from 1 to `longest`; down, across: where the grid begins; all (B,), float32, in pixels. Blocks begin at whole
    64ths of a pixel. So, for sides below 4 by a 64th or more, the sums fit float32's 24 bits: they are exact, in any order.
    """
    height, width = images.shape[2:]
    return _show_blocks(
        images, *_blocks(side, down, height, longest), *_blocks(side, across, width, longest)
    )


@few_at_a_time
def _show_blocks(images, *values):
    """`pixelate`, from the Blocks of the rows and of the columns: lines are summed, turned, and summed again; the means
    are shown along each axis on the way back."""
    rows, columns = Blocks(*values[:4]), Blocks(*values[4:])
    pixels = interleaved(images)
    count, height, width, _ = pixels.shape
    image = torch.arange(count, device=images.device)[:, None]

    lines = pixels.float().view(count * height, -1)
    lines = _weighted_sums(lines, rows.pixels + height * image[..., None], rows.held)
    lines = _turned(lines.view(-1, width, 3)).view(width * count, -1)
    touched = count * columns.pixels + image[..., None]
    sums = _weighted_sums(lines, touched.transpose(0, 1), columns.held.transpose(0, 1))
    shares = columns.share.T[:, :, None] * rows.share.repeat_interleave(
        3, dim=1
    )  # (blocks of a row, B, blocks · 3)
    means = to_bytes(sums.view(shares.shape).mul_(shares)).flatten(0, 1)

    shown = means.index_select(0, (count * columns.shown + image).T.flatten())
    shown = _turned(shown.view(width, -1, 3)).view(-1, 3 * width)
    shown = shown.index_select(0, (rows.share.shape[1] * image + rows.shown).flatten())
    return from_interleaved(shown.view(pixels.shape))


class Blocks(NamedTuple):
    """Those along one axis."""

    shown: torch.Tensor  # (B, size) int64: which of them shows each pixel
    pixels: torch.Tensor  # (B, blocks, taps) int64: those that each touches
    held: torch.Tensor  # (B, blocks, taps) float32: how much of these it holds
    share: torch.Tensor  # (B, blocks) float32: one over its length


def _blocks(side, origin, size, longest):
    """The Blocks of an axis of so many pixels; the rest as for `pixelate`."""
    side, origin = side[:, None], origin[:, None]
    number = ((torch.arange(size, device=side.device) + 0.5 - origin) / side).floor()
    first = number[:, :1]
    shown = (number - first).long()
    blocks = (
        int(shown.max()) + 1 if one_by_one(side) else size + 1
    )  # the most, with roundings: a GPU need not wait
    edges = (first + torch.arange(blocks + 1, device=side.device)).mul_(side).add_(origin)
    edges = edges.mul_(64).round_().div_(64).clamp_(0, size)
    start, end = edges[:, :-1, None], edges[:, 1:, None]
    pixels = start.floor() + torch.arange(math.ceil(longest) + 1, device=side.device)
    held = torch.minimum(pixels + 1, end).sub_(torch.maximum(pixels, start)).clamp_(min=0)
    share = 1 / edges.diff().clamp_(
        min=1 / 64
    )  # not of 0: some may lie outside the image, where no pixel shows them
    return Blocks(shown, pixels.clamp_(max=size - 1).long(), held, share)


def _turned(pixels):
    """(N, M, 3) of pixels (M, N, 3), contiguous."""
    if not one_by_one(pixels):
        return pixels.transpose(0, 1).contiguous()
    turned = torch.empty((pixels.shape[1], pixels.shape[0], 3), dtype=pixels.dtype)
    cv2.transpose(pixels.numpy(), turned.numpy())
    return turned


def _weighted_sums(values, rows, weights):
    """(…, N) sums of rows of values (M, N), by their numbers (…, taps) and weights alike, flattened to two axes."""
    taps = rows.shape[-1]
    return F.embedding_bag(
        rows.reshape(-1, taps), values, per_sample_weights=weights.reshape(-1, taps), mode="sum"
    )


def _correlate(images, kernels, border):
    """All images (B, C, H, W) float32 in one convolution with a group a plane."""
    channels, (above, beside) = images.shape[1], (side // 2 for side in kernels.shape[1:])
    planes = F.pad(images, (beside, beside, above, above), mode=border).flatten(0, 1)[None]
    with torch.autocast(images.device.type, enabled=False):  # the caller may train in bfloat16
        kernels = kernels[:, None].repeat_interleave(channels, dim=0)
        return F.conv2d(planes, kernels, groups=planes.shape[1]).view(images.shape)


def _rounded(images):
    return from_interleaved(to_bytes(interleaved(images)))
