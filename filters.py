"""Filters for a batch of bytes in which each image has a kernel of its own."""

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from pixels import each_on_cpu, few_at_a_time, from_interleaved, interleaved, one_by_one, product_in_bytes, to_bytes

REACH = 3  # pixels from one to the farthest that its block holds
TILE, WHOLE = 16, 64  # pixels of a long side that are summed together, and of a side that is summed as a whole
BORDERS = {"replicate": cv2.BORDER_REPLICATE, "reflect": cv2.BORDER_REFLECT_101}  # a mode of F.pad: OpenCV's


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
    values = np.empty((*images.shape[2:], 3), np.float32)  # for bytes OpenCV would round the kernel to 256ths

    def filter_one(image, kernel, reach, into):
        taps = kernel[middle - reach : middle + reach + 1]
        cv2.sepFilter2D(image, cv2.CV_32F, taps, taps, values, borderType=BORDERS[border])
        cv2.convertScaleAbs(values, into)

    return each_on_cpu(images, filter_one, kernels.numpy(), reaches.tolist())


def pixelate(images, side, down, across):
    """Images (B, 3, H, W) uint8 in square blocks of a side of up to REACH pixels: each is averaged, then shown by the
    pixels whose centres it holds. down, across: where the grid begins; these and side (B,), float32, in pixels.

    Blocks begin at whole 64ths of a pixel. So the sums fit float32's 24 bits: they are exact, in any order (on a GPU
    while TensorFloat-32 is off, as torch has it).
    """
    height, width = images.shape[2:]
    spans = *_blocks(side, down, height), *_blocks(side, across, width)
    if one_by_one(images) and height * width > WHOLE**2:
        return each_on_cpu(images, _pixelate_one, *(values.numpy() for values in spans))
    return _pixelate_batch(images, *spans)


def _blocks(side, origin, size):
    """Where the block that shows pixel i begins and where it ends, (B, size) each, inside the image, in pixels."""
    side, origin = side[:, None], origin[:, None]
    block = ((torch.arange(size, device=side.device) + 0.5 - origin) / side).floor()
    edges = torch.stack((block, block + 1)).mul_(side).add_(origin)
    return edges.mul_(64).round_().div_(64).clamp_(0, size)


def _pixelate_one(image, tops, bottoms, lefts, rights, into):
    """`pixelate` for one image (H, W, 3), so large that single calls do not count: blocks are summed, then shown."""
    height, width = image.shape[:2]
    row, row_sources, row_weights, heights = _taps(tops, bottoms)
    column, column_sources, column_weights, widths = _taps(lefts, rights)
    sums = _weighted_rows(image.reshape(height, -1), row_sources, row_weights.astype(np.uint16))  # to 64 · 3 · 255
    sums = cv2.transpose(sums.reshape(-1, width, 3)).reshape(width, -1)
    sums = _weighted_rows(sums, column_sources, column_weights.astype(np.float32))
    shares = (1 / widths / 64**2)[:, None] * (1 / heights).repeat(3)
    shown = cv2.multiply(sums, shares, dtype=cv2.CV_8U).take(column, axis=0)
    shown = cv2.transpose(shown.reshape(width, -1, 3))
    shown.reshape(len(shown), -1).take(row, axis=0, out=into.reshape(height, -1), mode="clip")


def _taps(start, end):
    """start, end (size,): of the block that shows each pixel of a side. Gives the number of that block, (size,); and of
    each block the pixels that it sums, (taps, blocks), their weights in 64ths, and its length, (blocks,)."""
    new = np.diff(start, prepend=-1) > 0
    block, start, end = new.cumsum() - 1, start[new], end[new]
    first = np.floor(start)
    sources = first + np.arange((np.ceil(end) - first).max())[:, None]
    weights = np.minimum(sources + 1, end) - np.maximum(sources, start)
    return block, np.minimum(sources, len(new) - 1).astype(int), (64 * weights).clip(0), end - start


def _weighted_rows(values, sources, weights):
    """Row i as the sum over t of values[sources[t, i]] · weights[t, i], in the type of the weights."""
    total = np.zeros((sources.shape[1], values.shape[1]), weights.dtype)
    weighted = np.empty_like(total)
    for source, weight in zip(sources, weights):
        total += np.multiply(values.take(source, axis=0), weight[:, None], out=weighted)
    return total


@few_at_a_time
def _pixelate_batch(images, tops, bottoms, lefts, rights):
    """`pixelate` in matrix products, from where the blocks of a row and of a column begin and end, (B, size)."""
    height, width = images.shape[2:]
    rows, columns = _overlaps(tops, bottoms), _overlaps(lefts, rights)
    padded = F.pad(interleaved(images), (0, 0, *_margins(columns, width), *_margins(rows, height)))
    planes = from_interleaved(padded).float(memory_format=torch.contiguous_format)
    with torch.autocast(images.device.type, enabled=False):
        sums = _block_sums(planes.flatten(1, 2), columns)
        sums = _block_sums(sums.unflatten(2, (3, -1)).flatten(1, 2), rows)[:, :height, : 3 * width].contiguous()
    heights, widths = bottoms - tops, rights - lefts
    shares = (1 / heights)[:, :, None] * (1 / widths).repeat_interleave(3, dim=1)[:, None]
    return from_interleaved(product_in_bytes(sums, shares).unflatten(2, (width, 3)))


def _overlaps(start, end):
    """(B, tiles, T, K): how much of each of K pixels is in the block that pixel t of a tile shows, from where its block
    begins and ends, (B, size). One tile of the whole size sees all of it, others REACH pixels to either side."""
    size = start.shape[1]
    tile, reach = (size, 0) if size <= WHOLE else (TILE, REACH)
    start, end = (F.pad(edge, (0, -size % tile)).view(len(start), -1, tile, 1) for edge in (start, end))
    first = torch.arange(0, size, tile, device=start.device).view(-1, 1, 1)
    source = first + torch.arange(-reach, tile + reach, device=start.device)  # (tiles, 1, K)
    return torch.minimum(source + 1, end).sub_(torch.maximum(source, start)).clamp_(min=0)


def _margins(overlaps, size):
    """Pixels that the tiles see before and behind the image's."""
    tiles, tile, near = overlaps.shape[1:]
    reach = (near - tile) // 2
    return reach, tiles * tile - size + reach


def _block_sums(values, overlaps):
    """values (B, M, N), with margins, summed along N under overlaps (B, tiles, T, K), and turned: (B, tiles · T, M)."""
    tile, near = overlaps.shape[2:]
    windows = values.unfold(2, near, tile)  # (B, M, tiles, K)
    return (overlaps @ windows.permute(0, 2, 3, 1)).flatten(1, 2)


def _correlate(images, kernels, border):
    """All images (B, C, H, W) float32 in one convolution with a group a plane."""
    channels, (above, beside) = images.shape[1], (side // 2 for side in kernels.shape[1:])
    planes = F.pad(images, (beside, beside, above, above), mode=border).flatten(0, 1)[None]
    with torch.autocast(images.device.type, enabled=False):  # the caller may train in bfloat16
        kernels = kernels[:, None].repeat_interleave(channels, dim=0)
        return F.conv2d(planes, kernels, groups=planes.shape[1]).view(images.shape)


def _rounded(images):
    return from_interleaved(to_bytes(interleaved(images)))
