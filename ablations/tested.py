"""Tested runs, as the benchmarks read them: their held-out images and what was predicted for each."""

import csv
from pathlib import Path

import numpy as np

from evaluation.evaluate import held_out_dataset
from utils.errors import UserError


def tested_dataset(run, tested):
    """The images that a models.run.Run was tested on; tested is what its metrics.json holds."""
    dataset, _ = held_out_dataset(run, tested["test"])
    if dataset.digest() != tested["digest"]:
        raise UserError(
            f"the test images of {tested['run']} have changed since its test; test it again"
        )
    return dataset


def read_columns(folder, *names):
    """(N,) arrays of numbers, or of text where a column is no number, from a tested run's predictions.csv."""
    with open(
        Path(folder) / "visualizations" / "predictions.csv", newline="", encoding="utf-8"
    ) as file:
        rows = list(csv.DictReader(file))
    return [_numbers([row[name] for row in rows]) for name in names]


def _numbers(values):
    try:
        return np.array(values, float)
    except ValueError:
        return np.array(values)
