"""More distortions, chosen by name. Add yours at the end of this file.

People's opinion of these is not in KADID-10k: their qualities are our own judgement.
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distortions.registry import distortion, per_image
from utils.rng import CounterRNG, ImageRNG


@distortion(worst_quality=45)
@per_image
def rain(image: np.ndarray, level: float, direction: int, rng: ImageRNG) -> np.ndarray:
    """Draw bright slanted streaks, more of them as the level grows."""
    height, width = image.shape[:2]
    count = max(8, height * width // 64)
    x = rng.uniform(0, width, shape=count)
    y = rng.uniform(0, height, shape=count)
    length = rng.uniform(4, 10, shape=count)  # pixels
    slant = rng.uniform(-0.4, 0.4)
    streaks = np.zeros((height, width), np.float32)
    for i in range(int(np.ceil(level * count))):
        opacity = 0.7 * min(1, level * count - i)
        left = max(0, int(x[i]) - 5)
        top = int(y[i])
        patch = streaks[top : top + 12, left : left + 12]  # around the streak
        streak = np.zeros(patch.shape, np.uint8)
        start = (x[i] - left, y[i] - top)
        end = (start[0] + slant * length[i], start[1] + length[i])
        cv2.line(streak, _sixteenths(start), _sixteenths(end), 255, 1, cv2.LINE_AA, shift=4)
        np.maximum(patch, opacity / 255 * streak, out=patch)
    brightened = image + streaks[:, :, None] * (235.0 - image)
    return brightened.clip(0, 255).round().astype(np.uint8)


def _sixteenths(point):
    """Return the point in whole 16ths of a pixel, as cv2.line takes it with shift=4."""
    return round(16 * float(point[0])), round(16 * float(point[1]))


@distortion(worst_quality=45)
def fog(images: Tensor, level: Tensor, direction: Tensor, rng: CounterRNG) -> Tensor:
    """Blend each image towards one bright haze; at level 1 a quarter of the scene is left."""
    haze = rng.uniform(0.80, 0.95, shape=(1, 1, 1))
    return images.lerp(haze, 0.75 * level)


@distortion(worst_quality=60, directions=("pincushion", "barrel"))
@per_image
def lens_distortion(image: np.ndarray, level: float, direction: int, rng: ImageRNG) -> np.ndarray:
    """Bend the image by a first-order radial distortion; the corners stay inside the picture."""
    height, width = image.shape[:2]
    centre_x = (width - 1) / 2
    centre_y = (height - 1) / 2
    columns = np.arange(width, dtype=np.float32)
    rows = np.arange(height, dtype=np.float32)
    x, y = np.meshgrid(columns, rows)
    x, y = x - centre_x, y - centre_y
    squared_radius = (x**2 + y**2) / ((width - 1) ** 2 + (height - 1) ** 2) * 4  # 1 in the corners
    bend = 0.35 * level * squared_radius
    scale = (1 + bend) / (1 + 0.35 * level) if direction > 0 else 1 - bend
    source_x = (scale * x + centre_x).astype(np.float32)
    source_y = (scale * y + centre_y).astype(np.float32)
    border = cv2.BORDER_REPLICATE
    return cv2.remap(image, source_x, source_y, cv2.INTER_LINEAR, borderMode=border)


@distortion(worst_quality=50)
def chromatic_aberration(
    images: Tensor, level: Tensor, direction: Tensor, rng: CounterRNG
) -> Tensor:
    """Draw red larger and blue smaller than green: corner fringes of 3 pixels at level 1."""
    height, width = images.shape[1:3]
    corner = ((height - 1) ** 2 + (width - 1) ** 2) ** 0.5 / 2  # pixels from the centre
    y = torch.linspace(-1, 1, height, device=images.device).view(1, -1, 1).expand(1, height, width)
    x = torch.linspace(-1, 1, width, device=images.device).view(1, 1, -1).expand(1, height, width)
    grid = torch.stack([x, y], dim=-1)  # (1, H, W, 2)
    scale = 3 / corner * level
    planes = images.permute(0, 3, 1, 2)
    green = planes[:, 1:2]
    red = _sample(planes[:, 0:1], grid * (1 - scale))
    blue = _sample(planes[:, 2:3], grid * (1 + scale))
    fringed = torch.cat([red, green, blue], dim=1)
    return torch.where(level > 0, fringed.permute(0, 2, 3, 1), images)


def _sample(planes, grid):
    return F.grid_sample(planes, grid, padding_mode="border", align_corners=True)
