"""Measures of a quality prediction and of a clustering: numpy arrays in, floats out."""

import numpy as np
import scipy  # which loads a part of it when that is first used

ACTIVE_SHARE = 0.02  # a cluster is active from this share of images on


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
    (b1 = 0) where that is better, or where there are too few images."""
    if np.ptp(predicted) == 0:
        return np.array([0, 0, 0, 0, true.mean()])
    slope, offset = np.polyfit(predicted, true, 1)
    line = np.array([0, 1, 0, slope, offset])
    if len(true) <= len(line):
        return line
    center, scale, height = predicted.mean(), np.copysign(predicted.std(), slope), max(true.std(), 1e-9)
    x, y = (predicted - center) / scale, (true - true.mean()) / height

    def residuals(b):
        return logistic(x, b[0] ** 2, b[1] ** 2, b[2], b[3] ** 2, b[4]) - y

    fits = [line]
    for start in ((1, 1, 0, 0.7, 0), (1.2, 2.5, _steepest(x, y), 0.3, 0)):  # a gentle curve, a step
        # To a step there is no end of ever steeper curves: the last of them will do. (least_squares would give other last
        # digits wherever the arrays lie in memory.)
        b1, b2, b3, b4, b5 = scipy.optimize.leastsq(residuals, start, maxfev=1000, full_output=True)[0]
        b1, b2, b4 = height * b1**2, b2**2 / scale, height * b4**2 / scale
        fits.append(np.array([b1, b2, center + scale * b3, b4, true.mean() + height * b5 - b4 * center]))
    return min(fits, key=lambda b: np.sum((logistic(predicted, *b) - true) ** 2))


def _steepest(x, y):
    """Where y rises most: the border between those two neighbouring tenths of x whose means differ most."""
    order = np.argsort(x, kind="stable")
    means = [part.mean() for part in np.array_split(y[order], 10) if len(part)]
    borders = [part[0] for part in np.array_split(x[order], 10) if len(part)]
    return borders[1 + int(np.argmax(np.diff(means)))]


QUALITY_MEASURES = {measure.__name__: measure for measure in (srcc, plcc, plcc_logistic, krcc, rmse, mae)}


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
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score  # slow imports, not needed for --help
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
