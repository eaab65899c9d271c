"""Batches of bytes: images (B, 3, H, W) uint8 whose memory lies as (B, H, W, 3), as in image files and in OpenCV.

On a CPU OpenCV works on one image after the other, in bytes; on a GPU the same is done to the batch in float32. Both
round to the nearest byte, and agree within one grey level.
"""

from functools import wraps

import cv2
import numpy as np
import torch

from utils.rng import Draw

CPU_PIXELS = 2**18  # of images that a CPU works on together in float32, to stay near its cache


def one_by_one(images):
    """Whether images are worked on one after the other, in OpenCV."""
    return images.device.type == "cpu"


def interleaved(images):
    """(B, H, W, 3) of images (B, 3, H, W), contiguous: a view where their memory lies so."""
    return images.permute(0, 2, 3, 1).contiguous()


def from_interleaved(pixels):
    """(B, 3, H, W) of pixels (B, H, W, 3), without a copy."""
    return pixels.permute(0, 3, 1, 2)


def put(pixels, output, rows):
    """Write pixels (B, H, W, 3) to these rows (B,) of the output."""
    if one_by_one(output):
        output.numpy()[rows.numpy()] = pixels.numpy()
    else:
        output[rows] = pixels


def each_on_cpu(images, change, *parameters):
    """Image i of images (B, 3, H, W) uint8 as change(its (H, W, 3), *[p[i] for p in parameters], into) writes it to the
    array `into`, of the same kind."""
    pixels = interleaved(images).numpy()
    outputs = np.empty_like(pixels)
    for one in zip(pixels, *parameters, outputs, strict=True):
        change(*one)
    return from_interleaved(torch.from_numpy(outputs))


def few_at_a_time(function):
    """On a CPU give the function of images (B, 3, H, W) uint8 and other values (B, …), which gives bytes, a few of them
    at a time."""

    @wraps(function)
    def in_parts(images, *values):
        together = max(1, CPU_PIXELS // images[0, 0].numel())
        if not one_by_one(images) or len(images) <= together:
            return function(images, *values)
        outputs = torch.empty_like(images, memory_format=torch.channels_last)  # interleaved
        for output, *part in zip(*(each.split(together) for each in (outputs, images, *values))):
            output.copy_(function(*part))
        return outputs

    return in_parts


def to_bytes(values):
    """The nearest bytes, uint8, of values in grey levels, which may be overwritten."""
    if not one_by_one(values):
        return values.clamp_(0, 255).round_().byte()
    values = values.clamp_(0, 255).contiguous()  # OpenCV would make 3 of −3, and 0 of ten millions
    bytes_ = torch.empty(values.shape, dtype=torch.uint8)
    cv2.convertScaleAbs(
        values.view(len(values), -1).numpy(), bytes_.view(len(values), -1).numpy()
    )  # one pass
    return bytes_


def channel_means(images):
    """(B, 3) float64: each channel's mean over an image of bytes, from exact sums."""
    if not one_by_one(images):
        sums = images.sum((2, 3)).double()
    else:
        sums = [cv2.sumElems(image)[:3] for image in interleaved(images).numpy()]
        sums = torch.tensor(sums, dtype=torch.float64).view(-1, 3)
    return sums / images[0, 0].numel()


def map_values(images, change):
    """Each value of images (B, 3, H, W) uint8 as change(grey levels (256,)) maps it: a table (B, 256) in grey levels."""
    table = change(torch.arange(256.0, device=images.device)).clamp(0, 255).round().byte()
    if one_by_one(images):
        return each_on_cpu(images, cv2.LUT, table.numpy())
    pixels = interleaved(images)
    return from_interleaved(table.gather(1, pixels.flatten(1).long()).view(pixels.shape))


def mix_channels(images, matrices):
    """The colour (3,) of each pixel of image i becomes matrices[i] (3, 3), in whole 1024ths, times it. So OpenCV has
    them, but for diagonal matrices."""
    matrices = (matrices * 1024).round() / 1024
    if one_by_one(images):
        return each_on_cpu(images, cv2.transform, matrices.numpy())
    channels = (images.float()[:, None] * matrices[..., None, None]).sum(2)
    return from_interleaved(to_bytes(interleaved(channels.add_(0.5).floor_())))


@few_at_a_time
def add_noise(images, deviation, keys):
    """Images (B, 3, H, W) uint8 with white noise of this deviation, grey levels (B, 1, 1, 1); keys (B,) of its draws."""
    pixels = interleaved(images)
    noise = Draw(keys).normal_like(pixels).mul_(deviation)
    if not one_by_one(images):
        return from_interleaved(to_bytes(noise.add_(pixels)))
    outputs = torch.empty_like(pixels)
    before, added, after = (
        values.view(len(values), -1).numpy() for values in (pixels, noise, outputs)
    )
    cv2.add(before, added, after, dtype=cv2.CV_8U)
    return from_interleaved(outputs)
