"""The default eight distortions.

Their tables are frozen, because stronger distortions would buy every score.

What a level does to the pixels is read from the opinions that KADID-10k's observers gave to known
parameters (Lin, Hosu and Saupe, "KADID-10k: A large-scale artificially distorted IQA database",
QoMEX 2019). So a quality of 60 is as bad for one type as for another.
"""

from functools import cache

import torch
from torch import Tensor

from distortions.filters import filter_each, filter_separably, motion_kernel
from distortions.jpeg import jpeg_round_trip
from distortions.pixelate import pixelate
from distortions.registry import DISTORTIONS, distortion
from distortions.uint8_ops import add_noise, channel_means, map_values, mix_channels
from utils.rng import CounterRNG

LUMA = (0.299, 0.587, 0.114)  # Rec. 601


@distortion(
    worst_quality=40,
    parameter="sigma, pixels",
    levels=(0, 0.60, 0.77, 0.945, 1.34, 1.83),
    dtype="uint8",
)
def gaussian_blur(images: Tensor, sigma: Tensor, rng: CounterRNG) -> Tensor:
    """Blur by a Gaussian kernel, sampled at whole pixels up to four sigma."""
    sigma = sigma.clamp(min=1e-3).view(-1, 1)
    distance = torch.arange(-7, 8, device=images.device).abs() / sigma  # (B, 15)
    weights = torch.exp(-(distance**2) / 2) * (distance <= 4)
    return filter_separably(images, weights / weights.sum(1, keepdim=True), border="reflect")


@distortion(
    worst_quality=35,
    parameter="length, pixels (1: none)",
    levels=(1, 2.08, 2.97, 3.86, 5.37, 8.67),
    dtype="uint8",
)
def motion_blur(images: Tensor, length: Tensor, rng: CounterRNG) -> Tensor:
    """Average along a straight path at a random angle, centred, so that the image does not move."""
    angle = rng.uniform(0, torch.pi, shape=(1, 1))
    return filter_each(images, motion_kernel(length[:, 0], angle), border="replicate")


@distortion(
    worst_quality=30,
    parameter="standard deviation, grey levels",
    levels=(0, 6.8, 11.4, 16.9, 27.2, 45),
    dtype="uint8",
)
def gaussian_noise(images: Tensor, deviation: Tensor, rng: CounterRNG) -> Tensor:
    """Add white noise, independent in each channel."""
    return add_noise(images, deviation, rng.keys)


@distortion(
    worst_quality=20,
    parameter="quality setting (100: not coded)",
    levels=(100, 26, 18, 12, 7, 3),
    dtype="uint8",
)
def jpeg_compression(images: Tensor, setting: Tensor, rng: CounterRNG) -> Tensor:
    """Code and decode as baseline JPEG with 4:2:0 chroma."""
    setting = setting.flatten()
    return jpeg_round_trip(images, setting.round() * (setting < 100))  # 0: not coded


@distortion(
    worst_quality=50,
    parameter="chroma factor",
    levels={
        "under": (1, 0.857, 0.721, 0.585, 0.449, 0.27),
        "over": (1, 1.32, 1.66, 2.00, 2.63, 3.63),
    },
    dtype="uint8",
)
def color_saturation(images: Tensor, factor: Tensor, rng: CounterRNG) -> Tensor:
    """Scale chroma about each pixel's luma."""
    luma = _luma_weights(images.device).expand(3, 3)
    identity = torch.eye(3, device=images.device)
    return mix_channels(images, luma.lerp(identity, factor[:, 0]))


@distortion(
    worst_quality=50,
    parameter="factor about the mean",
    levels={"low": (1, 0.85, 0.70, 0.55, 0.40, 0.25), "high": (1, 1.16, 1.32, 1.48, 1.64, 1.80)},
    dtype="uint8",
)
def contrast(images: Tensor, factor: Tensor, rng: CounterRNG) -> Tensor:
    """Scale values about the image's mean luma."""
    factor = factor.view(-1, 1)
    mean = (channel_means(images) * _luma_weights(images.device)).sum(1, keepdim=True).float()
    return map_values(images, lambda grey_levels: mean + factor * (grey_levels - mean))


@distortion(
    worst_quality=55,
    parameter="shift, grey levels",
    levels={"dark": (0, -27, -42, -56, -71, -87), "bright": (0, 27, 42, 56, 71, 87)},
    dtype="uint8",
)
def brightness(images: Tensor, shift: Tensor, rng: CounterRNG) -> Tensor:
    """Add one shift to all values."""
    return map_values(images, lambda grey_levels: grey_levels + shift.view(-1, 1))


@distortion(
    worst_quality=35,
    parameter="block side, pixels",
    levels=(1, 1.10, 1.22, 1.45, 2.00, 2.75),
    dtype="uint8",
)
def pixelation(images: Tensor, side: Tensor, rng: CounterRNG) -> Tensor:
    """Show each pixel the mean of its square block, whose side may be a fraction of pixels.

    Where the grid begins is random. A fixed grid would favour the sides that happen to fit the
    pixels, and the harm would not grow steadily with the level.
    """
    side = side.flatten()
    origin = side[:, None] * rng.uniform(shape=(2,)) * (side > 1)[:, None]
    longest = DISTORTIONS["pixelation"].tables[0][-1]
    return pixelate(images, side, top=origin[:, 0], left=origin[:, 1], longest=longest)


@cache
def _luma_weights(device):
    """Return LUMA on the device; made once, because a copy to a GPU waits for it."""
    return torch.tensor(LUMA, device=device)
