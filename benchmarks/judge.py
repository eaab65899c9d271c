"""What tested runs are worth: numbers of an arm over its seeds, and paired differences between arms."""

import json
from itertools import combinations

import numpy as np
from classical import classical
from sklearn.metrics import adjusted_rand_score
from tested import read_columns
from unknown import judge_unknown

from metrics import cluster_measures, srcc
from run_folder import read_log
from summarize_runs import read_metrics

ROUNDS = 300  # of the bootstrap


def gather(folders):
    """An arm's numbers: {"runs": a dict a seed, "stability": …, "tested": arrays for paired_difference}."""
    runs, tested, clusterings = [], [], []
    for folder in folders:
        metrics = read_metrics(folder)
        true, predicted, clusters = read_columns(folder, "quality", "predicted_quality", "cluster")
        types, references = read_columns(folder, "type", "reference")
        runs.append({
            "srcc": metrics["srcc"],
            "srcc_without_pristine": metrics["without_pristine"]["srcc"],
            "by_type": {name: row["srcc"] for name, row in metrics["by_type"].items()},
            "weakest": min(row["srcc"] for row in metrics["by_type"].values()),
            **{name: metrics["clusters"][name] for name in ("nmi", "ari", "purity", "active", "effective")},
            "own": types_with_own_cluster(clusters, types),
            "lift": best_lift(clusters, types),
            "least_lift": min(best_lift(clusters, types).values()),
            "unknown": mean_over_unknown(folder, "auroc"),
        })  # fmt: skip
        tested.append((true, predicted, types != "pristine", references))
        clusterings.append(clusters)
    return {"runs": runs, "stability": stability(clusterings), "tested": tested}


def gather_type_head(folders):
    """The type head's own choices, taken for a clustering."""
    runs, clusterings = [], []
    for folder in folders:
        types, guesses = read_columns(folder, "type", "predicted_type")
        names, clusters = np.unique(guesses, return_inverse=True)
        measures = cluster_measures(clusters, np.unique(types, return_inverse=True)[1], len(names))
        own = types_with_own_cluster(clusters, types)
        runs.append({**measures, "own": own, "unknown": mean_over_unknown(folder, "auroc_of_type_head")})
        clusterings.append(clusters)
    return {"runs": runs, "stability": stability(clusterings), "tested": None}


def mean_over_unknown(folder, measure):
    values = [row[measure] for row in judge_unknown(folder).values()]
    return float(np.mean(values)) if values else np.nan


def stability(clusterings):
    """Mean adjusted Rand index between the clusterings of the same images by two seeds; nan of one."""
    pairs = [adjusted_rand_score(a, b) for a, b in combinations(clusterings, 2)]
    return float(np.mean(pairs)) if pairs else np.nan


def types_with_own_cluster(clusters, types):
    """The types that are the most frequent one of the cluster in which most of their images are."""
    own = []
    for name in np.unique(types):
        home = np.bincount(clusters[types == name].astype(int)).argmax()
        inside, counts = np.unique(types[clusters == home], return_counts=True)
        if inside[counts.argmax()] == name:
            own.append(str(name))
    return own


def best_lift(clusters, types):
    """{type: its share in the cluster where that is largest, over its share in all images}."""
    lifts = {}
    for name in np.unique(types):
        shares = [(types[clusters == k] == name).mean() for k in np.unique(clusters)]
        lifts[str(name)] = float(max(shares) / (types == name).mean())
    return lifts


def gather_classical(folders, images):
    """Rows of the classical measures, trained with each run's references and judged on its test."""
    rows = {}
    for folder in folders:
        true, types, references = read_columns(folder, "quality", "type", "reference")
        for name, row in classical(folder, images).items():
            arm = rows.setdefault(name, {"runs": [], "stability": np.nan, "tested": []})
            arm["runs"].append({"srcc": row["srcc"], "srcc_without_pristine": row["without_pristine"]["srcc"]})
            arm["tested"].append((true, np.array(row["predicted"]), types != "pristine", references))
    return rows


def paired_difference(row, against, seed=0):
    """{"mean", "interval"}: SRCC without pristine images less that of the other arm, seed by seed on the same images; a
    95 % bootstrap interval over references and seeds."""
    pairs = [paired_ranks(ours, theirs) for ours, theirs in zip(row["tested"], against["tested"])]
    rng, differences = np.random.default_rng(seed), []
    for _ in range(ROUNDS):
        chosen = [pairs[i] for i in rng.integers(len(pairs), size=len(pairs))]
        differences.append(np.mean([difference(*pair, rng) for pair in chosen]))
    mean = np.mean([difference(*pair) for pair in pairs])
    return {"mean": float(mean), "interval": [float(value) for value in np.percentile(differences, [2.5, 97.5])]}


def paired_ranks(ours, theirs):
    """(true, our predictions, theirs, [indices of each reference's images]), of the distorted images alone."""
    (true, predicted, distorted, references), (same, other, _, _) = ours, theirs
    assert np.array_equal(true, same), "two arms were tested on different images"
    _, groups = np.unique(references[distorted], return_inverse=True)
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
    return true[distorted], predicted[distorted], other[distorted], members


def difference(true, ours, theirs, members, rng=None):
    """Of the two SRCCs; with rng, on references drawn with replacement."""
    if rng is not None:
        drawn = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        true, ours, theirs = true[drawn], ours[drawn], theirs[drawn]
    return srcc(true, ours) - srcc(true, theirs)


def kept_and_gap(folder, epochs):
    """(least share of images that kept their cluster at a refit in the second half of training, least log-likelihood of
    a refit less that of a fresh fit, nats an image)."""
    watched = [json.loads(line) for line in (folder / "refits.jsonl").read_text().splitlines()]
    refits = [line["epoch"] for line in read_log(folder) if line["refit"]]
    late = [line["kept"] for epoch, line in zip(refits, watched) if epoch >= epochs / 2 and line["kept"] is not None]
    return min(late, default=np.nan), min(line["log_likelihood"] - line["fresh_log_likelihood"] for line in watched)
