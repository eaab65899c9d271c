"""KADID-10k's 25 distortions, a second family: --distortions kadid. Here are the first 15.

They blur, change colour, code and add noise; kadid_tone_and_place.py has the others. Names and
order are KADID-10k's (Lin, Hosu and Saupe, "KADID-10k: A large-scale artificially distorted IQA
database", QoMEX 2019). Worst qualities and tables are what its observers judged, as
`python -m ablations.anchor_levels` derives them. A parameter means what it means there, where
images have 512×384 pixels and are seen at 1:1.
"""

import cv2
import numpy as np
import torch
from torch import Tensor

from distortions.filters import filter_each, filter_separably, gaussian_weights, motion_kernel
from distortions.jpeg import jpeg_round_trip
from distortions.kadid_ops import (
    bytes_from_lab,
    code_jpeg2000,
    disk_kernel,
    draw_whole,
    edge_strength,
    quantize_colors,
    to_bytes,
    to_lab,
)
from distortions.registry import distortion, per_image
from distortions.uint8_ops import add_noise
from utils.rng import CounterRNG, ImageRNG


@distortion(
    worst_quality=23,
    parameter="sigma, pixels",
    levels=(0, 0.614, 0.836, 1.2, 1.86, 4.8),
    dtype="uint8",
)
def kadid_gaussian_blur(images: Tensor, sigma: Tensor, rng: CounterRNG) -> Tensor:
    """Blur by a Gaussian kernel that ends at two sigma."""
    weights = gaussian_weights(sigma.view(-1, 1), reach=10)
    return filter_separably(images, weights, border="replicate")


@distortion(
    worst_quality=23,
    parameter="radius, pixels (0.5: none)",
    levels=(0.5, 0.925, 1.39, 2.03, 3.36, 7.56),
)
@per_image
def kadid_lens_blur(image: np.ndarray, radius: float, rng: ImageRNG) -> np.ndarray:
    """Average inside a disk, as a lens does that is out of focus."""
    return cv2.filter2D(image, -1, disk_kernel(radius), borderType=cv2.BORDER_REPLICATE)


@distortion(
    worst_quality=32,
    parameter="length, pixels (1: none)",
    levels=(1, 2.08, 2.87, 3.96, 5.61, 9.58),
    dtype="uint8",
)
def kadid_motion_blur(images: Tensor, length: Tensor, rng: CounterRNG) -> Tensor:
    """Average along a straight path at a random angle, centred, so that the image does not move."""
    angle = rng.uniform(0, torch.pi, shape=(1, 1))
    kernel = motion_kernel(length[:, 0], angle, radius=5)
    return filter_each(images, kernel, border="replicate")


@distortion(
    worst_quality=25,
    parameter="amount, which sets the blur and the chroma factor",
    levels=(0, 1.36, 1.97, 2.85, 4.72, 11.6),
)
@per_image
def kadid_color_diffusion(image: np.ndarray, amount: float, rng: ImageRNG) -> np.ndarray:
    """Blur the chroma by a sigma of 1.5 × amount + 2 pixels, and multiply it by the amount.

    Luma stays. KADID's opinions fall with the amount as they do with the factor of oversaturation.
    Amounts below 1 only blur.
    """
    if amount == 0:
        return image
    lightness, *chroma = to_lab(image)
    sigma = 1.5 * amount + 2 * min(1, amount)
    side = 2 * int(np.ceil(2 * sigma)) + 1
    border = cv2.BORDER_REPLICATE
    blurred = cv2.GaussianBlur(cv2.merge(chroma), (side, side), sigma, borderType=border)
    a, b = cv2.split(max(1, amount) * blurred)
    return bytes_from_lab(lightness, a, b)


@distortion(worst_quality=36, parameter="shift, pixels", levels=(0, 1.12, 1.6, 2.28, 3.43, 7.09))
@per_image
def kadid_color_shift(image: np.ndarray, shift: float, rng: ImageRNG) -> np.ndarray:
    """Move the green channel in a random direction, the more the stronger the edges around."""
    angle = rng.uniform(0, 2 * np.pi)
    green = image[:, :, 1].astype(np.float32)
    matrix = np.array([[1, 0, shift * np.cos(angle)], [0, 1, shift * np.sin(angle)]])
    size = image.shape[1::-1]
    moved = cv2.warpAffine(green, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    image[:, :, 1] = to_bytes(green + edge_strength(image) * (moved - green))
    return image


@distortion(
    worst_quality=49, parameter="colours (256: all)", levels=(256, 75.4, 32.7, 18.2, 11.9, 8.05)
)
@per_image
def kadid_color_quantization(image: np.ndarray, count: float, rng: ImageRNG) -> np.ndarray:
    """Show the image in so many colours of its own, without dithering."""
    whole = draw_whole(count, rng)
    return image if whole >= 256 else quantize_colors(image, whole)


@distortion(
    worst_quality=40,
    parameter="factor of HSV's saturation",
    levels=(1, 0.835, 0.67, 0.505, 0.309, -0.358),
)
def kadid_color_saturation_1(images: Tensor, factor: Tensor, rng: CounterRNG) -> Tensor:
    """Scale each pixel's distance from the brightest of its channels; below 0 hues are inverted."""
    planes = images.permute(3, 0, 1, 2).contiguous()
    value = planes.amax(0)
    scaled = value + factor.squeeze(-1) * (planes - value)
    return scaled.permute(1, 2, 3, 0).contiguous()


@distortion(
    worst_quality=28, parameter="factor of CIELAB's a and b", levels=(1, 1.4, 1.95, 2.8, 4.53, 8.81)
)
@per_image
def kadid_color_saturation_2(image: np.ndarray, factor: float, rng: ImageRNG) -> np.ndarray:
    """Scale the chroma in CIELAB."""
    if factor == 1:
        return image
    lightness, a, b = to_lab(image)
    return bytes_from_lab(lightness, factor * a, factor * b)


@distortion(
    worst_quality=25,
    parameter="compression ratio (1: not coded)",
    levels=(1, 41.1, 65.6, 102, 189, 392),
)
@per_image
def kadid_jpeg2000(image: np.ndarray, ratio: float, rng: ImageRNG) -> np.ndarray:
    """Code and decode as JPEG 2000."""
    return image if ratio == 1 else code_jpeg2000(image, ratio)


@distortion(
    worst_quality=24,
    parameter="quality setting (100: not coded)",
    levels=(100, 26.4, 16.8, 11.1, 7.32, 4.08),
    dtype="uint8",
)
def kadid_jpeg(images: Tensor, setting: Tensor, rng: CounterRNG) -> Tensor:
    """Code and decode as baseline JPEG with 4:2:0 chroma.

    Between two whole settings each image draws one.
    """
    setting = (setting + rng.uniform(shape=(1, 1, 1))).floor().flatten()
    return jpeg_round_trip(images, setting * (setting < 100))  # 0: not coded


@distortion(
    worst_quality=46,
    parameter="variance, of values in 0–1",
    levels=(0, 0.000649, 0.00134, 0.00243, 0.0046, 0.00993),
    dtype="uint8",
)
def kadid_white_noise(images: Tensor, variance: Tensor, rng: CounterRNG) -> Tensor:
    """Add white noise, independent in each channel."""
    return add_noise(images, 255 * variance.sqrt(), rng.keys)


@distortion(
    worst_quality=48,
    parameter="variance, of values in 0–1",
    levels=(0, 0.000189, 0.000467, 0.000869, 0.00162, 0.00296),
)
def kadid_white_noise_color_component(images: Tensor, variance: Tensor, rng: CounterRNG) -> Tensor:
    """Add white noise to luma and to both chroma channels of YCbCr.

    The weights are those of Rec. 601 with black at 16 and white at 235.
    """
    draws = variance.sqrt() * rng.normal_like(images)
    luma, blue, red = draws.permute(3, 0, 1, 2).contiguous()
    noise = torch.empty_like(images)
    noise[..., 0] = luma + 1.370 * red
    noise[..., 1] = luma - 0.337 * blue - 0.698 * red
    noise[..., 2] = luma + 1.733 * blue
    return images + 255 / 219 * noise


@distortion(
    worst_quality=42,
    parameter="share of values",
    levels=(0, 0.000485, 0.00097, 0.00313, 0.00967, 0.0298),
)
@per_image
def kadid_impulse_noise(image: np.ndarray, share: float, rng: ImageRNG) -> np.ndarray:
    """Make values black or white, independently in each channel."""
    chance = rng.uniform(shape=image.shape)
    image[chance < share / 2] = 0
    image[chance > 1 - share / 2] = 255
    return image


@distortion(
    worst_quality=42,
    parameter="variance, of the factor",
    levels=(0, 0.00179, 0.00469, 0.0095, 0.0204, 0.0485),
)
def kadid_multiplicative_noise(images: Tensor, variance: Tensor, rng: CounterRNG) -> Tensor:
    """Multiply each value by a random factor around 1."""
    return images * (1 + variance.sqrt() * rng.normal_like(images))


@distortion(
    worst_quality=27,
    parameter="variance of the noise, of values in 0–1",
    levels=(0, 0.00666, 0.0143, 0.0296, 0.0557, 0.14),
)
@per_image
def kadid_denoise(image: np.ndarray, variance: float, rng: ImageRNG) -> np.ndarray:
    """Add white noise, and take it away again by non-local means.

    KADID-10k took it away by a network. What both leave is smoothed texture, and blotches.
    """
    if variance == 0:
        return image
    deviation = 255 * variance**0.5
    noisy = to_bytes(image + deviation * rng.normal_like(image))
    return cv2.fastNlMeansDenoising(
        noisy, None, h=deviation, templateWindowSize=3, searchWindowSize=7
    )
