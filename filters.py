"""Filters for a batch in which each image has a kernel of its own."""

import torch
import torch.nn.functional as F

STRIP = 32  # rows at most; a CPU convolves 16 planes at a time, of which a lone photograph would fill three


def filter_each(images, kernels, border):
    """Image i of images (B, C, H, W) correlated with kernel i of kernels (B, 1, h, w), of odd sides; border is a mode
    of F.pad. A channel is cut into strips, each a plane of its own to the convolution."""
    (batch, channels, height, width), (rows, columns) = images.shape, kernels.shape[2:]
    count = -(-height // STRIP)
    strip = -(-height // count)
    above, beside, spare = rows // 2, columns // 2, count * strip - height
    padded = F.pad(images, (beside, beside, above, above + spare), mode=border)
    strips = padded.unfold(2, strip + rows - 1, strip).transpose(3, 4)  # (B, C, count, strip + h − 1, W + w − 1)
    planes = strips.reshape(1, batch * channels * count, *strips.shape[3:])
    kernels = kernels.repeat_interleave(channels * count, dim=0)
    with torch.autocast(images.device.type, enabled=False):  # the caller may train in bfloat16
        filtered = F.conv2d(planes, kernels, groups=len(kernels))
    return filtered.view(batch, channels, count * strip, width)[:, :, :height]
