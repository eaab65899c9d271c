"""Classical blind quality measures on the very references, images and labels of a tested run:

- brisque_svr: the 36 natural-scene statistics of BRISQUE (Mittal, Moorthy and Bovik, "No-reference image quality
  assessment in the spatial domain", IEEE TIP 2012), and on them a support-vector regressor trained on redrawn images of
  the run's training references; its constants are chosen on the run's validation images.
- niqe_like: minus the distance of the same statistics from those of the pristine training references (after Mittal,
  Soundararajan and Bovik, "Making a completely blind image quality analyzer", IEEE SPL 2013, with whole images in place
  of patches). It never sees a quality: the floor.
"""

import json
from pathlib import Path

import numpy as np
import torch
from piq.brisque import (
    _natural_scene_statistics,  # the 18 of one scale; piq's public function hides them in its score
)
from piq.functional import imresize, rgb2yiq
from sklearn.covariance import LedoitWolf
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from tqdm import tqdm

from ablations.judge import read_test, same_digest
from ablations.tested import tested_dataset
from distorted_dataset import DistortedImageDataset
from evaluation.metrics import srcc
from models import load_run
from references.sources import load_training_references
from training.checkpointing import read_metrics
from utils.errors import UserError
from utils.files import write_json

SVR_GRID = [{"C": C, "gamma": gamma} for C in (10, 50, 200, 1000) for gamma in (0.003, 0.01, 0.03)]
GRID_IMAGES = 6000  # of training, to choose from the grid


def gather_classical(folders, images):
    """Rows of the classical measures, trained with each run's references and judged on its test."""
    rows, digest = {}, same_digest(folders)
    for folder in folders:
        for name, row in classical(folder, images).items():
            arm = rows.setdefault(
                name, {"digest": digest, "runs": [], "stability": np.nan, "tested": []}
            )
            arm["runs"].append(
                {"srcc": row["srcc"], "srcc_without_pristine": row["without_pristine"]["srcc"]}
            )
            arm["tested"].append(read_test(folder) | {"predicted": np.array(row["predicted"])})
    return rows


def classical(folder, images):
    """{"brisque_svr": measures, "niqe_like": measures}; "predicted" (N,) among them, in the order of the run's test.
    Kept in the run's visualizations/classical.json."""
    tested, path = read_metrics(folder), Path(folder) / "visualizations" / "classical.json"
    about = {"digest": tested["digest"], "images": images}
    if path.is_file() and json.loads(path.read_text())["about"] == about:
        return json.loads(path.read_text())["rows"]
    run = load_run(folder, tested["checkpoint"])
    config = run.config
    counts, where = (
        (config["train_samples"], config["val_samples"]),
        (config["image_size"], config["data_root"]),
    )
    references = load_training_references(
        config["references"], *counts, *where, config["data_seed"]
    )
    how = tuple(config["types"]), config["distortions_per_image"]
    train = DistortedImageDataset(
        references[0], *how, config["seed"], "train", config["compose"], flip=True
    )
    val = DistortedImageDataset(
        references[1], *how, config["data_seed"], "val", config["compose"], redistort=False
    )
    test = tested_dataset(run, tested)
    x, y, pristine = redrawn(train, images)
    x_val, x_test = statistics_of(val), statistics_of(test)
    predictions = {
        "brisque_svr": fit_regressor(x, y, x_val, qualities(val)).predict(x_test),
        "niqe_like": -(LedoitWolf().fit(x[pristine]).mahalanobis(x_test) ** 0.5),
    }
    rows = {name: judge(predicted, test) for name, predicted in predictions.items()}
    write_json(path, {"about": about, "rows": rows})
    return rows


def redrawn(dataset, images):
    """(statistics (N, 36), qualities (N,), pristine (N,) bool) of N images, drawn from as many epochs as it takes."""
    parts, epochs = [], -(-images // len(dataset))
    for epoch in tqdm(range(epochs), desc="statistics", unit="epoch", leave=False):
        dataset.set_epoch(epoch)
        parts.append(
            (
                statistics_of(dataset),
                qualities(dataset),
                dataset.labels.type.numpy() == len(dataset.types),
            )
        )
    drawn = np.random.default_rng(0).permutation(epochs * len(dataset))[:images]
    return [np.concatenate(values)[drawn] for values in zip(*parts)]


def statistics_of(dataset):
    return np.concatenate(
        [brisque_features(images) for images, _ in dataset.batches(torch.arange(len(dataset)), 256)]
    )


def brisque_features(images):
    """(B, 36) natural-scene statistics of images (B, 3, H, W) uint8: 18 at full size, 18 at half size."""
    luma, features = rgb2yiq(images.double())[:, :1].round(), []
    if (luma.flatten(1).std(1) == 0).any():
        raise UserError(
            "an image of one colour has no natural-scene statistics; leave it out of the references"
        )
    for _ in range(2):
        features.append(_natural_scene_statistics(luma))
        luma = imresize(luma, sizes=(luma.shape[2] // 2, luma.shape[3] // 2))
    return torch.cat(features, dim=1).numpy()


def qualities(dataset):
    return dataset.labels.quality.double().numpy()


def fit_regressor(x, y, x_val, y_val):
    """Chosen from SVR_GRID by SRCC on validation, then fitted to everything."""

    def fit(constants, count):
        return make_pipeline(StandardScaler(), SVR(epsilon=3, cache_size=1000, **constants)).fit(
            x[:count], y[:count]
        )

    grid = tqdm(SVR_GRID, desc="choosing", unit="fit", leave=False)
    scores = [srcc(y_val, fit(constants, GRID_IMAGES).predict(x_val)) for constants in grid]
    return fit(SVR_GRID[int(np.argmax(scores))], len(x))


def judge(predicted, dataset):
    true, distorted = qualities(dataset), dataset.labels.type.numpy() < len(dataset.types)
    return {
        "srcc": srcc(true, predicted),
        "without_pristine": {"srcc": srcc(true[distorted], predicted[distorted])},
        "predicted": predicted.tolist(),
    }
