"""The distortions: what each does to the pixels, the quality that it leaves, and their registry.

A distortion is a pure function of a batch, on the batch's device:

    f(images (B, 3, H, W) float32 in [0, 1], level (B, 1, 1, 1) in [0, 1], direction (B, 1, 1, 1) of −1 or +1, draw)

It returns images of the same shape; `distort` clips them and rounds them to 8 bits. Under `@on_bytes` images come as
uint8, interleaved in memory (pixels.py), and are given back as such. Height and width are 8 or more.
`draw` (draws.Draw) gives its free draws. To add one, write it at the end of this file under `@distortion`: the command
lines, the example figure and the tests find it in DISTORTIONS by its name.

What a level does to the pixels is read from the opinions that KADID-10k's observers gave to known parameters
(Lin, Hosu and Saupe, "KADID-10k: A large-scale artificially distorted IQA database", QoMEX 2019), so that a
quality of 60 is as bad for one type as for another.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, wraps

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from distortions.filters import filter_each, filter_separably, motion_kernel, pixelate
from distortions.jpeg import jpeg_round_trip
from distortions.uint8_ops import (
    add_noise,
    channel_means,
    few_at_a_time,
    from_interleaved,
    interleaved,
    map_values,
    mix_channels,
    put,
    to_bytes,
)
from utils.errors import UserError
from utils.images import to_rgb
from utils.rng import Draw, make_key

PRISTINE = "pristine"
MIN_LEVEL, MAX_LEVEL = 0.2, 1.0  # levels are drawn from here
MIN_SIDE = 8  # pixels
LUMA = (0.299, 0.587, 0.114)  # Rec. 601


@dataclass(frozen=True)
class Distortion:
    function: Callable
    worst_quality: float  # 0–100, at level 1
    directions: tuple[str, ...]  # names of directions −1 and +1, or empty
    on_bytes: bool = False  # takes and gives uint8


DISTORTIONS: dict[str, Distortion] = {}


def distortion(worst_quality, directions=()):
    """Register the decorated function under its name."""

    def register(function):
        bytewise = getattr(function, "on_bytes", False)
        DISTORTIONS[function.__name__] = Distortion(function, worst_quality, directions, bytewise)
        return function

    return register


def on_bytes(function):
    """Mark a distortion that takes and gives uint8 in place of float32; below `@distortion`."""
    function.on_bytes = True
    return function


def per_image(function):
    """Lift f(image (H, W, 3) uint8, level, direction, draw) → image, which handles one image, to a batch."""

    @on_bytes
    @wraps(function)
    def batch_function(images, level, direction, draw):
        pixels, levels, directions = (
            interleaved(images).cpu().numpy(),
            level.flatten(),
            direction.flatten(),
        )
        how = zip(levels.tolist(), directions.tolist(), map(draw.image, range(len(pixels))))
        outputs = [function(image.copy(), *one) for image, one in zip(pixels, how)]
        return from_interleaved(torch.from_numpy(np.stack(outputs)).to(images.device))

    return batch_function


def interpolate(level, *nodes):
    """Piecewise linear between the values at levels 0, 0.2, 0.4, 0.6, 0.8 and 1."""
    starts, bends = _bends(nodes, level.device)
    return nodes[0] + ((level - starts).clamp_(min=0) * bends).sum(-1, keepdim=True)


@cache
def _bends(nodes, device):
    """Where each piece starts, and how much steeper it is than the one before, both (5,)."""
    starts, slopes = torch.linspace(0, 1, len(nodes)), torch.tensor(nodes).diff() * (len(nodes) - 1)
    return starts[:-1].to(device), slopes.diff(prepend=torch.zeros(1)).to(device)


@cache
def _on_device(values, device):
    return torch.tensor(values, device=device)  # once: a copy to a GPU waits for it


# The default eight. Their tables are frozen: stronger distortions would buy every score.


@distortion(worst_quality=40)
@on_bytes
def gaussian_blur(images, level, direction, draw):
    """A Gaussian kernel, sampled at whole pixels up to four sigma."""
    sigma = (
        interpolate(level, 0, 0.60, 0.77, 0.945, 1.34, 1.83).clamp(min=1e-3).view(-1, 1)
    )  # pixels
    distance = torch.arange(-7, 8, device=images.device).abs() / sigma  # (B, 15)
    weights = torch.exp(-(distance**2) / 2) * (distance <= 4)
    return filter_separably(images, weights / weights.sum(1, keepdim=True), "reflect")


@distortion(worst_quality=35)
@on_bytes
def motion_blur(images, level, direction, draw):
    """The mean along a straight path at a free angle, centred, so that the image does not move."""
    length = interpolate(level, 1, 2.08, 2.97, 3.86, 5.37, 8.67)  # pixels
    return filter_each(
        images, motion_kernel(length[:, 0], draw.uniform(0, torch.pi)[:, 0]), "replicate"
    )


@distortion(worst_quality=30)
@on_bytes
def gaussian_noise(images, level, direction, draw):
    """White noise, independent in each channel."""
    deviation = interpolate(level, 0, 6.8, 11.4, 16.9, 27.2, 45)  # grey levels
    return add_noise(images, deviation, draw.keys)


@distortion(worst_quality=20)
@on_bytes
def jpeg_compression(images, level, direction, draw):
    """Baseline JPEG with 4:2:0 chroma; level 0 is not coded."""
    setting = interpolate(level, 100, 26, 18, 12, 7, 3).round() * (level > 0)
    return jpeg_round_trip(images, setting.flatten())


@distortion(worst_quality=50, directions=("under", "over"))
@on_bytes
def color_saturation(images, level, direction, draw):
    """Chroma scaled about each pixel's luma."""
    under = interpolate(level, 1, 0.857, 0.721, 0.585, 0.449, 0.27)
    over = interpolate(level, 1, 1.32, 1.66, 2.00, 2.63, 3.63)
    factor = torch.where(direction < 0, under, over)[:, 0]  # (B, 1, 1)
    luma = _on_device(LUMA, images.device).expand(3, 3)
    return mix_channels(images, luma.lerp(torch.eye(3, device=images.device), factor))


@distortion(worst_quality=50, directions=("low", "high"))
@on_bytes
def contrast(images, level, direction, draw):
    """Values scaled about the image's mean luma."""
    low = interpolate(level, 1, 0.85, 0.70, 0.55, 0.40, 0.25)
    high = interpolate(level, 1, 1.16, 1.32, 1.48, 1.64, 1.80)
    factor = torch.where(direction < 0, low, high).view(-1, 1)
    mean = (channel_means(images) * _on_device(LUMA, images.device)).sum(1, keepdim=True).float()
    return map_values(images, lambda values: mean + factor * (values - mean))


@distortion(worst_quality=55, directions=("dark", "bright"))
@on_bytes
def brightness(images, level, direction, draw):
    """One shift for all pixels."""
    shift = direction * interpolate(level, 0, 27, 42, 56, 71, 87)  # grey levels
    return map_values(images, lambda values: values + shift.view(-1, 1))


@distortion(worst_quality=35)
@on_bytes
def pixelation(images, level, direction, draw):
    """Square blocks of a fractional side: each is averaged, then shown by the pixels whose centres it holds.

    Where the grid begins is a free draw. A fixed grid would favour the sides that happen to fit the pixels, and the
    harm would not grow steadily with the level.
    """
    sides = 1, 1.10, 1.22, 1.45, 2.00, 2.75  # pixels
    side = interpolate(level, *sides)
    down, across = (side.view(-1, 1) * draw.uniforms(2) * (level > 0).view(-1, 1)).unbind(1)
    return pixelate(images, side.flatten(), down, across, longest=max(sides))


DISTORTION_TYPES = tuple(DISTORTIONS)


# More, chosen by name. People's opinion of these is not in KADID-10k: their qualities are our judgement.


@distortion(worst_quality=45)
@per_image
def rain(image, level, direction, draw):
    """Bright slanted streaks, more of them as the level grows."""
    height, width = image.shape[:2]
    count = max(8, height * width // 64)
    x, y = draw.uniform(0, width, count), draw.uniform(0, height, count)
    length = draw.uniform(4, 10, count)  # pixels
    slant = draw.uniform(-0.4, 0.4)
    streaks = np.zeros((height, width), np.float32)
    for i in range(int(np.ceil(level * count))):
        opacity = 0.7 * min(1, level * count - i)
        left, top = max(0, int(x[i]) - 5), int(y[i])  # a patch around the streak
        patch = streaks[top : top + 12, left : left + 12]
        streak = np.zeros(patch.shape, np.uint8)
        ends = (x[i] - left, y[i] - top), (x[i] - left + slant * length[i], y[i] - top + length[i])
        sixteenths = [tuple(int(round(16 * value)) for value in point) for point in ends]
        cv2.line(streak, *sixteenths, 255, 1, cv2.LINE_AA, shift=4)
        np.maximum(patch, opacity / 255 * streak, out=patch)
    return (image + streaks[:, :, None] * (235.0 - image)).clip(0, 255).round().astype(np.uint8)


@distortion(worst_quality=45)
def fog(images, level, direction, draw):
    """A blend towards one bright haze colour an image; at level 1 a quarter of the scene is left."""
    haze = draw.uniform(0.80, 0.95)
    return images.lerp(haze, 0.75 * level)


@distortion(worst_quality=60, directions=("pincushion", "barrel"))
@per_image
def lens_distortion(image, level, direction, draw):
    """Radial distortion of the first order; the corners stay inside the picture."""
    height, width = image.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x, y = x - (width - 1) / 2, y - (height - 1) / 2
    bend = (
        0.35 * level * (x**2 + y**2) / ((width - 1) ** 2 + (height - 1) ** 2) * 4
    )  # 0 at the centre
    scale = (1 + bend) / (1 + 0.35 * level) if direction > 0 else 1 - bend
    source = (
        (scale * x + (width - 1) / 2).astype(np.float32),
        (scale * y + (height - 1) / 2).astype(np.float32),
    )
    return cv2.remap(image, *source, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@distortion(worst_quality=50)
def chromatic_aberration(images, level, direction, draw):
    """Red drawn larger and blue smaller than green: fringes that grow towards the corners, to 3 pixels at level 1."""
    height, width = images.shape[2:]
    corner = ((height - 1) ** 2 + (width - 1) ** 2) ** 0.5 / 2  # pixels from the centre
    y = torch.linspace(-1, 1, height, device=images.device).view(1, -1, 1).expand(1, height, width)
    x = torch.linspace(-1, 1, width, device=images.device).view(1, 1, -1).expand(1, height, width)
    grid = torch.stack([x, y], dim=-1)  # (1, H, W, 2)
    scale = 3 / corner * level
    red = F.grid_sample(
        images[:, 0:1], grid * (1 - scale), padding_mode="border", align_corners=True
    )
    blue = F.grid_sample(
        images[:, 2:3], grid * (1 + scale), padding_mode="border", align_corners=True
    )
    return torch.where(level > 0, torch.cat([red, images[:, 1:2], blue], dim=1), images)


def quality_of(distortion_type, level):
    """Quality 0–100, higher is better, that a level (0–1, number or array) of a type leaves."""
    return 100 - (100 - DISTORTIONS[distortion_type].worst_quality) * level


def distort(images, types, label, level, direction, keys):
    """Distort each image in its own way, clip, and round to 8 bits.

    images (B, 3, H, W) uint8; types: names; label (B,) int64 indexes them, −1 leaves an image as it is;
    level (B,) in [0, 1]; direction (B,) of −1 or +1; keys (B,) int64. Returns (B, 3, H, W) uint8 on images' device.
    """
    pixels, order = interleaved(images), label.argsort()
    counts = torch.bincount(label + 1, minlength=len(types) + 1).tolist()
    drawn = (values.index_select(0, order.to(values.device)) for values in (level, direction, keys))
    order, *drawn = (values.to(images.device, non_blocking=True) for values in (order, *drawn))
    (unchanged, *_), *of_types = zip(*(values.split(counts) for values in (order, *drawn)))
    output = torch.empty_like(pixels)
    put(pixels.index_select(0, unchanged), output, unchanged)
    for name, (rows, *drawn) in zip(types, of_types):
        if len(rows):
            changed = _distort_alike(name, from_interleaved(pixels.index_select(0, rows)), *drawn)
            put(interleaved(changed), output, rows)
    return from_interleaved(output)


def _distort_alike(name, images, level, direction, keys):
    """Images (B, 3, H, W) uint8, all by one type."""
    kind = DISTORTIONS[name]

    def change(images, level, direction, keys):
        given = images if kind.on_bytes else (images / 255).contiguous()
        changed = kind.function(given, level, direction, Draw(keys))
        _refuse_unfit(name, changed, given)
        return (
            changed
            if kind.on_bytes
            else from_interleaved(to_bytes(interleaved(changed.float() * 255)))
        )

    level, direction = (values.float().view(-1, 1, 1, 1) for values in (level, direction))
    return (change if kind.on_bytes else few_at_a_time(change))(images, level, direction, keys)


def _refuse_unfit(name, changed, given):
    """Raise UserError where a distortion gave back what it must not."""
    if changed.shape != given.shape:
        raise UserError(
            f"{name} returned shape {tuple(changed.shape)}, expected {tuple(given.shape)}"
        )
    if given.dtype == torch.uint8 and changed.dtype != torch.uint8:
        raise UserError(f"{name} returned {changed.dtype}, expected uint8")
    if changed.is_floating_point() and not changed.sum().isfinite():
        raise UserError(f"{name} returned values that are not finite")


def apply_distortion(image, distortion_type, level, direction=None, seed=0):
    """Distort one image.

    image: a PIL image or an (H, W, 3) uint8 array, sides of 8 pixels or more; level in [0, 1]; direction −1 or +1 for
    types that have two (None draws it); the seed decides the free draws. Returns (distorted, quality): the image in
    the kind that came, and a float in 0–100, higher is better. Raises ValueError for anything else.
    """
    if distortion_type not in DISTORTIONS:
        raise UserError(
            f"unknown distortion {distortion_type!r}; there are: {', '.join(DISTORTIONS)}"
        )
    if not 0 <= level <= 1:
        raise UserError(f"level {level} is outside 0–1")
    if direction not in (None, -1, 1):
        raise UserError(f"direction {direction!r} is none of −1, +1, None")
    array = np.array(to_rgb(image) if isinstance(image, Image.Image) else image)
    if (
        array.dtype != np.uint8
        or array.ndim != 3
        or array.shape[2] != 3
        or min(array.shape[:2]) < MIN_SIDE
    ):
        raise UserError(
            f"expected a PIL image or a uint8 array (H, W, 3) with sides of {MIN_SIDE} or more, "
            f"got {array.dtype} {array.shape}"
        )
    key = make_key(seed).view(1)
    drawn = Draw(make_key(key, 1)).sign().flatten()
    batch = torch.from_numpy(array).permute(2, 0, 1)[None]
    sign = drawn if direction is None else torch.tensor([float(direction)])
    output = distort(
        batch,
        (distortion_type,),
        torch.zeros(1, dtype=torch.int64),
        torch.tensor([float(level)]),
        sign,
        key,
    )
    output = output[0].permute(1, 2, 0).numpy()
    quality = float(quality_of(distortion_type, level))
    return (Image.fromarray(output) if isinstance(image, Image.Image) else output), quality


def select_types(names):
    """The tuple of types that `--distortions` names: 'default', 'all', or names separated by commas."""
    if names in ("default", "all"):
        return DISTORTION_TYPES if names == "default" else tuple(DISTORTIONS)
    types = tuple(name.strip() for name in names.split(","))
    unknown = [name for name in types if name not in DISTORTIONS]
    if unknown or len(set(types)) != len(types):
        problem = (
            f"unknown distortion {unknown[0]!r}"
            if unknown
            else f"a distortion is named twice in {names!r}"
        )
        raise UserError(f"--distortions: {problem}; choose from {', '.join(DISTORTIONS)}, or 'all'")
    return types
