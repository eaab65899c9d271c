"""What tested runs are worth: numbers of an arm over its seeds, and paired differences between arms."""

from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score, roc_auc_score

from ablations.tested import read_columns, tested_dataset
from distorted_dataset import DistortedImageDataset
from distortions.registry import DISTORTION_TYPES, DISTORTIONS
from evaluation.metrics import ACTIVE_SHARE, cluster_measures, srcc
from models import load_run
from training.checkpointing import read_metrics
from utils.errors import UserError
from utils.files import null_to_nan, read_json, read_lines, write_json

ROUNDS = 300  # of the bootstrap


def gather(folders):
    """An arm's numbers: {"digest" of its test, "runs": a dict a seed, "stability": see there, "tested": a dict of
    arrays a seed, for paired_difference}."""
    runs, tested = [], []
    for folder in folders:
        metrics, table = read_metrics(folder), read_test(folder)
        inside = {name: row["srcc"] for name, row in metrics["by_type"].items()}
        lifts = best_lifts(table["clusters"], table["types"])
        runs.append({
            "srcc": metrics["srcc"],
            "srcc_without_pristine": metrics["without_pristine"]["srcc"],
            "by_type": inside,
            "weakest": min(inside.values(), default=np.nan),
            **{name: metrics["clusters"][name] for name in ("nmi", "ari", "purity", "active", "effective")},
            "own": types_with_own_cluster(table["clusters"], table["types"]),
            "lifts": lifts,
            "least_lift": min(lifts.values()),
            "unknown": mean_over_unknown(folder, "auroc"),
        })  # fmt: skip
        tested.append(table)
    clusterings = [table["clusters"] for table in tested]
    return {
        "digest": same_digest(folders),
        "runs": runs,
        "stability": stability(clusterings),
        "tested": tested,
    }


def read_test(folder):
    names = ("quality", "predicted_quality", "cluster", "type", "photograph")
    true, predicted, clusters, types, photographs = read_columns(folder, *names)
    return {"true": true, "predicted": predicted, "clusters": clusters.astype(int), "types": types,
            "photographs": photographs}  # fmt: skip


def same_digest(folders):
    digests = {read_metrics(folder)["digest"] for folder in folders}
    if len(digests) > 1:
        raise UserError(
            f"{folders[0].name} and the runs of its other seeds were tested on different images"
        )
    return digests.pop()


def gather_type_head(folders):
    """The type head's own choices, taken for a clustering."""
    runs, clusterings = [], []
    for folder in folders:
        types, guesses = read_columns(folder, "type", "predicted_type")
        names, clusters = np.unique(guesses, return_inverse=True)
        measures = cluster_measures(clusters, np.unique(types, return_inverse=True)[1], len(names))
        own, lifts = types_with_own_cluster(clusters, types), best_lifts(clusters, types)
        unknown = mean_over_unknown(folder, "auroc_of_type_head")
        runs.append({**measures, "own": own, "least_lift": min(lifts.values()), "unknown": unknown})
        clusterings.append(clusters)
    return {"digest": None, "runs": runs, "stability": stability(clusterings)}


def stability(clusterings):
    """Mean adjusted Rand index between the clusterings of the same images by two seeds; nan of one."""
    pairs = [adjusted_rand_score(a, b) for a, b in combinations(clusterings, 2)]
    return float(np.mean(pairs)) if pairs else np.nan


def types_with_own_cluster(clusters, types):
    """The classes that are the most frequent one of the cluster that holds the largest share of their images."""
    own = []
    for name in np.unique(types):
        home = np.bincount(clusters[types == name]).argmax()
        inside, counts = np.unique(types[clusters == home], return_counts=True)
        if inside[counts.argmax()] == name:
            own.append(str(name))
    return own


def best_lifts(clusters, types):
    """{type: its share in the active cluster where that is largest, over its share in all images}."""
    found = np.unique(clusters)
    active = [k for k in found if (clusters == k).mean() >= ACTIVE_SHARE] or found
    return {
        str(name): float(
            max((types[clusters == k] == name).mean() for k in active) / (types == name).mean()
        )
        for name in np.unique(types)
    }


def late_refits(folder, epochs):
    """Of each refit in the second half of training (the fit after it among them): (shares of images that kept their
    cluster, log-likelihoods less those of a fresh fit, nats an image)."""
    last = {
        line["epoch"]: line for line in read_lines(folder / "refits.jsonl", "train the run anew")
    }.values()  # a resumed run may have a refit twice
    late = [line for line in last if line["epoch"] >= epochs / 2 and line["kept"] is not None]
    return [line["kept"] for line in late], [
        line["log_likelihood"] - line["fresh_log_likelihood"] for line in late
    ]


def paired_difference(row, against, seed=0):
    """{"each" seed's, "interval"}: SRCC without pristine images less that of the other arm, seed by seed on the same
    images; a 95 % bootstrap interval of the seeds' mean over photographs (nan for one), which says nothing about other
    seeds."""
    pairs = [distorted_pair(ours, theirs) for ours, theirs in zip(row["tested"], against["tested"])]
    photographs = row["tested"][0]["photographs"][row["tested"][0]["types"] != "pristine"]
    members = [np.flatnonzero(photographs == photograph) for photograph in np.unique(photographs)]
    each = [difference(*pair) for pair in pairs]
    if len(members) < 2:
        return {"each": each, "interval": [np.nan, np.nan]}
    rng, differences = np.random.default_rng(seed), []
    for _ in range(ROUNDS):  # the seeds share their test images, so they share what is drawn
        drawn = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        differences.append(
            np.mean([difference(*(values[drawn] for values in pair)) for pair in pairs])
        )
    return {
        "each": each,
        "interval": [float(value) for value in np.percentile(differences, [2.5, 97.5])],
    }


def distorted_pair(ours, theirs):
    """(true, our predictions, theirs) of the distorted images."""
    distorted = ours["types"] != "pristine"
    return ours["true"][distorted], ours["predicted"][distorted], theirs["predicted"][distorted]


def difference(true, ours, theirs):
    return srcc(true, ours) - srcc(true, theirs)


def mean_over_unknown(folder, measure):
    """Over the registered distortions beside the default eight, which no arm is trained on."""
    values = [
        row[measure] for name, row in judge_unknown(folder).items() if name not in DISTORTION_TYPES
    ]
    return float(np.mean(values)) if values else np.nan


def judge_unknown(folder):
    """{name: measures} for every registered distortion that the run was not trained on: the references of the run's
    test, each distorted once, against all images of that test. Kept in the run's visualizations/unknown.json."""
    tested, figures = read_metrics(folder), Path(folder) / "visualizations"
    path = figures / "unknown.json"
    names = [name for name in DISTORTIONS if name not in tested["by_type"]]
    if path.is_file() and path.stat().st_mtime > (figures / "metrics.json").stat().st_mtime:
        found = null_to_nan(read_json(path, "delete it, and it is made again"))
        if list(found) == names:
            return found
    run = load_run(folder, tested["checkpoint"])
    known = dict(
        zip(
            ("likelihoods", "confidences"),
            read_columns(folder, "log_likelihood", "type_probability"),
        )
    )
    references = tested_dataset(run, tested).references
    found = {
        name: judge_one(name, run, references, known, tested["test"]["seed"]) for name in names
    }
    write_json(path, found)
    return found


def judge_one(name, run, references, known, seed):
    """{"auroc" of the log-likelihood, "auroc_of_type_head", "flagged": share below the threshold, "srcc" inside}. The
    type head's flag is its largest probability (Hendrycks and Gimpel, "A baseline for detecting misclassified and
    out-of-distribution examples in neural networks", ICLR 2017)."""
    dataset = DistortedImageDataset(references, (name,), 1, seed, "test", redistort=False)
    distorted = torch.nonzero(dataset.labels.type == 0)[:, 0]
    answers = run.predict(dataset.images(distorted))
    confidences = answers.type_probabilities.max(1) if answers.type_probabilities.size else None
    return {
        "auroc": auroc(known["likelihoods"], answers.log_likelihoods),
        "auroc_of_type_head": np.nan
        if confidences is None
        else auroc(known["confidences"], confidences),
        "flagged": float(answers.unknown.mean()),
        "srcc": srcc(dataset.labels.quality[distorted].double().numpy(), answers.qualities),
    }


def auroc(known, unknown):
    """The chance that an unknown value is below a known one."""
    values = np.concatenate([known, unknown]).astype(np.float32)
    return float(roc_auc_score(np.arange(len(values)) >= len(known), -values))
