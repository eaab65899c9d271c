"""Read and write what a run leaves: log.jsonl, metrics.json and predictions.csv."""

import csv
import io
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.files import null_to_nan, read_json, read_lines, write_atomically
from utils.runs import command_to_resume, command_to_test

if TYPE_CHECKING:  # torch takes seconds to import, and what only shows a test does not need it
    from distorted_dataset import DistortedImageDataset
    from models.inference import Predictions

METRIC_TITLES = {
    "srcc": "SRCC",
    "plcc": "PLCC",
    "plcc_logistic": "PLCC, logistic",
    "krcc": "KRCC",
    "rmse": "RMSE",
    "mae": "MAE",
}
LEAST_IMAGES = 3  # a type with fewer test images is not measured on its own
# What every version's metrics.json must have to be shown.
REQUIRED_METRICS = (
    "run",
    "checkpoint",
    "epoch",
    "trained_on",
    "references",
    "test_references",
    "photographs",
    "digest",
    "images",
    "srcc",
    "plcc",
    "plcc_logistic",
    "krcc",
    "rmse",
    "mae",
    "without_pristine",
    "by_type",
    "clusters",
    "figures",
)
PREDICTION_COLUMNS = (
    "image",
    "reference",
    "photograph",
    "steps",
    "type",
    "direction",
    "level",
    "quality",
    "predicted_quality",
    "cluster",
    "responsibility",
    "predicted_type",
    "type_probability",
    "log_likelihood",
    "unknown",
)


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """Read the lines of a run's log, a dict for each epoch."""
    folder = Path(folder)
    resume = command_to_resume(folder)
    way_out = f"the run's last.pt has it whole, and puts it back: {resume}"
    return read_lines(folder / "log.jsonl", way_out)


def read_metrics(folder: str | Path) -> dict[str, Any]:
    """Read what test_with_viz.py measured of a run; nan stands for what could not be computed."""
    path = Path(folder) / "visualizations" / "metrics.json"
    test = command_to_test(folder)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; run: {test}")
    return null_to_nan(read_json(path, f"test the run again: {test}", REQUIRED_METRICS))


def changes_at_refits(folder: str | Path) -> dict[int, float]:
    """Return {epoch of a refit: the change of validation SRCC from the epoch before it}.

    The first epoch has none before it.
    """
    refits = {line["epoch"] for line in read_log(folder) if line["refit"]}
    return {epoch: change for epoch, change in srcc_changes(folder).items() if epoch in refits}


def late_stability(folder: str | Path) -> float | None:
    """Return the mean share of images that kept their cluster at refits.

    Refits of the second half of training count. None where there are none.
    """
    log = read_log(folder)
    late = [line for line in log if line["epoch"] >= len(log) / 2 and line["refit"]]
    kept = [line["kept"] for line in late if "kept" in line]
    return float(np.mean(kept)) if kept else None


def srcc_changes(folder: str | Path) -> dict[int, float]:
    """Return {epoch: the change of validation SRCC from the epoch before it}."""
    log = null_to_nan(read_log(folder))
    pairs = itertools.pairwise(log)
    return {after["epoch"]: after["srcc"] - before["srcc"] for before, after in pairs}


def write_predictions(
    path: str | Path, dataset: "DistortedImageDataset", predictions: "Predictions"
) -> None:
    """Write a CSV file with a row for each image of the dataset, with PREDICTION_COLUMNS."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(PREDICTION_COLUMNS)
    labels = dataset.labels
    main_type = labels.main_type
    main_level = labels.main_level
    main_direction = labels.main_direction
    for i in range(len(dataset)):
        reference = labels.reference[i]
        cluster = predictions.clusters[i]
        row = {
            "image": i,
            "reference": dataset.references.names[reference],
            "photograph": dataset.references.photographs[reference],
            "steps": describe_steps(dataset, i),
            "type": dataset.class_names[main_type[i]],
            "direction": main_direction[i].item(),
            "level": f"{main_level[i]:.4f}",
            "quality": f"{labels.quality[i]:.4f}",
            "predicted_quality": f"{predictions.qualities[i]:.4f}",
            "cluster": cluster,
            "responsibility": f"{predictions.responsibilities[i, cluster]:.4f}",
            "predicted_type": "",
            "type_probability": "",
            "log_likelihood": f"{predictions.log_likelihoods[i]:.9g}",
            "unknown": int(predictions.unknown[i]),
        }
        probabilities = predictions.type_probabilities[i]
        if probabilities.size:
            row["predicted_type"] = dataset.class_names[probabilities.argmax()]
            row["type_probability"] = f"{probabilities.max():.9g}"
        writer.writerow(row[column] for column in PREDICTION_COLUMNS)
    # The name of a file may hold bytes that are no UTF-8.
    content = text.getvalue().encode("utf-8", "backslashreplace")
    write_atomically(path, lambda file: file.write(content))


def describe_steps(dataset: "DistortedImageDataset", i: int) -> str:
    """Name all of an image's distortions in their order: 'gaussian_blur 0.52 + rain 0.31'."""
    steps = []
    types = dataset.labels.type[i].tolist()
    levels = dataset.labels.level[i].tolist()
    for index, level in zip(types, levels):
        if index >= 0:
            steps.append(f"{dataset.types[index]} {level:.2f}")
    return " + ".join(steps)


def read_columns(folder: str | Path, *names: str) -> list[np.ndarray]:
    """Read columns of a tested run's predictions.csv: (N,) arrays of numbers, else of text."""
    path = Path(folder) / "visualizations" / "predictions.csv"
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [_to_numbers([row[name] for row in rows]) for name in names]


def _to_numbers(texts):
    try:
        return np.array(texts, float)
    except ValueError:
        return np.array(texts)
