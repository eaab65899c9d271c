"""Measure a run on held-out images: which ones, what it predicts, and how good that is."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from distorted_dataset import DistortedImageDataset
from distortions.registry import DISTORTIONS
from evaluation.clusters import cluster_measures, cluster_names
from evaluation.metrics import bootstrap_intervals, quality_measures, rmse, srcc
from evaluation.results import LEAST_IMAGES
from models.inference import Predictions, Run
from references.sizes import NativeCrops
from references.sources import choose_test_part, load_test_references
from utils.terminal import readable

BATCH_SIZE = 256


def held_out_dataset(
    run: Run, test: dict[str, Any], cache_dir: str | None = None
) -> tuple[DistortedImageDataset, int]:
    """Return the images that a run is tested on, and how many references were left out.

    Left out are those that the run has seen. test says which images, as metrics.json keeps it:
    {"references", "data_root", "seed", "samples", "distortions_per_image", "part"}. A test before
    there were parts was on what the source holds out.
    """
    config = run.config
    references, left_out = load_test_references(
        test["references"],
        test["samples"],
        image_size=config["image_size"],
        data_root=test["data_root"],
        data_seed=config["data_seed"],
        seed=test["seed"],
        exclude=run.reference_digests,
        cache_dir=cache_dir,
        part=test.get("part", "held_out"),
        crops=native_crops(config, test.get("crops_per_reference")),
    )
    dataset = DistortedImageDataset(
        references,
        tuple(config["types"]),
        test["distortions_per_image"],
        seed=test["seed"],
        split="test",
        compose=config["compose"],
        redistort=False,
    )
    return dataset, left_out


def unseen_part(run: Run, source: str) -> str:
    """Return which part of a source a run is tested on, 'held_out' or 'all': choose_test_part."""
    config = run.config
    return choose_test_part(
        source,
        own_source=config["references"],
        reference_digests=run.reference_digests,
        image_size=config["image_size"],
        data_seed=config["data_seed"],
        crops=native_crops(config),
    )


def native_crops(config: dict[str, Any], per_reference: int | None = None) -> NativeCrops | None:
    """Return how a run's references are cropped, or None where they are whole scenes.

    per_reference: crops of each photograph (default: as many as in the run's epochs).
    """
    if config["crop"] == "whole":
        return None
    return NativeCrops(config["working_size"], per_reference or config["crops_per_reference"])


def predict(run: Run, dataset: DistortedImageDataset) -> Predictions:
    """Return a run's Predictions of a dataset, in its order."""
    device = next(run.model.parameters()).device
    parts = []
    with tqdm(total=len(dataset), desc="predicting", unit="image", leave=False) as bar:
        for images, _ in dataset.batches(torch.arange(len(dataset)), BATCH_SIZE, device):
            parts.append(run.predict(images))
            bar.update(len(images))
    return Predictions(*(np.concatenate(values) for values in zip(*parts)))


def measure(
    run: Run,
    dataset: DistortedImageDataset,
    predictions: Predictions,
    *,
    experiment: str | Path,
    checkpoint: str,
) -> dict[str, Any]:
    """Return what metrics.json holds, but for the test's settings and the figures' names.

    Intervals are by photograph; a reference that is no crop is a photograph of its own.
    """
    labels = dataset.labels
    true = labels.quality.double().numpy()
    types = labels.main_type.numpy()
    photographs = dataset.references.photographs[labels.reference.numpy()]
    is_distorted = types < len(dataset.types)
    everything = np.ones(len(true), bool)
    n_clusters = predictions.responsibilities.shape[1]
    names = cluster_names(
        predictions.clusters,
        types,
        direction_words(types, labels.main_direction.numpy(), dataset.types),
        true,
        dataset.class_names,
        n_clusters,
    )

    by_type = measures_by_type(true, predictions.qualities, types, dataset.types)

    def measure_quality(chosen):
        return _with_intervals(true[chosen], predictions.qualities[chosen], photographs[chosen])

    return {
        "run": readable(Path(experiment).resolve().name),
        "checkpoint": checkpoint,
        "epoch": run.epoch + 1,
        "seed": run.config["seed"],
        "trained_on": run.config["references_name"],
        "references": dataset.references.source,
        "test_references": len(dataset.references),
        "photographs": len(np.unique(photographs)),
        "digest": dataset.digest(),
        "images": len(dataset),
        **measure_quality(everything),
        "without_pristine": {"images": int(is_distorted.sum()), **measure_quality(is_distorted)},
        "by_type": by_type,
        "types_not_measured": [name for name in dataset.types if name not in by_type],
        "clusters": {**cluster_measures(predictions.clusters, types, n_clusters), "names": names},
        "unknown": {
            "log_likelihood_below": run.mixture.ood_threshold.item(),
            "flagged": float(predictions.unknown.mean()),
        },
    }


def _with_intervals(true, predicted, photographs):
    """Return quality measures, and each with its interval under '<name>_interval'."""
    values: dict[str, Any] = dict(quality_measures(true, predicted))
    for name, interval in bootstrap_intervals(true, predicted, photographs).items():
        values[f"{name}_interval"] = interval
    return values


def direction_words(
    types: np.ndarray, directions: np.ndarray, type_names: tuple[str, ...]
) -> np.ndarray:
    """Return (N,) 'low', 'high', … or '' where the type has no direction or there is none."""
    words = [DISTORTIONS[name].directions or ("", "") for name in type_names]
    words.append(("", ""))  # pristine
    return np.array(words)[types, (directions > 0).astype(int)]


def measures_by_type(
    true: np.ndarray, predicted: np.ndarray, types: np.ndarray, type_names: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    """Return {type: its SRCC, RMSE and number of images}, of types with LEAST_IMAGES or more."""
    measures = {}
    for i, name in enumerate(type_names):
        inside = types == i
        if inside.sum() >= LEAST_IMAGES:
            measures[name] = {
                "srcc": srcc(true[inside], predicted[inside]),
                "rmse": rmse(true[inside], predicted[inside]),
                "images": int(inside.sum()),
            }
    return measures
