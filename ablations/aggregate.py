"""What tested runs are worth: an ablation's numbers over its seeds, and paired differences.

An ablation's numbers are a row: {"digest" of its test, "runs": a dict for each seed, "stability"
between seeds, "tested": arrays for each seed}. All but "tested" goes into the results' file.
"""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_rand_score

from ablations.unknown import measure_unknown
from distortions.registry import DISTORTION_TYPES
from evaluation.clusters import ACTIVE_SHARE, cluster_measures
from evaluation.metrics import srcc
from evaluation.results import read_columns, read_log, read_metrics, srcc_changes
from utils.errors import UserError
from utils.files import read_json, read_lines

BOOTSTRAP_ROUNDS = 300
TEST_COLUMNS = {  # of predictions.csv
    "true": "quality",
    "predicted": "predicted_quality",
    "clusters": "cluster",
    "types": "type",
    "photographs": "photograph",
}
CLUSTER_MEASURES = ("nmi", "ari", "purity", "active", "effective")


def aggregate(folders: Sequence[Path]) -> dict[str, Any]:
    """Return the row of an ablation from its runs' folders, one for each seed."""
    tests = [read_test(folder) for folder in folders]
    return {
        "digest": shared_digest(folders),
        "runs": [measure_run(folder, test) for folder, test in zip(folders, tests)],
        "stability": stability([test["clusters"] for test in tests]),
        "tested": tests,
    }


def measure_run(folder: Path, test: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return one run's numbers."""
    metrics = read_metrics(folder)
    inside = {name: row["srcc"] for name, row in metrics["by_type"].items()}
    lifts = best_lifts(test["clusters"], test["types"])
    unknown = measure_unknown(folder)
    config = read_json(folder / "config.json", "train the run anew")
    return {
        "seed": metrics["seed"],
        "commit": config["git_commit"],
        "srcc": metrics["srcc"],
        "srcc_without_pristine": metrics["without_pristine"]["srcc"],
        "by_type": inside,
        "weakest": min(inside.values(), default=np.nan),
        **{name: metrics["clusters"][name] for name in CLUSTER_MEASURES},
        "own": types_with_own_cluster(test["clusters"], test["types"]),
        "lifts": lifts,
        "least_lift": min(lifts.values()),
        "unknown": mean_over_unknown(unknown, "auroc"),
        "unknown_by_type": unknown,
        **measure_refits(folder, config["epochs"]),
    }


def measure_refits(folder: Path, epochs: int) -> dict[str, Any]:
    """Return what a run's refits did.

    "late_kept" and "late_gaps" are lists over the refits of the second half of training, the fit
    after it among them: the share of images that kept their cluster, and the log-likelihood less
    that of a fit from scratch, in nats an image. "fewest_active" is the fewest clusters that were
    active in validation, in any epoch after the first fit. "srcc_changes" are those of validation
    from each epoch to the next, "refit_epochs" count from 0.
    """
    log = read_log(folder)
    active = [line["active_clusters"] for line in log if "active_clusters" in line]
    kept = []
    gaps = []
    # A resumed run may have a refit twice: the last one counts.
    lines = read_lines(folder / "refits.jsonl", "train the run anew")
    for line in {line["epoch"]: line for line in lines}.values():
        if line["epoch"] >= epochs / 2 and line["kept"] is not None:
            kept.append(line["kept"])
            gaps.append(line["log_likelihood"] - line["fresh_log_likelihood"])
    return {
        "late_kept": kept,
        "late_gaps": gaps,
        "fewest_active": min(active, default=None),
        "refit_epochs": [line["epoch"] for line in log if line["refit"]],
        "srcc_changes": list(srcc_changes(folder).values()),
    }


def read_test(folder: Path) -> dict[str, np.ndarray]:
    """Return arrays (N,) over the images of a run's test."""
    arrays = read_columns(folder, *TEST_COLUMNS.values())
    test = dict(zip(TEST_COLUMNS, arrays))
    return {**test, "clusters": test["clusters"].astype(int)}


def shared_digest(folders: Sequence[Path]) -> str:
    """Return the digest of the test images of runs, or raise UserError if they differ."""
    digests = {read_metrics(folder)["digest"] for folder in folders}
    if len(digests) > 1:
        raise UserError(
            f"{folders[0].name} and the runs of its other seeds were tested on different images"
        )
    return digests.pop()


def aggregate_type_head(folders: Sequence[Path]) -> dict[str, Any]:
    """Return a row for the type head's own choices, taken for a clustering."""
    runs = []
    clusterings = []
    for folder in folders:
        types, guesses = read_columns(folder, "type", "predicted_type")
        names, clusters = np.unique(guesses, return_inverse=True)
        _, type_numbers = np.unique(types, return_inverse=True)
        clusterings.append(clusters)
        runs.append(
            {
                **cluster_measures(clusters, type_numbers, len(names)),
                "own": types_with_own_cluster(clusters, types),
                "least_lift": min(best_lifts(clusters, types).values()),
                "unknown": mean_over_unknown(measure_unknown(folder), "auroc_of_type_head"),
            }
        )
    return {"digest": None, "runs": runs, "stability": stability(clusterings)}


def mean_over_unknown(unknown: dict[str, dict[str, float]], measure: str) -> float:
    """Average over the distortions beside the default eight, which no ablation is trained on."""
    values = [row[measure] for name, row in unknown.items() if name not in DISTORTION_TYPES]
    return float(np.mean(values)) if values else np.nan


def stability(clusterings: Sequence[np.ndarray]) -> float:
    """Average the adjusted Rand index between clusterings of the same images; nan of one."""
    pairs = [adjusted_rand_score(a, b) for a, b in combinations(clusterings, 2)]
    return float(np.mean(pairs)) if pairs else np.nan


def types_with_own_cluster(clusters: np.ndarray, types: np.ndarray) -> list[str]:
    """Return the types that are the most frequent one of the cluster with most of their images."""
    own = []
    for name in np.unique(types):
        main_cluster = np.bincount(clusters[types == name]).argmax()
        inside, counts = np.unique(types[clusters == main_cluster], return_counts=True)
        if inside[counts.argmax()] == name:
            own.append(str(name))
    return own


def best_lifts(clusters: np.ndarray, types: np.ndarray) -> dict[str, float]:
    """Return {type: its largest share in an active cluster, over its share in all images}."""
    found = np.unique(clusters)
    active = [k for k in found if (clusters == k).mean() >= ACTIVE_SHARE] or found
    lifts = {}
    for name in np.unique(types):
        is_type = types == name
        largest = max(is_type[clusters == k].mean() for k in active)
        lifts[str(name)] = float(largest / is_type.mean())
    return lifts


def paired_difference(
    row: dict[str, Any], against: dict[str, Any], seed: int = 0
) -> dict[str, list[float]]:
    """Compare SRCC without pristine images with another ablation's, on the same images.

    Returns {"each": the difference of each seed, "interval": a 95 % bootstrap interval of the
    seeds' mean over photographs}. The interval is nan of a single photograph, and says nothing
    about other seeds.
    """
    pairs = []
    for ours, theirs in zip(row["tested"], against["tested"]):
        distorted = ours["types"] != "pristine"
        columns = (ours["true"], ours["predicted"], theirs["predicted"])
        pairs.append([column[distorted] for column in columns])
    each = [_difference(*pair) for pair in pairs]

    first = row["tested"][0]
    photographs = first["photographs"][first["types"] != "pristine"]
    members = [np.flatnonzero(photographs == photograph) for photograph in np.unique(photographs)]
    if len(members) < 2:
        return {"each": each, "interval": [np.nan, np.nan]}
    random = np.random.default_rng(seed)
    means = []
    for _ in range(BOOTSTRAP_ROUNDS):
        # The seeds share their test images, so they share the photographs that are drawn.
        drawn = random.integers(len(members), size=len(members))
        images = np.concatenate([members[i] for i in drawn])
        means.append(np.mean([_difference(*(column[images] for column in pair)) for pair in pairs]))
    return {"each": each, "interval": np.percentile(means, [2.5, 97.5]).tolist()}


def _difference(true, ours, theirs):
    return srcc(true, ours) - srcc(true, theirs)
