"""Tell which distortions change an image, so that no label claims a fault that is not there.

The saturation of a grey image cannot change, nor the brightness of a white one rise, nor a flat
one be blurred.
"""

from functools import cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from distortions.apply import distort_alike
from distortions.registry import DISTORTIONS, MAX_LEVEL, MIN_LEVEL
from utils.distributed import is_main_process
from utils.rng import fold_in

DIRECTIONS = (-1, 1)
# A distortion takes effect on an image if its highest level changes the image by at least this
# share of what its lowest level changes an ordinary scene …
LEAST_AT_MAX = 0.2
# … and its lowest level by at least this share.
LEAST_AT_MIN = 0.05
# Where the highest level changes an image by this many times what the lowest changes an ordinary
# scene, the lowest level's effect on it is not measured too.
CLEAR_AT_MAX = 1.0
CHUNK = 256  # images that are distorted together
SCENE_SIDE = 64  # pixels
SCENE_SLOPE = 1.5  # amplitudes of the scene's waves fall with this power of their frequency
SCENE_DEVIATION = 50  # grey levels
SCENE_COLOUR = 0.3  # part of the deviation that differs between channels


class Images(Protocol):
    """Images (N, H, W, 3) uint8 that an index (B,) reads: a tensor, or some on disk."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: Tensor) -> Tensor: ...


def takes_effect(images: Images, types: tuple[str, ...]) -> Tensor:
    """Return (N, T, 2) bool: does each type, in direction −1 and +1, change each image enough?

    A type without directions has the same answer twice.
    """
    effective = torch.ones((len(images), len(types), len(DIRECTIONS)), dtype=torch.bool)
    with tqdm(
        total=len(images),
        desc="effect of the distortions",
        unit="image",
        delay=2,
        leave=False,
        disable=not is_main_process(),
    ) as bar:
        for indices in torch.arange(len(images)).split(CHUNK):
            chunk = images[indices]
            for t, name in enumerate(types):
                effective[indices, t, 1] = _changes(name, 1, chunk)
                if DISTORTIONS[name].directions:
                    effective[indices, t, 0] = _changes(name, -1, chunk)
                else:
                    effective[indices, t, 0] = effective[indices, t, 1]
            bar.update(len(indices))
    return effective


def describe_ineffective(effective: Tensor, types: tuple[str, ...]) -> str:
    """Return a line that counts the images that a type does not change; "" where all change.

    effective: (N, T, 2) bool.
    """
    count = len(effective)
    never = [name for t, name in enumerate(types) if not effective[:, t].any()]
    words = []
    for t, name in enumerate(types):
        in_none = int((~effective[:, t].any(1)).sum())
        if in_none:
            words.append(f"{name} {in_none}")
        for d, direction in enumerate(DISTORTIONS[name].directions):
            in_one = int((~effective[:, t, d]).sum()) - in_none
            if in_one:
                words.append(f"{name} ({direction}) {in_one}")
    if not words:
        return ""
    line = f"too little to see, so others are dealt: {', '.join(words)} of {count} references"
    pristine = int((~effective.flatten(1).any(1)).sum())
    if pristine:
        line += f"; {pristine} stay pristine, because none changes them"
    if never:
        line += (
            f"; no image gets {', '.join(never)}: the images are without what it changes, or it "
            "changes nothing (python distorted_dataset.py shows it)"
        )
    return line


def _changes(name, direction, images):
    """Return (B,) bool: whether a type in one direction changes each image enough."""
    is_shift, step = _smallest_step(name, DISTORTIONS[name].function, direction)

    def measure(images, level):
        shift, texture = measure_change(images, name, level, direction)
        return shift if is_shift else texture

    at_max = measure(images, MAX_LEVEL)
    enough = (at_max > 0) & (at_max >= LEAST_AT_MAX * step)
    unclear = enough & (at_max <= CLEAR_AT_MAX * step)
    rows = unclear.nonzero()[:, 0]
    if len(rows):
        at_min = measure(images[rows], MIN_LEVEL)
        enough[rows] = (at_min > 0) & (at_min >= LEAST_AT_MIN * step)
    return enough


def measure_change(
    images: Tensor, name: str, level: float, direction: int
) -> tuple[Tensor, Tensor]:
    """Return how far a distortion shifts images (B, H, W, 3), and how it changes their texture.

    Both are (B,), in grey levels: the mean change of all values, without its sign, and the mean
    distance of the values' changes from that of their channel.
    """
    distorted = distort_alike(images, name, level, direction, fold_in(0).expand(len(images)))
    change = (distorted.short() - images.short()).float()
    of_channels = change.mean((1, 2), keepdim=True)
    return change.mean((1, 2, 3)).abs(), (change - of_channels).abs().mean((1, 2, 3))


@cache
def _smallest_step(name, function, direction):
    """Return whether a type shifts an ordinary scene as a whole, and how far its lowest level goes.

    The other types change the scene's texture. The function is only part of the cache's key: in a
    notebook it may be defined again.
    """
    change = measure_change(_ordinary_scene()[None], name, MIN_LEVEL, direction)
    shift, texture = (value.item() for value in change)
    return shift > texture, max(shift, texture)


@cache
def _ordinary_scene():
    """Make an image (S, S, 3) uint8 whose contrast, colour and detail are those of photographs."""
    rng = np.random.default_rng(0)
    frequencies = np.fft.fftfreq(SCENE_SIDE)
    radius = np.hypot(frequencies[:, None], frequencies[None])
    radius[0, 0] = 1

    def make_waves():
        noise = np.fft.fft2(rng.normal(size=radius.shape))
        waves = np.fft.ifft2(noise / radius**SCENE_SLOPE).real
        return (waves - waves.mean()) / waves.std()

    luma = make_waves()
    channels = [luma + SCENE_COLOUR * make_waves() for _ in range(3)]
    scene = 128 + SCENE_DEVIATION * np.stack(channels, axis=-1)
    return torch.from_numpy(scene.clip(0, 255).round().astype(np.uint8))
