"""Files of tensors and plain JSON values, written whole or not at all."""

import json
import math
import os
import pickle
import zipfile
from pathlib import Path

import torch

from errors import UserError

FORMAT = 2


def write_atomically(path, write):
    """Call write(file) on a temporary neighbour of path, then put it in path's place."""
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path, value):
    """Indented JSON with a closing newline."""
    write_atomically(path, lambda file: file.write((json.dumps(without_nan(value), indent=2) + "\n").encode()))


def without_nan(value):
    """JSON has no nan: null stands for a value that could not be computed."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def with_nan(value):
    """What was written with null for nan, as it was."""
    if isinstance(value, dict):
        return {key: with_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_nan(item) for item in value]
    return math.nan if value is None else value


def save_checkpoint(path, state):
    """state: a dict of tensors and plain values."""
    write_atomically(path, lambda file: torch.save({"format": FORMAT, **state}, file))


def load_checkpoint(path, device="cpu"):
    """The dict that was saved. Raises UserError for a file that is damaged, foreign or of another version."""
    foreign = f"{path} is not a checkpoint of this project, or is damaged"
    if not zipfile.is_zipfile(path):
        raise UserError(foreign)
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as problem:
        raise UserError(f"{foreign} ({type(problem).__name__})") from problem
    version = state.get("format") if isinstance(state, dict) else None
    if version != FORMAT:
        raise UserError(f"{path} has checkpoint format {version}, this code reads {FORMAT}; train the run anew")
    return state
