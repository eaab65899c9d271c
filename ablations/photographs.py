"""Whole photographs for measurements: which of a folder, their pixels, and what is written."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.timing import result_header
from evaluation.evaluate import native_crops, unseen_part
from models import Run
from references.folders import list_files, part_of
from references.reading import read_photograph
from references.sources import BUILTIN, file_digest, resolve_source
from utils.cli import int_in_range
from utils.errors import UserError
from utils.files import write_json
from utils.images import MIN_SIDE, to_nchw
from utils.rng import SPLITS, permutation


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose photographs and name the file of the numbers."""
    add = parser.add_argument
    add("--references", required=True, help="folder of photographs that the runs have not seen")
    add("--images", type=int_in_range(1), default=18, help="photographs, at most")
    add(
        "--working_size",
        type=int_in_range(MIN_SIDE),
        default=512,
        help="shorter side that larger photographs are shrunk to, pixels",
    )
    add("--output", help="write all numbers to this JSON file too (default: no file)")


def choose_photographs(runs: Sequence[Run], references: str, count: int) -> list[Path]:
    """Draw at most so many image files of a folder that no run was trained or validated on.

    They are of the folder's test part where it has one, and where a run was trained on the folder.
    Else they are of all of it.
    """
    source, _ = resolve_source(references, data_root="data")
    if source in BUILTIN:
        raise UserError(f"--references {references}: expected a folder of photographs")
    parts = {(unseen_part(run, source), run.config["data_seed"]) for run in runs}
    if len(parts) > 1:
        raise UserError(
            f"--references {references} holds images that only some of the runs were trained on, "
            "or that they split otherwise; give images that none has seen, or one run"
        )
    part, data_seed = parts.pop()
    listing = list_files(Path(source))
    names = part_of(listing, part, data_seed).names
    chosen: list[Path] = []
    for i in permutation(len(names), SPLITS.index("test")).tolist():
        path = listing.folder / names[i]
        if len(chosen) < count and not any(has_seen(run, path) for run in runs):
            chosen.append(path)
    if not chosen:
        raise UserError(f"--references {references}: expected photographs that no run has seen")
    return chosen


def has_seen(run: Run, path: Path) -> bool:
    """Tell whether a run was trained or validated on the image of this file."""
    config = run.config
    digest = file_digest(path, config["image_size"], native_crops(config))
    return digest in run.reference_digests


def load_photograph(path: Path, working_size: int) -> torch.Tensor:
    """Read a photograph as (H, W, 3) uint8, its shorter side shrunk to the working size."""
    pixels, reason = read_photograph(path, working_size)
    if pixels is None:
        raise UserError(f"{path} cannot be read ({reason}); remove it, or lower --images")
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise UserError(f"{path} is {width}×{height} pixels; expected sides of {MIN_SIDE} or more")
    return torch.from_numpy(pixels.copy())


def predict_qualities(run: Run, images: torch.Tensor) -> np.ndarray:
    """Return the predicted qualities of images (B, H, W, 3) uint8."""
    return run.predict(to_nchw(images)).qualities


def write_numbers(
    path: str | Path,
    experiments: Sequence[Path],
    numbers: dict[str, Any],
    device: torch.device | str,
) -> None:
    """Write a measurement of these runs on a device to a JSON file, and print the file's path."""
    about = {"experiments": [folder.name for folder in experiments]}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**result_header(device), **about, **numbers})
    print(f"\n{path}")


def describe_choice(args: argparse.Namespace, photographs: Sequence[Path]) -> dict[str, Any]:
    """Return which photographs were chosen by the flags of add_flags, as numbers hold it."""
    return {"photographs": [path.name for path in photographs], "working_size": args.working_size}
