"""Operations on batches of bytes: images (B, H, W, 3) uint8, as in image files and in OpenCV.

On a CPU, OpenCV works on one image after the other, in bytes. On a GPU the same is done to the
whole batch in float32. Both round to the nearest byte, and agree within one grey level.
"""

from collections.abc import Callable, Iterable
from functools import wraps

import cv2
import numpy as np
import torch

from utils.rng import CounterRNG

CHUNK_PIXELS = 2**18  # of images that a CPU processes together in float32, to stay near its cache


def on_cpu(images: torch.Tensor) -> bool:
    """Tell whether images are processed one after the other, in OpenCV."""
    return images.device.type == "cpu"


def scatter_rows(pixels: torch.Tensor, output: torch.Tensor, rows: torch.Tensor) -> None:
    """Write pixels (B, H, W, 3) to these rows (B,) of the output."""
    if on_cpu(output):
        output.numpy()[rows.numpy()] = pixels.numpy()
    else:
        output[rows] = pixels


def map_on_cpu(images: torch.Tensor, function: Callable, *parameters: Iterable) -> torch.Tensor:
    """Call function(image (H, W, 3), *its parameters, output (H, W, 3)) for each image of a batch.

    `parameters` are sequences of length B. The function writes uint8 into its last argument.
    """
    pixels = images.contiguous().numpy()
    outputs = np.empty_like(pixels)
    for arguments in zip(pixels, *parameters, outputs, strict=True):
        function(*arguments)
    return torch.from_numpy(outputs)


def chunked(function: Callable) -> Callable:
    """Decorate a function of images (B, H, W, 3) and values (B, …) that gives as many bytes.

    On a CPU it gets a few images at a time.
    """

    @wraps(function)
    def call_in_chunks(images, *values):
        chunk = max(1, CHUNK_PIXELS // images[0, :, :, 0].numel())
        if not on_cpu(images) or len(images) <= chunk:
            return function(images, *values)
        outputs = torch.empty(images.shape, dtype=torch.uint8)
        for start in range(0, len(images), chunk):
            part = slice(start, start + chunk)
            outputs[part] = function(images[part], *(each[part] for each in values))
        return outputs

    return call_in_chunks


def to_uint8(values: torch.Tensor) -> torch.Tensor:
    """Round values in grey levels to the nearest bytes. The values may be overwritten."""
    if not on_cpu(values):
        return values.clamp_(0, 255).round_().byte()
    # OpenCV would make 3 of −3, and 0 of ten millions, so values are clamped first.
    values = values.clamp_(0, 255).contiguous()
    output = torch.empty(values.shape, dtype=torch.uint8)
    flat_values = values.view(len(values), -1).numpy()
    flat_output = output.view(len(values), -1).numpy()
    cv2.convertScaleAbs(flat_values, flat_output)  # rounds and converts in one pass
    return output


def channel_means(images: torch.Tensor) -> torch.Tensor:
    """Compute (B, 3) float64: each channel's mean over an image of bytes, from exact sums."""
    pixels = images[0, :, :, 0].numel()
    if not on_cpu(images):
        return images.sum((1, 2)).double() / pixels
    sums = [cv2.sumElems(image)[:3] for image in images.contiguous().numpy()]
    return torch.tensor(sums, dtype=torch.float64).view(-1, 3) / pixels


def map_values(images: torch.Tensor, function: Callable) -> torch.Tensor:
    """Map each value of images (B, H, W, 3) by function(grey levels (256,)) → tables (B, 256)."""
    grey_levels = torch.arange(256.0, device=images.device)
    tables = function(grey_levels).clamp(0, 255).round().byte()
    if on_cpu(images):
        return map_on_cpu(images, cv2.LUT, tables.numpy())
    return tables.gather(1, images.flatten(1).long()).view(images.shape)


def mix_channels(images: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Multiply the colour of each pixel of image i by matrices[i], (3, 3), in whole 1024ths.

    OpenCV works in 1024ths too, but for diagonal matrices.
    """
    matrices = (matrices * 1024).round() / 1024
    if on_cpu(images):
        return map_on_cpu(images, cv2.transform, matrices.numpy())
    planes = images.permute(0, 3, 1, 2).float()
    mixed = (planes[:, None] * matrices[..., None, None]).sum(2)
    return to_uint8(mixed.add_(0.5).floor_().permute(0, 2, 3, 1).contiguous())


@chunked
def add_noise(images: torch.Tensor, deviation: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Add white noise of this standard deviation, grey levels (B, 1, 1, 1), drawn by keys (B,)."""
    pixels = images.contiguous()
    noise = CounterRNG(keys).normal_like(pixels).mul_(deviation)
    if not on_cpu(images):
        return to_uint8(noise.add_(pixels))
    output = torch.empty_like(pixels)
    rows = len(pixels)
    flat_pixels = pixels.view(rows, -1).numpy()
    flat_noise = noise.view(rows, -1).numpy()
    cv2.add(flat_pixels, flat_noise, output.view(rows, -1).numpy(), dtype=cv2.CV_8U)
    return output
