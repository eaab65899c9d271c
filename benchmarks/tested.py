"""Tested runs, as the benchmarks read them: their held-out images and what was predicted for each."""

import csv
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the project's modules

from distorted_dataset import DistortedImageDataset
from references import load_test_references


def held_out_references(run, tested):
    """The references of a models.run.Run's own test; tested is what its metrics.json holds."""
    config, seed = run.config, run.config["data_seed"]
    where = config["image_size"], config["data_root"], seed, seed
    count, exclude = tested["test_references"], run.reference_digests
    return load_test_references(config["references"], count, *where, exclude=exclude)[0]


def held_out_dataset(run, tested):
    """The images of a run's own test."""
    how = tuple(run.config["types"]), run.config["distortions_per_image"], run.config["data_seed"], "test"
    dataset = DistortedImageDataset(held_out_references(run, tested), *how, run.config["compose"], redistort=False)
    assert dataset.digest() == tested["digest"], "the test's images have changed since"
    return dataset


def read_columns(folder, *names):
    """(N,) arrays of numbers, or of text where a column is no number, from a tested run's predictions.csv."""
    with open(Path(folder) / "visualizations" / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [_numbers([row[name] for row in rows]) for name in names]


def _numbers(values):
    try:
        return np.array(values, float)
    except ValueError:
        return np.array(values)
