"""Measures of a quality prediction and of a clustering: numpy arrays in, floats out."""

import numpy as np
import scipy  # which loads a part of it when that is first used

ACTIVE_SHARE = 0.02  # a cluster is active from this share of images on
STEEPNESS = (
    0.5,
    500,
)  # of a fitted logistic over predictions of unit deviation: nearly a line, a step
PARAMETERS = 5  # of the logistic
GRID = 16  # of the fit's first search: values of the steepness, and of the center


def srcc(true, predicted):
    """Spearman's rank correlation, −1 to 1; nan where either side is constant."""
    return _correlation(scipy.stats.spearmanr, true, predicted)


def plcc(true, predicted):
    """Pearson's linear correlation, −1 to 1; nan where either side is constant."""
    return _correlation(scipy.stats.pearsonr, true, predicted)


def krcc(true, predicted):
    """Kendall's rank correlation (tau-b), −1 to 1; nan where either side is constant."""
    return _correlation(scipy.stats.kendalltau, true, predicted)


def rmse(true, predicted):
    """Root of the mean squared error, in points of quality."""
    return float(np.sqrt(np.mean((true - predicted) ** 2)))


def mae(true, predicted):
    """Mean absolute error, in points of quality."""
    return float(np.mean(np.abs(true - predicted)))


def plcc_logistic(true, predicted):
    """Pearson's correlation after the predictions went through the fitted 5-parameter logistic."""
    return plcc(true, logistic(predicted, *fit_logistic(true, predicted)))


def logistic(x, b1, b2, b3, b4, b5):
    """The video-quality experts group's map from a score to an opinion (Sheikh, Sabir and Bovik, "A
    statistical evaluation of recent full reference image quality assessment algorithms", IEEE TIP 2006)."""
    return b1 * (0.5 - 1 / (1 + np.exp(np.clip(b2 * (x - b3), -50, 50)))) + b4 * x + b5


def fit_logistic(true, predicted):
    """Least-squares parameters (5,) of a monotone `logistic`: b1, b2 and b4 are not negative for predictions that rise
    with the truth. (Left free, it can bend back on itself, which is no map from scores to opinions.) A straight line
    (b1 = 0) where that is better, or where there are no more images than parameters.

    With steepness and center given, the rest is linear (variable projection: Golub and Pereyra, SIAM Journal on
    Numerical Analysis 1973), so only those two are searched, within bounds: over a grid, and from its best place on.
    (A search for all five follows ever steeper curves, and where it stops hangs on the last digits.) With only dozens
    of images, or predictions that tell little, the search may miss a lower error.
    """
    if np.ptp(predicted) == 0 or np.ptp(true) == 0:
        return np.array([0, 0, 0, 0, true.mean()])
    x, y = predicted - predicted.mean(), true - true.mean()
    x_scale, y_scale = x.std(), y.std()
    if np.round((x * y).mean() / x_scale / y_scale, 10) < 0:
        x_scale = -x_scale
    x, y = x / x_scale, y / y_scale
    if len(true) > PARAMETERS:
        place = _lowest_place(x, y)
        b2, b3, values = _curves(place, x, np.sort(x))
        (b1, b4), b2, b3 = _not_negative(values, x, y), b2[0], b3[0]
    else:
        b1, b2, b3, b4 = 0, 1, 0, (x * y).mean()
    b1, b2, b3, b4 = (
        b1 * y_scale,
        b2 / x_scale,
        predicted.mean() + x_scale * b3,
        b4 * y_scale / x_scale,
    )
    b5 = np.mean(true - logistic(predicted, b1, b2, b3, b4, 0))
    return np.array([b1, b2, b3, b4, b5])


def _lowest_place(x, y):
    """The place (2,) of the curve (see `_curves`) with the lowest error: the best one of a grid for means of
    neighbouring images, and from there on for all. x, y (N,) of mean 0 and unit deviation."""
    ranges, ranked = (np.log(STEEPNESS), (0, 1)), np.sort(x)
    low, high = np.array(ranges).T
    grid = np.stack(np.meshgrid(*np.linspace(low, high, GRID).T, indexing="ij"), -1)
    errors = _errors(grid, *_means(x, y), ranked)
    best = grid[np.unravel_index(errors.argmin(), errors.shape)]
    step = (
        (high - low) / (GRID - 1) / np.where(best < (low + high) / 2, 2, -2)
    )  # half a mesh, inwards
    options = {
        "initial_simplex": best + step * [[0, 0], [1, 0], [0, 1]],
        "xatol": 1e-4,
        "fatol": 1e-9,
    }
    found = scipy.optimize.minimize(
        _errors, best, (x, y, ranked), method="Nelder-Mead", bounds=ranges, options=options
    )
    return found.x


def _curves(places, x, ranked):
    """Logistics at places (…, 2): the log of the steepness, and the share of the ranked values before the center.
    Returns b2, b3 (…, 1), and the values (…, N) of mean 0 at x (N,)."""
    b2, b3 = (
        np.exp(places[..., :1]),
        np.interp(places[..., 1:], np.linspace(0, 1, len(ranked)), ranked),
    )
    values = logistic(x, 1, b2, b3, 0, 0)
    return b2, b3, values - values.mean(-1, keepdims=True)


def _errors(places, x, y, ranked):
    """Mean squared errors (…) of the best sums of a curve and a line, rounded: where errors are equal, as between two
    predictions, their last digits must not decide where a search goes."""
    values = _curves(places, x, ranked)[2]
    b1, b4 = _not_negative(values, x, y)
    return np.round(((b1[..., None] * values + b4[..., None] * x - y) ** 2).mean(-1), 10)


def _means(x, y, parts=100):
    """Means of x and of y over neighbours in x, to start a search from: two arrays of mean 0, of at most so many."""
    order, starts = (
        np.lexsort((y, x)),
        np.unique(np.linspace(0, len(x), parts, endpoint=False).astype(int)),
    )
    means = (
        np.add.reduceat(values[order], starts) / np.diff(starts, append=len(x)) for values in (x, y)
    )
    return [values - values.mean() for values in means]


def _not_negative(u, v, y):
    """a, b ≥ 0 (…) for which a·u + b·v is nearest to y. u (…, N), v, y (N,), all of mean 0. (Sums of products: the last
    digits of a matrix product are those of the processor's threads.)"""
    (uu, uv, uy), (vv, vy) = ((u * p).sum(-1) for p in (u, v, y)), ((v * p).sum(-1) for p in (v, y))
    flat = uu < 1e-12 * len(v)  # steep, and its center beyond the images
    uu, uv, uy = np.where(flat, 1, uu), np.where(flat, 0, uv), np.where(flat, 0, uy)
    determinant = uu * vv - uv**2
    independent = determinant > 1e-9 * uu * vv
    determinant = np.where(independent, determinant, 1)
    a, b = (uy * vv - vy * uv) / determinant, (vy * uu - uy * uv) / determinant
    both = independent & (a >= 0) & (b >= 0)
    uy, vy = np.maximum(uy, 0), np.maximum(vy, 0)
    first = uy**2 * vv > vy**2 * uu
    return np.where(both, a, np.where(first, uy / uu, 0)), np.where(
        both, b, np.where(first, 0, vy / vv)
    )


QUALITY_MEASURES = {
    measure.__name__: measure for measure in (srcc, plcc, plcc_logistic, krcc, rmse, mae)
}


def quality_measures(true, predicted):
    """{name: value} for QUALITY_MEASURES. true, predicted (N,) in 0–100."""
    return {name: measure(true, predicted) for name, measure in QUALITY_MEASURES.items()}


def bootstrap_intervals(true, predicted, groups, seed=0, rounds=200):
    """{name: [low, high]}: 95 % percentile intervals, resampling whole groups (N,) of images (references or
    photographs), because images of one group are not independent. One group gives no interval: [nan, nan]."""
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    if len(members) < 2:
        return {name: [float("nan")] * 2 for name in QUALITY_MEASURES}
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(rounds):
        index = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        rows.append(list(quality_measures(true[index], predicted[index]).values()))
    low, high = np.nanpercentile(np.array(rows), [2.5, 97.5], axis=0)
    return {name: [float(a), float(b)] for name, a, b in zip(QUALITY_MEASURES, low, high)}


def cluster_measures(clusters, types, n_clusters):
    """Active and effective numbers of clusters, and agreement with the types. clusters, types (N,) int.

    effective: the exponential of the entropy of the clusters' shares (1 to n_clusters); nmi: normalised by the
    arithmetic mean of the entropies, 0–1; ari: adjusted Rand index, 1 is equal and 0 is chance; purity: share of
    images whose type is their cluster's most frequent one.
    """
    from sklearn.metrics import (  # slow imports, not needed for --help
        adjusted_rand_score,
        normalized_mutual_info_score,
    )
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


def cluster_names(clusters, types, directions, qualities, class_names, n_clusters):
    """What each cluster holds, for people: 'contrast (high) 71 %, motion_blur 22 %, quality 38–77'. Types are named
    from the most frequent on until they cover three quarters, with a direction where four fifths of them share it;
    qualities are the 10th and 90th percentile. types (N,) index class_names, directions (N,) are words or ''."""
    names = []
    for k in range(n_clusters):
        inside = clusters == k
        if not inside.any():
            names.append("empty")
            continue
        shares = np.bincount(types[inside], minlength=len(class_names)) / inside.sum()
        order = np.argsort(-shares, kind="stable")
        enough = min(3, 1 + int(np.searchsorted(np.cumsum(shares[order]), 0.75)))
        parts = [
            f"{class_names[i]}{_shared(directions[inside & (types == i)])} {100 * shares[i]:.0f} %"
            for i in order[:enough]
            if shares[i] > 0.05
        ]
        low, high = np.percentile(qualities[inside], [10, 90])
        span = f"{low:.0f}–{high:.0f}" if round(high) > round(low) else f"{low:.0f}"
        names.append(", ".join(parts + [f"quality {span}"]))
    return names


def _shared(directions):
    """' (high)' where at least four fifths are that, else ''."""
    words, counts = np.unique(directions, return_counts=True)
    word = words[counts.argmax()]
    return f" ({word})" if word and counts.max() >= 0.8 * len(directions) else ""


def _correlation(measure, true, predicted):
    if np.ptp(true) == 0 or np.ptp(predicted) == 0:
        return float("nan")
    return float(measure(true, predicted).statistic)
