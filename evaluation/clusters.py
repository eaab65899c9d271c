"""Measures of a clustering, and what each cluster holds in words."""

import numpy as np

ACTIVE_SHARE = 0.02  # a cluster is active from this share of images on
NAMED_SHARE = 0.75  # types name a cluster until they cover so much of it, three types at most
SMALLEST_NAMED_SHARE = 0.05  # a type with less does not name a cluster
SHARED_DIRECTION = 0.8  # of a type's images in a cluster, for the direction to be named


def cluster_measures(
    clusters: np.ndarray, types: np.ndarray, n_clusters: int
) -> dict[str, int | float]:
    """Compute active and effective numbers of clusters, and the agreement with the types.

    clusters and types are (N,) int. effective is the exponential of the entropy of the clusters'
    shares, from 1 to n_clusters. nmi is normalised by the arithmetic mean of the entropies, 0–1.
    ari is the adjusted Rand index: 1 is equal and 0 is chance. purity is the share of images
    whose type is the most frequent one of their cluster.
    """
    # Slow imports, not needed for --help.
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    shares = np.bincount(clusters, minlength=n_clusters) / len(clusters)
    present = shares[shares > 0]
    return {
        "active": int((shares >= ACTIVE_SHARE).sum()),
        "effective": float(np.exp(-(present * np.log(present)).sum())),
        "nmi": float(normalized_mutual_info_score(types, clusters)),
        "ari": float(adjusted_rand_score(types, clusters)),
        "purity": float(contingency_matrix(types, clusters).max(0).sum() / len(types)),
    }


def cluster_names(
    clusters: np.ndarray,
    types: np.ndarray,
    directions: np.ndarray,
    qualities: np.ndarray,
    class_names: tuple[str, ...],
    n_clusters: int,
) -> list[str]:
    """Say for people what each cluster holds.

    For example: 'contrast (high) 71 %, motion_blur 22 %, quality 38–77'. Types are named from the
    most frequent on until they cover three quarters, with a direction where four fifths of them
    share it. Qualities are the 10th and 90th percentile. types (N,) index class_names; directions
    (N,) are words or ''.
    """
    names = []
    for k in range(n_clusters):
        inside = clusters == k
        if not inside.any():
            names.append("empty")
            continue
        parts = _name_types(types[inside], directions[inside], class_names)
        names.append(", ".join([*parts, _name_qualities(qualities[inside])]))
    return names


def _name_types(types, directions, class_names):
    """Return the names of the most frequent types with their shares."""
    shares = np.bincount(types, minlength=len(class_names)) / len(types)
    order = np.argsort(-shares, kind="stable")
    enough = min(3, 1 + int(np.searchsorted(np.cumsum(shares[order]), NAMED_SHARE)))
    parts = []
    for i in order[:enough]:
        if shares[i] > SMALLEST_NAMED_SHARE:
            direction = _shared_direction(directions[types == i])
            parts.append(f"{class_names[i]}{direction} {100 * shares[i]:.0f} %")
    return parts


def _shared_direction(directions):
    """Return ' (high)' where at least four fifths are that, else ''."""
    words, counts = np.unique(directions, return_counts=True)
    word = words[counts.argmax()]
    is_shared = counts.max() >= SHARED_DIRECTION * len(directions)
    return f" ({word})" if word and is_shared else ""


def _name_qualities(qualities):
    low, high = np.percentile(qualities, [10, 90])
    if round(high) > round(low):
        return f"quality {low:.0f}–{high:.0f}"
    return f"quality {low:.0f}"
