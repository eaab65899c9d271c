"""The images that a run was tested on."""

from typing import Any

from distorted_dataset import DistortedImageDataset
from evaluation.evaluate import held_out_dataset
from models import Run
from utils.errors import UserError


def tested_dataset(run: Run, metrics: dict[str, Any]) -> DistortedImageDataset:
    """Return the test's images again; metrics is what the run's metrics.json holds.

    Raises UserError if they are no longer the same.
    """
    dataset, _ = held_out_dataset(run, metrics["test"])
    if dataset.digest() != metrics["digest"]:
        raise UserError(
            f"the test images of {metrics['run']} have changed since its test; test it again"
        )
    return dataset
