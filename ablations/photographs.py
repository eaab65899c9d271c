"""Whole photographs for measurements: which of a folder, and their pixels."""

from pathlib import Path

import torch

from references.folders import held_out_split, list_files, part_of
from references.reading import read_photograph
from utils.errors import UserError
from utils.images import MIN_SIDE
from utils.rng import SPLITS, permutation


def choose_photographs(folder: str | Path, count: int) -> list[str]:
    """Draw at most so many image files of a folder's test part, or of all where it has none."""
    listing = list_files(Path(folder))
    has_test = held_out_split(listing) is not None
    names = part_of(listing, "held_out" if has_test else "all", data_seed=0).names
    order = permutation(len(names), SPLITS.index("test"))
    return [names[i] for i in order[:count].tolist()]


def load_photograph(path: Path, working_size: int) -> torch.Tensor:
    """Read a photograph as (H, W, 3) uint8, its shorter side shrunk to the working size."""
    pixels, reason = read_photograph(path, working_size)
    if pixels is None:
        raise UserError(f"{path} cannot be read ({reason}); remove it, or lower --images")
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise UserError(f"{path} is {width}×{height} pixels; expected sides of {MIN_SIDE} or more")
    return torch.from_numpy(pixels.copy())
