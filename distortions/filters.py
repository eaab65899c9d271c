"""Filters for batches of bytes (B, H, W, 3) in which each image has a kernel of its own."""

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from distortions.uint8_ops import map_on_cpu, on_cpu, to_uint8

BORDERS = {"replicate": cv2.BORDER_REPLICATE, "reflect": cv2.BORDER_REFLECT_101}  # F.pad: OpenCV


def motion_kernel(length: torch.Tensor, angle: torch.Tensor, radius: int = 4) -> torch.Tensor:
    """Return (B, K, K) weights of the mean along a straight path through the middle.

    length, pixels, and angle, radians, are (B, 1, 1). K = 2 × radius + 1, for lengths up to K.
    """
    reach = (length - 1) / 2  # to either side
    x = torch.arange(-radius, radius + 1, device=length.device)
    y = x[:, None]
    nearest = (x * angle.cos() + y * angle.sin()).clamp(-reach, reach)  # point of the path
    distance = ((x - nearest * angle.cos()) ** 2 + (y - nearest * angle.sin()) ** 2).sqrt()
    weights = (1 - distance).clamp(min=0)
    return weights / weights.sum((1, 2), keepdim=True)


def gaussian_weights(sigma: torch.Tensor, reach: int) -> torch.Tensor:
    """Return (B, 2 × reach + 1) weights of a Gaussian that ends at two sigma.

    sigma, pixels, is (B, 1), and at most reach / 2.
    """
    sigma = sigma.clamp(min=1e-3)
    distance = torch.arange(-reach, reach + 1, device=sigma.device).abs()
    # Where two sigma is no whole number of pixels, the last weight comes in by degrees.
    share = (2 * sigma + 1 - distance).clamp(0, 1)
    weights = torch.exp(-((distance / sigma) ** 2) / 2) * share
    return weights / weights.sum(1, keepdim=True)


def filter_each(images: torch.Tensor, kernels: torch.Tensor, border: str) -> torch.Tensor:
    """Correlate image i with kernel i of kernels (B, h, w) float32, whose sides are odd."""
    if not on_cpu(images):
        return _to_pixels(_correlate(_to_planes(images), kernels, border))

    def correlate(image, kernel, output):
        cv2.filter2D(image, -1, kernel, output, borderType=BORDERS[border])

    return map_on_cpu(images, correlate, kernels.numpy())


def filter_separably(images: torch.Tensor, kernels: torch.Tensor, border: str) -> torch.Tensor:
    """Correlate image i along its columns and rows with row i of kernels (B, taps) float32.

    Kernels are of odd length and symmetric, positive up to a reach and 0 beyond it. The result is
    rounded once, at the end.
    """
    if not on_cpu(images):
        columns = _correlate(_to_planes(images), kernels[:, :, None], border)
        return _to_pixels(_correlate(columns, kernels[:, None], border))
    middle = kernels.shape[1] // 2
    reaches = (kernels[:, middle:] > 0).sum(1) - 1  # taps of weight 0 take as long as others
    # A float32 output keeps OpenCV from rounding the kernel to 256ths, as it does for bytes.
    values = np.empty(images.shape[1:], np.float32)

    def filter_one(image, kernel, reach, output):
        taps = kernel[middle - reach : middle + reach + 1]
        cv2.sepFilter2D(image, cv2.CV_32F, taps, taps, values, borderType=BORDERS[border])
        cv2.convertScaleAbs(values, output)

    return map_on_cpu(images, filter_one, kernels.numpy(), reaches.tolist())


def _correlate(planes, kernels, border):
    """Correlate all planes (B, C, H, W) float32 in one convolution, with a group for each plane."""
    channels = planes.shape[1]
    pad_rows = kernels.shape[1] // 2
    pad_columns = kernels.shape[2] // 2
    padded = F.pad(planes, (pad_columns, pad_columns, pad_rows, pad_rows), mode=border)
    padded = padded.flatten(0, 1)[None]
    with torch.autocast(planes.device.type, enabled=False):  # the caller may train in bfloat16
        weights = kernels[:, None].repeat_interleave(channels, dim=0)
        return F.conv2d(padded, weights, groups=padded.shape[1]).view(planes.shape)


def _to_planes(images):
    return images.permute(0, 3, 1, 2).float()


def _to_pixels(planes):
    return to_uint8(planes.permute(0, 2, 3, 1).contiguous())
