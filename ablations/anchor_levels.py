"""Derive the tables of distortions/kadid.py from people's opinions, and print them.

    python -m ablations.anchor_levels --opinions dmos.csv

FILE is KADID-10k's own dmos.csv (dist_img,ref_img,dmos,var), or a table of mean opinions
(type,level,mean_mos). KADID-10k is not part of this project: Lin, Hosu and Saupe, "KADID-10k: A
large-scale artificially distorted IQA database", QoMEX 2019.

An opinion of 1–5 is a quality by `opinion = 4.6 − 0.0425 × (100 − quality)`. A type's
parameter is read at the qualities of the levels, and interpolated between KADID's own.
"""

import argparse
import csv
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distortions.registry import LEVELS
from utils.cli import make_parser, run_script
from utils.errors import UserError

BEST_OPINION = 4.6  # of an image that nothing was done to
OPINION_STEP = 0.0425  # of opinion, for a point of quality
KADID_LEVELS = (1, 2, 3, 4, 5)
DIGITS = 3  # significant ones, of the tables' values


class Parameter(NamedTuple):
    """What KADID-10k varies in one type."""

    values: tuple[float, ...]  # at KADID's levels 1 to 5
    none: float  # the value that changes nothing
    is_ratio: bool = True  # interpolated by its logarithm, where it is positive
    directions: dict[str, tuple[int, ...]] | None = None  # levels, from the mildest to the worst


# In KADID's order: the first one is number 01 in its file names. Units are in distortions/kadid.py.
PARAMETERS = {
    "gaussian_blur": Parameter((0.1, 0.5, 1, 2, 5), none=0),
    "lens_blur": Parameter((1, 2, 4, 6, 8), none=0.5),
    "motion_blur": Parameter((1, 2, 4, 6, 10), none=1),
    "color_diffusion": Parameter((1, 3, 6, 8, 12), none=0),
    "color_shift": Parameter((1, 3, 6, 8, 12), none=0),
    "color_quantization": Parameter((64, 48, 32, 16, 8), none=256),
    "color_saturation_1": Parameter((0.4, 0.2, 0.1, 0, -0.4), none=1, is_ratio=False),
    "color_saturation_2": Parameter((1, 2, 3, 6, 9), none=1),
    "jpeg2000": Parameter((16, 32, 45, 120, 400), none=1),
    "jpeg": Parameter((43, 36, 24, 7, 4), none=100),
    "white_noise": Parameter((0.001, 0.002, 0.003, 0.005, 0.01), none=0),
    "white_noise_color_component": Parameter((0.0001, 0.0005, 0.001, 0.002, 0.003), none=0),
    "impulse_noise": Parameter((0.001, 0.005, 0.01, 0.02, 0.03), none=0),
    "multiplicative_noise": Parameter((0.001, 0.005, 0.01, 0.02, 0.05), none=0),
    "denoise": Parameter((0.01, 0.03, 0.05, 0.1, 0.15), none=0),
    "brighten": Parameter((0.1, 0.2, 0.4, 0.7, 1.1), none=0),
    "darken": Parameter((0.05, 0.1, 0.2, 0.4, 0.8), none=0),
    "mean_shift": Parameter(
        (0.15, 0.08, 0, -0.08, -0.15),
        none=0,
        is_ratio=False,
        directions={"dark": (4, 5), "bright": (2, 1)},
    ),
    "jitter": Parameter((0.05, 0.1, 0.2, 0.5, 1), none=0),
    "non_eccentricity_patch": Parameter((20, 40, 60, 80, 100), none=0),
    # KADID's strengths .01 .05 .1 .2 .5 shrink an image to .95 − strength^.6 of its size.
    "pixelate": Parameter((1.13, 1.28, 1.43, 1.75, 3.45), none=1),
    "quantization": Parameter((20, 16, 13, 10, 7), none=256),
    "color_block": Parameter((2, 4, 6, 8, 10), none=0),
    "high_sharpen": Parameter((1, 2, 3, 6, 12), none=0),
    # KADID's curve at 0 raises contrast by a quarter; the line is at −0.2.
    "contrast_change": Parameter(
        (0.3, 0.15, 0, -0.4, -0.6),
        none=-0.2,
        is_ratio=False,
        directions={"low": (4, 5), "high": (3, 2, 1)},
    ),
}


class Table(NamedTuple):
    """What @distortion takes for one type."""

    worst_quality: int
    levels: tuple[float, ...] | dict[str, tuple[float, ...]]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--opinions", required=True, help="CSV file of KADID-10k's opinions")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Print the worst quality and the levels of each type, as they stand in kadid.py."""
    opinions = read_opinions(args.opinions)
    for name in PARAMETERS:
        table = derive_table(name, opinions[name])
        print(f"kadid_{name}: worst_quality={table.worst_quality}, levels={_show(table.levels)}")


def read_opinions(path: str | Path) -> dict[str, tuple[float, ...]]:
    """Read the mean opinion at KADID's levels 1 to 5, for each type, from either kind of file."""
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"--opinions {path}: no such file; give KADID-10k's dmos.csv, or a table with the "
            "columns type,level,mean_mos"
        )
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        rows = list(reader)
    if {"type", "level", "mean_mos"} <= set(columns):
        read_row = _read_mean
    elif {"dist_img", "dmos"} <= set(columns):
        read_row = _read_image
    else:
        raise UserError(
            f"--opinions {path} has the columns {', '.join(columns) or '(none)'}, expected "
            "type,level,mean_mos or those of KADID-10k's dmos.csv, dist_img,ref_img,dmos,var"
        )
    cells: dict[tuple[str, int], list[float]] = {}
    for number, row in enumerate(rows, start=2):
        try:
            name, level, opinion = read_row(row)
        except (ValueError, AttributeError, TypeError):
            got = ",".join(str(row[column]) for column in columns)
            raise UserError(
                f"--opinions {path}, line {number}: {got!r} is not a type, a level from 1 to 5 and "
                "an opinion from 1 to 5; give the file as it came"
            ) from None
        cells.setdefault((name, level), []).append(opinion)
    return {name: _mean_by_level(path, name, cells) for name in PARAMETERS}


def _read_mean(row):
    name = row["type"].strip()
    return _checked(name, int(row["level"]), float(row["mean_mos"]))


def _read_image(row):
    """Read a row such as I01_25_05.png,I01.png,2.1,0.9: type 25 at level 5."""
    _, number, level = Path(row["dist_img"].strip()).stem.split("_")
    names = dict(enumerate(PARAMETERS, start=1))
    return _checked(names.get(int(number)), int(level), float(row["dmos"]))


def _checked(name, level, opinion):
    if name not in PARAMETERS or level not in KADID_LEVELS or not 1 <= opinion <= 5:
        raise ValueError
    return name, level, opinion


def _mean_by_level(path, name, cells):
    for level in KADID_LEVELS:
        if (name, level) not in cells:
            raise UserError(
                f"--opinions {path} has no opinion of {name} at level {level}; "
                "expected all 25 types at levels 1 to 5"
            )
    return tuple(float(np.mean(cells[name, level])) for level in KADID_LEVELS)


def to_quality(opinion: float) -> float:
    """Return the quality, at most 100, of an opinion of 1–5, higher is better for both."""
    return min(100.0, 100 - (BEST_OPINION - opinion) / OPINION_STEP)


def derive_table(name: str, opinions: tuple[float, ...]) -> Table:
    """Return a type's worst quality, and its parameter at each of LEVELS.

    opinions: at KADID's levels 1 to 5. Of two directions the milder one's end is the worst
    quality, rounded up to a whole number, so that nothing goes beyond KADID's level 5.
    """
    parameter = PARAMETERS[name]
    order = parameter.directions or {"": KADID_LEVELS}
    curves = {}
    for direction, levels in order.items():
        values = [parameter.values[level - 1] for level in levels]
        qualities = [to_quality(opinions[level - 1]) for level in levels]
        curves[direction] = quality_curve(values, qualities, parameter.none)
    mildest_end = max(qualities[-1] for _, qualities in curves.values())
    worst = math.ceil(round(mildest_end, 6))
    tables = {}
    for direction, (values, qualities) in curves.items():
        # Nothing is done at level 0. The curve itself may start at what is not yet visible.
        table = [parameter.none]
        for level in LEVELS[1:]:
            quality = 100 - (100 - worst) * level
            value = read_curve(values, qualities, quality, parameter.is_ratio)
            table.append(float(f"{value:.{DIGITS}g}"))
        tables[direction] = tuple(table)
    return Table(worst, tables if parameter.directions else tables[""])


def quality_curve(
    values: list[float], qualities: list[float], none: float
) -> tuple[list[float], list[float]]:
    """Return a curve's parameters, and their qualities, which fall strictly from 100.

    Where people found a stronger level no worse than the one before, it is left out: of two
    parameters of one quality the milder one counts. At 100 the strongest one counts.
    """
    curve_values = [none]
    curve_qualities = [100.0]
    for value, quality in zip(values, qualities):
        if value == none or (quality >= 100 and len(curve_values) == 1):
            curve_values[0] = value
        elif quality < curve_qualities[-1]:
            curve_values.append(value)
            curve_qualities.append(quality)
    if len(curve_values) == 1:
        raise UserError(
            f"the opinions of parameters {', '.join(map(str, values))} are no worse than "
            f"{BEST_OPINION}; expected one that is, to read a worst quality from"
        )
    return curve_values, curve_qualities


def read_curve(
    values: list[float], qualities: list[float], quality: float, is_ratio: bool
) -> float:
    """Interpolate a parameter at a quality that the curve holds."""
    i = next((i for i, other in enumerate(qualities) if other < quality), len(qualities) - 1)
    share = (qualities[i - 1] - quality) / (qualities[i - 1] - qualities[i])
    start = values[i - 1]
    end = values[i]
    if is_ratio and min(start, end) > 0:
        return start * (end / start) ** share
    return start + (end - start) * share


def _show(levels):
    if isinstance(levels, dict):
        return "{" + ", ".join(f'"{name}": {_show(table)}' for name, table in levels.items()) + "}"
    return "(" + ", ".join(f"{value:g}" for value in levels) + ")"


if __name__ == "__main__":
    run_script(main, parse_args)
