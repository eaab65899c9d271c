"""The figures that a test of a run draws."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from distorted_dataset import DistortedImageDataset
from distortions.registry import DISTORTIONS
from evaluation import plots
from models.inference import Predictions
from utils.drawing import LONGEST_NAME, default_style, save_figure, shorten

TSNE_IMAGES = 3000  # at most: t-SNE of more takes long and shows no more
EXAMPLES = 8  # images in a row of the samples figure
EXAMPLE_POOL = 40 * EXAMPLES  # images that the first row is chosen from


def list_figures(
    dataset: DistortedImageDataset,
    predictions: Predictions,
    metrics: dict[str, Any],
    log: list[dict[str, Any]],
    skip_tsne: bool = False,
) -> dict[str, Callable[[], Figure]]:
    """Return {file name without ending: what draws it}, in the order in which they are best read.

    metrics: what metrics.json holds. log: a dict for each epoch of training.
    """
    run = shorten(metrics["run"], LONGEST_NAME)
    references = shorten(metrics["references"], LONGEST_NAME)
    images = f"{metrics['images']} held-out images from {references}"
    subtitle = f"{run}, {images}"
    figures = {
        **_quality_figures(dataset, predictions, metrics, subtitle),
        **_cluster_figures(dataset, predictions, metrics, subtitle),
        **_embedding_figures(dataset, predictions, run, images, skip_tsne),
        "samples": partial(_samples_figure, dataset, predictions, subtitle),
    }
    if log:
        source = f"{run}, trained on {shorten(metrics['trained_on'], LONGEST_NAME)}"
        figures["training_curves"] = partial(plots.plot_training_curves, log, source)
    return figures


def draw(function: Callable[[], Figure], path: Path) -> None:
    """Draw a figure and write it to a file."""
    with default_style():
        figure = function()
    save_figure(figure, path)


def _quality_figures(dataset, predictions, metrics, subtitle):
    labels = dataset.labels
    types = labels.main_type.numpy()
    figures = {
        "predicted_vs_true": partial(
            plots.plot_predicted_vs_true,
            true=labels.quality.double().numpy(),
            predicted=predictions.qualities,
            types=types,
            class_names=dataset.class_names,
            srcc=metrics["srcc"],
            interval=metrics["srcc_interval"],
            subtitle=subtitle,
        )
    }
    by_type = metrics["by_type"]
    if by_type:
        figures["srcc_by_type"] = partial(
            plots.plot_srcc_by_type,
            values=np.array([row["srcc"] for row in by_type.values()], float),
            names=list(by_type),
            overall=metrics["without_pristine"]["srcc"],
            subtitle=subtitle,
        )
    figures["quality_vs_level"] = partial(
        plots.plot_quality_vs_level,
        levels=labels.main_level.numpy(),
        predicted=predictions.qualities,
        types=types,
        names=dataset.types,
        worst=[DISTORTIONS[name].worst_quality for name in dataset.types],
        subtitle=subtitle,
    )
    return figures


def _cluster_figures(dataset, predictions, metrics, subtitle):
    class_names = dataset.class_names
    clusters = predictions.clusters
    n_clusters = predictions.responsibilities.shape[1]
    counts = np.zeros((n_clusters, len(class_names)), int)
    np.add.at(counts, (clusters, dataset.labels.main_type.numpy()), 1)
    names = [f"{k}: {name}" for k, name in enumerate(metrics["clusters"]["names"])]
    return {
        "cluster_distribution": partial(
            plots.plot_cluster_distribution, counts, class_names, names, subtitle
        ),
        "cluster_by_type": partial(plots.plot_cluster_by_type, counts, class_names, subtitle),
        "quality_by_cluster": partial(
            plots.plot_quality_by_cluster,
            true=dataset.labels.quality.double().numpy(),
            predicted=predictions.qualities,
            clusters=clusters,
            n_clusters=n_clusters,
            subtitle=subtitle,
        ),
    }


def _embedding_figures(dataset, predictions, run_name, images, skip_tsne):
    labels = dataset.labels
    embeddings = predictions.embeddings.astype(np.float64)
    spread = np.maximum(embeddings.std(0), 1e-9)
    standardised = (embeddings - embeddings.mean(0)) / spread
    order = np.random.default_rng(0).permutation(len(embeddings))
    sample = np.sort(order[:TSNE_IMAGES])

    def plot_sample(points, method, axis_names=("", "")):
        return plots.plot_embedding(
            points=points,
            types=labels.main_type.numpy()[sample],
            class_names=dataset.class_names,
            clusters=predictions.clusters[sample],
            n_clusters=predictions.responsibilities.shape[1],
            true=labels.quality.double().numpy()[sample],
            method=method,
            subtitle=f"{run_name}, {len(sample)} of {images}",
            axis_names=axis_names,
        )

    def plot_tsne():
        return plot_sample(tsne(standardised[sample]), "t-SNE")

    def plot_pca():
        points, axis_names = pca(standardised)
        return plot_sample(points[sample], "PCA", axis_names)

    return {"pca": plot_pca} if skip_tsne else {"tsne": plot_tsne, "pca": plot_pca}


def tsne(standardised: np.ndarray) -> np.ndarray:
    """Return (N, 2) t-SNE of standardised embeddings (N, D)."""
    from sklearn.manifold import TSNE

    count = len(standardised)
    print(f"t-SNE of {count} images …", flush=True)
    perplexity = min(30, (count - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(standardised)


def pca(standardised: np.ndarray) -> tuple[np.ndarray, tuple[str, str]]:
    """Return (N, 2) scores on the first two principal components, and names with their variance."""
    from sklearn.decomposition import PCA

    model = PCA(2, svd_solver="full").fit(standardised)
    first, second = 100 * model.explained_variance_ratio_
    names = (
        f"component 1 ({first:.0f} % of variance)",
        f"component 2 ({second:.0f} % of variance)",
    )
    return model.transform(standardised), names


def _samples_figure(dataset, predictions, subtitle):
    """Draw typical images over the range of quality, and those scored best and worst."""
    labels = dataset.labels
    true = labels.quality.double().numpy()
    error = np.abs(predictions.qualities - true)
    pool = np.random.default_rng(0).permutation(len(true))[:EXAMPLE_POOL]
    pool = pool[np.argsort(-true[pool])]
    places = np.linspace(0, len(pool) - 1, min(EXAMPLES, len(pool))).round().astype(int)
    distorted = np.flatnonzero(labels.main_type.numpy() < len(dataset.types))
    by_error = distorted[np.argsort(error[distorted], kind="stable")]
    rows = {
        "by true quality": pool[places],
        "best scored": by_error[:EXAMPLES],
        "worst scored": by_error[::-1][:EXAMPLES],
    }
    images = {}
    captions = {}
    for i in np.concatenate(list(rows.values())):
        item = dataset[int(i)]
        images[i] = item.image.permute(1, 2, 0).numpy()
        level = f" {item.level:.2f}" if item.level > 0 else ""
        scores = f"predicted {predictions.qualities[i]:.0f}, true {true[i]:.0f}"
        name = shorten(item.type.replace("_", " "), 20)
        captions[i] = f"{name}{level}\n{scores}\ncluster {predictions.clusters[i]}"
    return plots.plot_samples(images, captions, rows, subtitle)
