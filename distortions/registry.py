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

A function may change what it gets, which is a copy. What it raises or returns is checked, but for
the default eight, which tests compare with written values.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any

import numpy as np
import torch

from distortions.arguments import (
    check_dtype,
    check_function,
    check_quality,
    check_signature,
    check_tables,
)
from distortions.guard import call, check_batch, check_image, describe
from distortions.sources_changed import explain_absence, note_reading
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
FAMILIES = ("default", "kadid", "all")  # of --distortions; each stands alone
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
    in_places: bool = False  # it changes some places of an image, and leaves the rest as it is
    local: bool = False  # that too, and people judge the image by them

    def apply(
        self, images: torch.Tensor, level: torch.Tensor, direction: torch.Tensor, rng: CounterRNG
    ) -> torch.Tensor:
        """Call the function for images of its dtype. level and direction are (B, 1, 1, 1).

        Raises UserError, with the function's name and place, for what it must not do or return.
        """
        if self.tables:
            values = interpolate(level, self.tables[0])
            if len(self.tables) == 2:
                values = torch.where(direction < 0, values, interpolate(level, self.tables[1]))
            parameters = [values]
        else:
            parameters = [level, direction]
        if self.is_standard:
            return self.function(images, *parameters, rng)
        shape = tuple(images.shape)
        second = parameters[0].clone()
        output = call(self.function, images, *parameters, rng)
        return check_batch(self.function, output, shape, like=images, second=second)

    @property
    def is_standard(self) -> bool:
        """Whether it is one of the default eight."""
        return self.function.__module__ == "distortions.standard"

    @property
    def is_kadid(self) -> bool:
        """Whether it is one of KADID-10k's 25."""
        return self.function.__module__.startswith("distortions.kadid")


DISTORTIONS: dict[str, Distortion] = {}
REFUSED: dict[str, str] = {}  # why a function of this package could not be registered, by its name


def distortion(
    worst_quality: float,
    *,
    directions: tuple[str, ...] = (),
    parameter: str = "",
    levels: tuple[float, ...] | Mapping[str, tuple[float, ...]] = (),
    dtype: str = "float32",
    in_places: bool = False,
    local: bool = False,
) -> Callable[[Callable], Callable]:
    """Register the decorated function under its name.

    worst_quality: the quality that level 1 leaves, 0–100. levels: values of the parameter at
    LEVELS, or two named directions with such values each. A function without levels may name its
    directions. in_places: it changes some places of an image alone, so that these have to be
    drawn inside a crop. local: that too, and people judge the image by these places. Raises
    UserError for what cannot be registered. In a file of distortions/ the scripts raise it, when
    they select types, because no script has begun while it is imported.
    """

    def register(function):
        try:
            check_function(function, standard=DISTORTION_TYPES)
            names, tables = check_tables(function, levels, directions, parameter, LEVELS)
            check_signature(function, has_table=len(tables) > 0)
            entry = Distortion(
                function=function,
                worst_quality=check_quality(function, worst_quality),
                directions=names,
                parameter=parameter,
                tables=tables,
                dtype=check_dtype(function, getattr(function, "dtype", dtype)),
                in_places=bool(in_places or local),
                local=bool(local),
            )
        except UserError as problem:
            return _refuse(function, str(problem))
        REFUSED.pop(function.__name__, None)
        DISTORTIONS[function.__name__] = entry
        note_reading(function)
        return function

    if callable(worst_quality):
        place = describe(worst_quality)
        message = f"{place}: write @distortion(worst_quality=50) above it, with the quality left"
        return _refuse(worst_quality, message)
    return register


def _refuse(function, message):
    """Raise UserError, or keep it for `select_types`, and return the function."""
    name = getattr(function, "__name__", "")
    if not str(getattr(function, "__module__", "")).startswith("distortions."):
        raise UserError(message) from None
    DISTORTIONS.pop(name, None)
    REFUSED[name] = message
    return function


def per_image(function: Callable) -> Callable:
    """Lift a function of one (H, W, 3) uint8 array to a batch.

    It gets numbers in place of tensors, and an ImageRNG: f(image, level, direction, rng), or
    f(image, parameter, rng) where it is registered with a table.
    """

    if not callable(function) or hasattr(function, "of_one_image"):
        return function  # @distortion refuses what is no function; this may stand there twice

    @wraps(function)
    def batch_function(images, *values_and_rng):
        *values, rng = values_and_rng
        columns = [value.flatten().tolist() for value in values]
        pixels = images.cpu().numpy()
        outputs = np.empty_like(pixels)
        for i, image in enumerate(pixels):
            numbers = [column[i] for column in columns]
            output = call(function, image.copy(), *numbers, rng.for_image(i))
            outputs[i] = check_image(function, output, image.shape)
        return torch.from_numpy(outputs).to(images.device)

    if any(entry.function is function for entry in DISTORTIONS.values()):
        del DISTORTIONS[function.__name__]
        return _refuse(function, f"{describe(function)}: write @distortion(…) above @per_image")
    batch_function.dtype = "uint8"  # type: ignore[attr-defined]
    batch_function.of_one_image = function  # type: ignore[attr-defined]
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
    """Return the quality 0–100, higher is better, that a level or levels (0–1) leave."""
    return 100 - (100 - DISTORTIONS[distortion_type].worst_quality) * level


def select_types(names: str) -> tuple[str, ...]:
    """Return the types that `--distortions` names.

    'default' stands for the eight, 'kadid' for KADID-10k's 25, and 'all' for all but these, because
    a fault under two names could not be told apart. Anything else is names between commas.
    """
    for message in REFUSED.values():
        raise UserError(message)
    if names == "default":
        return DISTORTION_TYPES
    if names == "kadid":
        return tuple(name for name, entry in DISTORTIONS.items() if entry.is_kadid)
    if names == "all":
        return _types_beside_kadid()
    types = tuple(name.strip() for name in names.split(","))
    for name in types:
        if not name:
            raise UserError(
                f"--distortions: a name is missing in {names!r}; put one between two commas"
            )
        if name in FAMILIES:
            raise UserError(
                f"--distortions {names}: {name!r} stands alone; name every distortion that you want"
            )
        if name not in DISTORTIONS:
            raise UserError(f"--distortions: {unknown_type(name)}")
    if len(set(types)) != len(types):
        raise UserError(f"--distortions: a distortion is named twice in {names!r}; give each once")
    return types


def _types_beside_kadid():
    return tuple(name for name, entry in DISTORTIONS.items() if not entry.is_kadid)


def unknown_type(name: Any) -> str:
    """Say that there is no distortion of this name, and why, or which there are."""
    hint = missing_type_hint(name) if isinstance(name, str) else ""
    if not hint:
        names = ", ".join(_types_beside_kadid())
        hint = f"; choose from {names}, or kadid (25 types), or add it to distortions/extra.py"
    return f"unknown distortion {name!r}{hint}"


def missing_type_hint(name: str) -> str:
    """Say why there is no distortion of this name, or which one may be meant.

    It is the end of a message, "; …", or "" if nothing is known.
    """
    if name in REFUSED:
        return f"; {REFUSED[name]}"
    if reason := explain_absence(name):
        return f"; {reason}"
    wanted = name.strip().lower().replace("-", "_").replace(" ", "_")
    similar: list[str] = []
    for names in (_types_beside_kadid(), DISTORTIONS):
        if len(wanted) > 2 and not similar:
            similar = [other for other in names if wanted in other]
    similar = similar or difflib.get_close_matches(wanted, DISTORTIONS, n=1)
    return f"; did you mean {' or '.join(similar)}?" if similar else ""
