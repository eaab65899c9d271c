"""Classical blind quality measures on the very references, images and labels of a tested run.

- brisque_svr: the 36 natural-scene statistics of BRISQUE (Mittal, Moorthy and Bovik, "No-reference
  image quality assessment in the spatial domain", IEEE TIP 2012), and on them a support-vector
  regressor, trained on redrawn images of the run's training references. Its constants are chosen on
  the run's validation images.
- niqe_like: minus the distance of the same statistics from those of the pristine training
  references (after Mittal, Soundararajan and Bovik, "Making a completely blind image quality
  analyzer", IEEE SPL 2013, with whole images in place of patches). It never sees a quality, so it
  is the floor.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

# The statistics of one scale, which piq's public function hides in its score.
from piq.brisque import _natural_scene_statistics
from piq.functional import imresize, rgb2yiq
from sklearn.covariance import LedoitWolf
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from tqdm import tqdm

from ablations.aggregate import read_test, shared_digest
from ablations.tested import tested_dataset
from distorted_dataset import DistortedImageDataset
from evaluation.metrics import srcc
from evaluation.results import read_metrics
from models import load_run
from train_with_distortions import load_data
from training.config import Recipe
from utils.files import write_json

SVR_GRID = [{"C": c, "gamma": gamma} for c in (10, 50, 200, 1000) for gamma in (0.003, 0.01, 0.03)]
GRID_IMAGES = 6000  # of training, on which the grid's regressors are fitted


class Sample(NamedTuple):
    """Statistics and qualities of N images."""

    statistics: np.ndarray  # (N, 36)
    qualities: np.ndarray  # (N,)
    is_pristine: np.ndarray  # (N,) bool


def aggregate_classical(folders: Sequence[Path], images: int) -> dict[str, dict[str, Any]]:
    """Return rows, as aggregate does, of measures that learn from each run's references."""
    digest = shared_digest(folders)
    rows: dict[str, dict[str, Any]] = {}
    for folder in folders:
        for name, measures in classical(folder, images).items():
            new_row = {"digest": digest, "runs": [], "stability": np.nan, "tested": []}
            row = rows.setdefault(name, new_row)
            without_pristine = measures["without_pristine"]["srcc"]
            row["runs"].append(
                {"srcc": measures["srcc"], "srcc_without_pristine": without_pristine}
            )
            predicted = np.array(measures["predicted"])
            row["tested"].append({**read_test(folder), "predicted": predicted})
    return rows


def classical(folder: str | Path, images: int) -> dict[str, dict[str, Any]]:
    """Train the classical measures on so many images and test them on a run's test.

    Returns {"brisque_svr": measures, "niqe_like": measures}; among them is "predicted", in the
    order of the test's images. They are kept in the run's visualizations/classical.json.
    """
    metrics = read_metrics(folder)
    path = Path(folder) / "visualizations" / "classical.json"
    about = {"digest": metrics["digest"], "images": images}
    if path.is_file():
        found = json.loads(path.read_bytes())
        if found["about"] == about:
            return found["rows"]
    run = load_run(folder, metrics["checkpoint"])
    # The run's own training images, but redrawn every epoch, and not mixed.
    changes = {"redistort": True, "cache_dir": None, "resume": True}
    flags = argparse.Namespace(**{**run.config, **changes})
    train, val, *_ = load_data(flags, Recipe(cutmix=False), DistortedImageDataset)
    test = tested_dataset(run, metrics)
    train_sample = draw_sample(train, images)
    test_statistics = measure_statistics(test)
    regressor = fit_regressor(train_sample, measure_statistics(val), qualities(val))
    pristine = LedoitWolf().fit(train_sample.statistics[train_sample.is_pristine])
    rows = {
        "brisque_svr": measure(regressor.predict(test_statistics), test),
        "niqe_like": measure(-(pristine.mahalanobis(test_statistics) ** 0.5), test),
    }
    write_json(path, {"about": about, "rows": rows})
    return rows


def draw_sample(dataset: DistortedImageDataset, images: int) -> Sample:
    """Return a Sample of so many images, drawn from as many epochs as it takes."""
    epochs = math.ceil(images / len(dataset))
    parts = []
    for epoch in tqdm(range(epochs), desc="statistics", unit="epoch", leave=False):
        dataset.set_epoch(epoch)
        is_pristine = dataset.labels.main_type.numpy() == len(dataset.types)
        parts.append((measure_statistics(dataset), qualities(dataset), is_pristine))
    drawn = np.random.default_rng(0).permutation(epochs * len(dataset))[:images]
    return Sample(*(np.concatenate(values)[drawn] for values in zip(*parts)))


def measure_statistics(dataset: DistortedImageDataset) -> np.ndarray:
    """Return the statistics (N, 36) of all images of a dataset."""
    batches = dataset.batches(torch.arange(len(dataset)), 256)
    return np.concatenate([natural_scene_statistics(images) for images, _ in batches])


def natural_scene_statistics(images: torch.Tensor) -> np.ndarray:
    """Return the statistics (B, 36) of images (B, 3, H, W) uint8.

    They are 18 at full size and 18 at half size.
    """
    luma = rgb2yiq(images.double())[:, :1].round()
    # An image of one colour has no statistics, so a single pixel of it is changed by a grey level.
    is_flat = luma.flatten(1).std(1) == 0
    luma[is_flat, 0, 0, 0] += 1
    full_size = _natural_scene_statistics(luma)
    half = imresize(luma, sizes=(luma.shape[2] // 2, luma.shape[3] // 2))
    return torch.cat([full_size, _natural_scene_statistics(half)], dim=1).numpy()


def qualities(dataset: DistortedImageDataset) -> np.ndarray:
    """Return the qualities (N,) of all images of a dataset."""
    return dataset.labels.quality.double().numpy()


def fit_regressor(train: Sample, val_statistics: np.ndarray, val_qualities: np.ndarray) -> Pipeline:
    """Choose constants from SVR_GRID by SRCC on validation, then fit to the whole sample."""

    def fit(constants, count):
        regressor = SVR(epsilon=3, cache_size=1000, **constants)
        pipeline = make_pipeline(StandardScaler(), regressor)
        return pipeline.fit(train.statistics[:count], train.qualities[:count])

    scores = []
    for constants in tqdm(SVR_GRID, desc="choosing", unit="fit", leave=False):
        predicted = fit(constants, GRID_IMAGES).predict(val_statistics)
        scores.append(srcc(val_qualities, predicted))
    return fit(SVR_GRID[int(np.argmax(scores))], len(train.qualities))


def measure(predicted: np.ndarray, dataset: DistortedImageDataset) -> dict[str, Any]:
    """Return the measures of predictions (N,) for all images of a dataset."""
    true = qualities(dataset)
    is_distorted = dataset.labels.main_type.numpy() < len(dataset.types)
    return {
        "srcc": srcc(true, predicted),
        "without_pristine": {"srcc": srcc(true[is_distorted], predicted[is_distorted])},
        "predicted": predicted.tolist(),
    }
