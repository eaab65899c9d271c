"""Pixelation by square blocks of a fractional side, for batches of bytes (B, H, W, 3)."""

import math
from typing import NamedTuple

import cv2
import torch
import torch.nn.functional as F

from distortions.uint8_ops import chunked, on_cpu, to_uint8


class Blocks(NamedTuple):
    """The blocks along one axis."""

    shown: torch.Tensor  # (B, size) int64: which block each pixel shows
    pixels: torch.Tensor  # (B, blocks, taps) int64: the pixels that each block touches
    covered: torch.Tensor  # (B, blocks, taps) float32: how much of each of these it covers
    inverse_length: torch.Tensor  # (B, blocks) float32: one over the block's length, pixels


def pixelate(
    images: torch.Tensor,
    side: torch.Tensor,
    top: torch.Tensor,
    left: torch.Tensor,
    *,
    longest: float,
) -> torch.Tensor:
    """Average square blocks, and let the pixels whose centres a block holds show its mean.

    side, from 1 to `longest`, and the grid's origin top, left are (B,) float32, in pixels. Blocks
    begin at whole 64ths of a pixel. So, for sides below 4 by a 64th or more, the sums fit the 24
    bits of float32: they are exact, in any order.
    """
    height, width = images.shape[1:3]
    rows = _blocks(side, top, height, longest)
    columns = _blocks(side, left, width, longest)
    return _show_blocks(images, *rows, *columns)


@chunked
def _show_blocks(
    images,
    row_shown,
    row_pixels,
    row_covered,
    row_inverse_length,
    column_shown,
    column_pixels,
    column_covered,
    column_inverse_length,
):
    """Do the work of `pixelate` from the fields of both Blocks.

    Rows of pixels are summed, the axes are swapped, and columns are summed. The means are copied to
    their pixels along each axis on the way back.
    """
    count, height, width, _ = images.shape
    image = torch.arange(count, device=images.device)[:, None]

    lines = images.contiguous().float().view(count * height, -1)
    lines = _weighted_sums(lines, row_pixels + height * image[..., None], row_covered)
    lines = _swap_axes(lines.view(-1, width, 3)).view(width * count, -1)
    touched = count * column_pixels + image[..., None]
    sums = _weighted_sums(lines, touched.transpose(0, 1), column_covered.transpose(0, 1))
    # (column blocks, B, 3 × row blocks)
    weights = column_inverse_length.T[:, :, None] * row_inverse_length.repeat_interleave(3, dim=1)
    means = to_uint8(sums.view(weights.shape).mul_(weights)).flatten(0, 1)

    shown = means.index_select(0, (count * column_shown + image).T.flatten())
    shown = _swap_axes(shown.view(width, -1, 3)).view(-1, 3 * width)
    row_blocks = row_inverse_length.shape[1]
    shown = shown.index_select(0, (row_blocks * image + row_shown).flatten())
    return shown.view(images.shape)


def _blocks(side, origin, size, longest):
    """Return the Blocks of an axis of so many pixels."""
    side = side[:, None]
    origin = origin[:, None]
    number = ((torch.arange(size, device=side.device) + 0.5 - origin) / side).floor()
    first = number[:, :1]
    shown = (number - first).long()
    # A GPU need not wait for the number of blocks: it takes the most that there can be.
    blocks = int(shown.max()) + 1 if on_cpu(side) else size + 1
    edges = (first + torch.arange(blocks + 1, device=side.device)).mul_(side).add_(origin)
    edges = edges.mul_(64).round_().div_(64).clamp_(0, size)
    start = edges[:, :-1, None]
    end = edges[:, 1:, None]
    pixels = start.floor() + torch.arange(math.ceil(longest) + 1, device=side.device)
    covered = torch.minimum(pixels + 1, end).sub_(torch.maximum(pixels, start)).clamp_(min=0)
    # Blocks outside the image have length 0, and no pixel shows them.
    inverse_length = 1 / edges.diff().clamp_(min=1 / 64)
    return Blocks(shown, pixels.clamp_(max=size - 1).long(), covered, inverse_length)


def _swap_axes(pixels):
    """Return contiguous (N, M, 3) of pixels (M, N, 3)."""
    if not on_cpu(pixels):
        return pixels.transpose(0, 1).contiguous()
    swapped = torch.empty((pixels.shape[1], pixels.shape[0], 3), dtype=pixels.dtype)
    cv2.transpose(pixels.numpy(), swapped.numpy())
    return swapped


def _weighted_sums(values, rows, weights):
    """Sum rows of values (M, N), by their numbers and weights (…, taps): (…, N) in two axes."""
    taps = rows.shape[-1]
    return F.embedding_bag(
        rows.reshape(-1, taps), values, per_sample_weights=weights.reshape(-1, taps), mode="sum"
    )
