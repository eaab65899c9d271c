"""Test a run on references that it never saw: metrics, a table, predictions and figures.

    python test_with_viz.py --experiment experiments/resnet18_distorted
    python test_with_viz.py --experiment experiments/resnet18_distorted --references path/to/images --skip_tsne

Everything lands in the run's visualizations/ folder.
"""

import argparse
import csv
import io
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from distortions.standard import DISTORTIONS
from evaluation.evaluate import held_out_dataset
from evaluation.metrics import (
    bootstrap_intervals,
    cluster_measures,
    cluster_names,
    quality_measures,
    rmse,
    srcc,
)
from evaluation.report import table
from models import load_run
from models.inference import Predictions
from references.sources import resolve_source
from training.checkpointing import read_log
from utils.cli import MAX_SEED, HelpFormatter, run_script, whole
from utils.errors import UserError
from utils.files import naming, write_atomically, write_json

TSNE_IMAGES = 3000  # at most; t-SNE of more takes long and shows no more
EXAMPLES = 8  # images a row of the samples figure


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add(
        "--experiment",
        required=True,
        help="the run's folder, such as experiments/resnet18_distorted",
    )
    add(
        "--checkpoint",
        choices=("best", "last"),
        default="best",
        help="chosen by validation SRCC, or the last epoch's",
    )
    add("--test_samples", type=whole(2), default=500, help="held-out references, at most")
    add(
        "--references",
        help="test on 'cifar10', 'photos' or a folder (default: the run's own source)",
    )
    add("--data_root", help="folder that holds CIFAR-10, or gets it (default: the run's)")
    add(
        "--cache_dir",
        help="pack a folder's images into a file here, once, and read them from it (default: from memory)",
    )
    add(
        "--seed",
        type=whole(0, MAX_SEED),
        help="choice of test references and their draws (default: the run's --data_seed)",
    )
    add(
        "--distortions_per_image",
        type=whole(1),
        help="of each held-out reference (default: the run's)",
    )
    add("--skip_tsne", action="store_true", help="leave out the t-SNE figure, the slowest")
    add(
        "--device",
        default="auto",
        help="'cpu', 'cuda', 'cuda:1', or 'auto': cuda where there is one",
    )
    return parser.parse_args(argv)


def main(args):
    run, log = load_run(args.experiment, args.checkpoint, args.device), read_log(args.experiment)
    dataset, test = load_test(args, run)
    predictions = predict(run, dataset)
    metrics = {**measure(args, run, dataset, predictions), "test": test, "figures": []}
    folder = Path(args.experiment) / "visualizations"
    with tempfile.TemporaryDirectory(prefix="test.", dir=args.experiment) as new:
        new = Path(new)
        write_predictions(new / "predictions.csv", dataset, predictions)
        for name, figure in figures(args, run, log, dataset, predictions, metrics):
            with naming(new / f"{name}.png"):
                figure.savefig(new / f"{name}.png", dpi=100)
            metrics["figures"].append(f"{name}.png")
        write_json(new / "metrics.json", metrics)
        replace_results(folder, new, ["predictions.csv", *metrics["figures"]])
    files = [
        str(folder / name) for name in ("metrics.json", "predictions.csv", *metrics["figures"])
    ]
    print("\n".join(["", *table(metrics), "", *files]))


def replace_results(folder, new, names):
    """Put a test's files in the place of an earlier one's. metrics.json, which vouches for the rest, goes first and comes
    last."""
    folder.mkdir(exist_ok=True)
    for old in (folder / "metrics.json", *folder.glob("*.png")):
        old.unlink(missing_ok=True)
    for name in (*names, "metrics.json"):
        os.replace(new / name, folder / name)


def load_test(args, run):
    """(dataset, what it is for metrics.json): the run's own held-out references, or others that the flags name."""
    config = run.config
    unknown = [name for name in config["types"] if name not in DISTORTIONS]
    if unknown:
        raise UserError(
            f"{args.experiment} was trained on {unknown[0]!r}, which distortions.py does not have"
        )
    data_root = args.data_root or config["data_root"]
    references, warning = resolve_source(args.references or config["references"], data_root)
    if warning:
        print(f"warning: {warning}")
    test = {
        "references": references,
        "data_root": data_root,
        "seed": config["data_seed"] if args.seed is None else args.seed,
        "samples": args.test_samples,
        "distortions_per_image": args.distortions_per_image or config["distortions_per_image"],
    }
    dataset, dropped = held_out_dataset(run, test, args.cache_dir)
    if dropped:
        print(f"{dropped} images left out: the run was trained or validated on them")
    count, source = len(dataset.references), dataset.references.source
    if count < args.test_samples:
        print(
            f"{count} test references, all that {source} has (--test_samples {args.test_samples})"
        )
    return dataset, test


def predict(run, dataset):
    """Predictions in the dataset's order."""
    device, answers = next(run.model.parameters()).device, []
    with tqdm(total=len(dataset), desc="predicting", unit="image", leave=False) as bar:
        for batch, _ in dataset.batches(torch.arange(len(dataset)), 256, device):
            answers.append(run.predict(batch))
            bar.update(len(batch))
    return Predictions(*(np.concatenate(values) for values in zip(*answers)))


def measure(args, run, dataset, predictions):
    """Everything that metrics.json holds; intervals are by photograph (each reference its own, where it is no crop)."""
    config, labels, n_clusters = run.config, dataset.labels, predictions.responsibilities.shape[1]
    true, types = labels.quality.double().numpy(), labels.type.numpy()
    photographs = dataset.references.photographs[labels.reference.numpy()]
    distorted = types < len(dataset.types)

    def quality(chosen):
        values = quality_measures(true[chosen], predictions.qualities[chosen])
        intervals = bootstrap_intervals(
            true[chosen], predictions.qualities[chosen], photographs[chosen]
        )
        return values | {f"{name}_interval": interval for name, interval in intervals.items()}

    directions = direction_words(types, labels.direction.numpy(), dataset.types)
    names = cluster_names(
        predictions.clusters, types, directions, true, dataset.class_names, n_clusters
    )
    return {
        "run": Path(args.experiment).resolve().name,
        "checkpoint": args.checkpoint,
        "epoch": run.epoch + 1,
        "seed": config["seed"],
        "trained_on": config["references_name"],
        "references": dataset.references.source,
        "test_references": len(dataset.references),
        "photographs": len(np.unique(photographs)),
        "digest": dataset.digest(),
        "images": len(dataset),
        **quality(np.ones(len(true), bool)),
        "without_pristine": {"images": int(distorted.sum()), **quality(distorted)},
        "by_type": by_type(true, predictions.qualities, types, dataset.types),
        "clusters": {**cluster_measures(predictions.clusters, types, n_clusters), "names": names},
        "unknown": {
            "log_likelihood_below": run.mixture.unknown_below.item(),
            "flagged": float(predictions.unknown.mean()),
        },
    }


def direction_words(types, directions, names):
    """(N,) 'low', 'high', … or '' where the type has no direction, or the image no type."""
    words = np.array([*(DISTORTIONS[name].directions or ("", "") for name in names), ("", "")])
    return words[types, (directions > 0).astype(int)]


def by_type(true, predicted, types, names):
    """{type: its SRCC, RMSE and number of images}."""
    rows = {}
    for i, name in enumerate(names):
        inside = types == i
        if inside.sum() >= 3:
            pair = true[inside], predicted[inside]
            rows[name] = {"srcc": srcc(*pair), "rmse": rmse(*pair), "images": int(inside.sum())}
    return rows


def write_predictions(path, dataset, predictions):
    """A row an image."""
    labels, guesses = dataset.labels, predictions.type_probabilities
    header = ("image", "reference", "photograph", "steps", "type", "direction", "level", "quality",
              "predicted_quality", "cluster", "responsibility", "predicted_type",
              "type_probability", "log_likelihood", "unknown")  # fmt: skip
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(header)
    for i in range(len(dataset)):
        numbers = labels.level[i], labels.quality[i], predictions.qualities[i]
        level, true, predicted = (f"{value:.4f}" for value in numbers)
        cluster = predictions.clusters[i]
        guess = (
            (dataset.class_names[guesses[i].argmax()], f"{guesses[i].max():.9g}")
            if guesses.size
            else ("", "")
        )
        table.writerow(
            (i, dataset.references.names[labels.reference[i]],
             dataset.references.photographs[labels.reference[i]], steps_in_words(dataset, i),
             dataset.class_names[labels.type[i]], labels.direction[i].item(), level, true, predicted, cluster,
             f"{predictions.responsibilities[i, cluster]:.4f}", *guess,
             f"{predictions.log_likelihoods[i]:.9g}", int(predictions.unknown[i]))
        )  # fmt: skip
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def steps_in_words(dataset, i):
    """All of an image's distortions in their order: 'gaussian_blur 0.52 + rain 0.31'."""
    labels = dataset.labels
    steps = [
        (t, level)
        for t, level in zip(labels.steps[i].tolist(), labels.step_level[i].tolist())
        if t >= 0
    ]
    return " + ".join(f"{dataset.types[t]} {level:.2f}" for t, level in steps)


def figures(args, run, log, dataset, predictions, metrics):
    """Yield (file name, Figure) in the order in which they are best read."""
    from evaluation import plots  # a slow import, not needed for --help

    labels, classes, types = dataset.labels, dataset.class_names, dataset.labels.type.numpy()
    true, predicted, clusters = (
        labels.quality.double().numpy(),
        predictions.qualities,
        predictions.clusters,
    )
    n_clusters = predictions.responsibilities.shape[1]
    images_from = f"{metrics['images']} held-out images from {metrics['references']}"
    subtitle = f"{metrics['run']}, {images_from}"
    counts = np.zeros((n_clusters, len(classes)), int)
    np.add.at(counts, (clusters, types), 1)
    within = metrics["by_type"]

    yield (
        "predicted_vs_true",
        plots.plot_predicted_vs_true(
            true, predicted, types, classes, metrics["srcc"], metrics["srcc_interval"], subtitle
        ),
    )
    if within:
        values, overall = (
            np.array([row["srcc"] for row in within.values()]),
            metrics["without_pristine"]["srcc"],
        )
        yield "srcc_by_type", plots.plot_srcc_by_type(values, list(within), overall, subtitle)
    worst = [DISTORTIONS[name].worst_quality for name in dataset.types]
    level = labels.level.numpy()
    yield (
        "quality_vs_level",
        plots.plot_quality_vs_level(level, predicted, types, dataset.types, worst, subtitle),
    )
    cluster_labels = [f"{k}: {name}" for k, name in enumerate(metrics["clusters"]["names"])]
    yield (
        "cluster_distribution",
        plots.plot_cluster_distribution(counts, classes, cluster_labels, subtitle),
    )
    yield "cluster_by_type", plots.plot_cluster_by_type(counts, classes, subtitle)
    yield (
        "quality_by_cluster",
        plots.plot_quality_by_cluster(true, predicted, clusters, n_clusters, subtitle),
    )
    some = np.sort(np.random.default_rng(0).permutation(len(true))[:TSNE_IMAGES])
    z = predictions.embeddings.astype(np.float64)
    z = (z - z.mean(0)) / np.maximum(z.std(0), 1e-9)
    sampled = f"{metrics['run']}, {len(some)} of {images_from}"
    shown = types[some], classes, clusters[some], n_clusters, true[some]
    if not args.skip_tsne:
        yield "tsne", plots.plot_embedding(tsne(z[some]), *shown, "t-SNE", sampled)
    points, axis_names = pca(z)
    yield "pca", plots.plot_embedding(points[some], *shown, "PCA", sampled, axis_names)
    yield "samples", samples_figure(dataset, predictions, subtitle)
    if log:
        source = f"{metrics['run']}, trained on {metrics['trained_on']}"
        yield "training_curves", plots.plot_training_curves(log, source)


def tsne(z):
    from sklearn.manifold import TSNE

    perplexity = min(30, (len(z) - 1) / 3)
    print(f"t-SNE of {len(z)} images …", flush=True)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(z)


def pca(z):
    """((N, 2) scores on the first two principal components, their names with the share of variance)."""
    from sklearn.decomposition import PCA

    model = PCA(2, svd_solver="full").fit(z)
    names = tuple(
        f"component {i + 1} ({100 * share:.0f} % of variance)"
        for i, share in enumerate(model.explained_variance_ratio_)
    )
    return model.transform(z), names


def samples_figure(dataset, predictions, subtitle):
    """Typical images over the range of quality, and those scored best and worst."""
    from evaluation.plots import plot_samples  # a slow import, not needed for --help

    labels = dataset.labels
    true, error = (
        labels.quality.double().numpy(),
        np.abs(predictions.qualities - labels.quality.double().numpy()),
    )
    by_quality = np.random.default_rng(0).permutation(len(true))[: 40 * EXAMPLES]
    by_quality = by_quality[np.argsort(-true[by_quality])]
    spread = by_quality[
        np.linspace(0, len(by_quality) - 1, min(EXAMPLES, len(by_quality))).round().astype(int)
    ]
    distorted = np.flatnonzero(labels.type.numpy() < len(dataset.types))
    order = distorted[np.argsort(error[distorted], kind="stable")]
    rows = [
        ("by true quality", spread),
        ("best scored", order[:EXAMPLES]),
        ("worst scored", order[::-1][:EXAMPLES]),
    ]
    captions = {}
    for i in np.concatenate([indices for _, indices in rows]):
        what = dataset.class_names[labels.type[i]].replace("_", " ")
        level = f" {labels.level[i]:.2f}" if labels.level[i] > 0 else ""
        scores = f"predicted {predictions.qualities[i]:.0f}, true {true[i]:.0f}"
        captions[i] = f"{what}{level}\n{scores}\ncluster {predictions.clusters[i]}"
    images = {i: dataset.images(torch.tensor([i]))[0].numpy() for i in captions}
    return plot_samples(images, captions, rows, subtitle)


if __name__ == "__main__":
    run_script(main, parse_args)
