"""The registry of distortions: what is registered under which name, and what a level means.

A distortion is a pure function of a batch, on the batch's device. Register it by `@distortion`,
in one of two forms. With a table of its parameter by level, the registry reads the table:

    @distortion(worst_quality=40, parameter="sigma, pixels", levels=(0, 0.6, 0.77, 0.945, 1.3, 1.8))
    def gaussian_blur(images, sigma, rng): ...

Without one, it gets the level and the direction:

    @distortion(worst_quality=45)
    def fog(images, level, direction, rng): ...

images are (B, H, W, 3), uint8 with `dtype="uint8"` and else float32 in [0, 1]; height and width
are 8 or more. Parameter, level in [0, 1] and direction (−1 or +1) are (B, 1, 1, 1) float32, and
rng is the CounterRNG of the batch. The function returns images of the same shape; `distort` clips
float32 images and rounds them to 8 bits. Under `@per_image` a function handles one (H, W, 3)
uint8 array at a time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any

import numpy as np
import torch

from utils.errors import UserError
from utils.rng import CounterRNG

# The default eight, of standard.py. Their order is the order of labels.
DISTORTION_TYPES = (
    "gaussian_blur",
    "motion_blur",
    "gaussian_noise",
    "jpeg_compression",
    "color_saturation",
    "contrast",
    "brightness",
    "pixelation",
)
PRISTINE = "pristine"
LEVELS = (0, 0.2, 0.4, 0.6, 0.8, 1.0)  # where a table of levels has its values
MIN_LEVEL, MAX_LEVEL = 0.2, 1.0  # levels are drawn from here


@dataclass(frozen=True)
class Distortion:
    """A registered distortion."""

    function: Callable
    worst_quality: float  # 0–100, at level 1
    directions: tuple[str, ...]  # names of directions −1 and +1, or empty
    parameter: str  # what the tables hold, with its unit; empty without tables
    tables: tuple[tuple[float, ...], ...]  # a value at each of LEVELS: one table for each direction
    dtype: str  # of the images that the function takes and gives: "uint8" or "float32"

    def apply(
        self, images: torch.Tensor, level: torch.Tensor, direction: torch.Tensor, rng: CounterRNG
    ) -> torch.Tensor:
        """Call the function for images of its dtype. level and direction are (B, 1, 1, 1)."""
        if not self.tables:
            return self.function(images, level, direction, rng)
        values = interpolate(level, self.tables[0])
        if len(self.tables) == 2:
            values = torch.where(direction < 0, values, interpolate(level, self.tables[1]))
        return self.function(images, values, rng)


DISTORTIONS: dict[str, Distortion] = {}


def distortion(
    worst_quality: float,
    *,
    directions: tuple[str, ...] = (),
    parameter: str = "",
    levels: tuple[float, ...] | Mapping[str, tuple[float, ...]] = (),
    dtype: str = "float32",
) -> Callable[[Callable], Callable]:
    """Register the decorated function under its name.

    worst_quality: the quality that level 1 leaves, 0–100. levels: values of the parameter at
    LEVELS, or two named directions with such values each. A function without levels may name its
    directions.
    """
    if isinstance(levels, Mapping):
        directions = tuple(levels)
        tables = tuple(levels.values())
    else:
        tables = (levels,) if levels else ()
    if any(len(table) != len(LEVELS) for table in tables):
        raise UserError(f"levels: expected {len(LEVELS)} values, at the levels {LEVELS}")

    def register(function):
        DISTORTIONS[function.__name__] = Distortion(
            function=function,
            worst_quality=worst_quality,
            directions=directions,
            parameter=parameter,
            tables=tables,
            dtype=getattr(function, "dtype", dtype),
        )
        return function

    return register


def per_image(function: Callable) -> Callable:
    """Lift a function of one (H, W, 3) uint8 array to a batch.

    It gets numbers in place of tensors, and an ImageRNG: f(image, level, direction, rng), or
    f(image, parameter, rng) where it is registered with a table.
    """

    @wraps(function)
    def batch_function(images, *values_and_rng):
        *values, rng = values_and_rng
        columns = [value.flatten().tolist() for value in values]
        outputs = []
        for i, image in enumerate(images.cpu().numpy()):
            numbers = [column[i] for column in columns]
            outputs.append(function(image.copy(), *numbers, rng.for_image(i)))
        return torch.from_numpy(np.stack(outputs)).to(images.device)

    batch_function.dtype = "uint8"  # type: ignore[attr-defined]
    return batch_function


def interpolate(level: torch.Tensor, table: tuple[float, ...]) -> torch.Tensor:
    """Interpolate linearly between the table's values at LEVELS. level: (…, 1)."""
    starts, bends = _slopes(table, level.device)
    return table[0] + ((level - starts).clamp_(min=0) * bends).sum(-1, keepdim=True)


@cache
def _slopes(table, device):
    """Return where each piece starts, and how much steeper it is than the one before, both (5,)."""
    pieces = len(table) - 1
    starts = torch.linspace(0, 1, len(table))[:-1]
    slopes = torch.tensor(table).diff() * pieces
    bends = slopes.diff(prepend=torch.zeros(1))
    return starts.to(device), bends.to(device)


def quality_of(distortion_type: str, level: Any) -> Any:
    """Return the quality 0–100, higher is better, that a level (0–1, number or array) leaves."""
    return 100 - (100 - DISTORTIONS[distortion_type].worst_quality) * level


def select_types(names: str) -> tuple[str, ...]:
    """Return the types that `--distortions` names: 'default', 'all', or names between commas."""
    if names == "default":
        return DISTORTION_TYPES
    if names == "all":
        return tuple(DISTORTIONS)
    types = tuple(name.strip() for name in names.split(","))
    for name in types:
        if name not in DISTORTIONS:
            raise UserError(
                f"--distortions: unknown distortion {name!r}; choose from "
                f"{', '.join(DISTORTIONS)}, or 'all'"
            )
    if len(set(types)) != len(types):
        raise UserError(f"--distortions: a distortion is named twice in {names!r}")
    return types
