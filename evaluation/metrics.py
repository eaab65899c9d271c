"""Measures of a quality prediction: numpy arrays in, floats out."""

import numpy as np
import scipy  # loads its parts when they are first used

PARAMETER_COUNT = 5  # of the logistic
# Steepest logistic that a fit may take, for predictions of unit deviation: nearly a step.
MAX_STEEPNESS = 50
STEEPNESS_STARTS = (0.5, 2, 8)  # the fit of a whole test starts from each of these
BOOTSTRAP_ROUNDS = 200


def srcc(true: np.ndarray, predicted: np.ndarray) -> float:
    """Compute Spearman's rank correlation, −1 to 1; nan where either side is constant."""
    return _correlation(scipy.stats.spearmanr, true, predicted)


def plcc(true: np.ndarray, predicted: np.ndarray) -> float:
    """Compute Pearson's linear correlation, −1 to 1; nan where either side is constant."""
    return _correlation(scipy.stats.pearsonr, true, predicted)


def krcc(true: np.ndarray, predicted: np.ndarray) -> float:
    """Compute Kendall's rank correlation (tau-b), −1 to 1; nan where either side is constant."""
    return _correlation(scipy.stats.kendalltau, true, predicted)


def rmse(true: np.ndarray, predicted: np.ndarray) -> float:
    """Compute the root of the mean squared error, in points of quality."""
    return float(np.sqrt(np.mean((true - predicted) ** 2)))


def mae(true: np.ndarray, predicted: np.ndarray) -> float:
    """Compute the mean absolute error, in points of quality."""
    return float(np.mean(np.abs(true - predicted)))


def plcc_logistic(
    true: np.ndarray, predicted: np.ndarray, start: np.ndarray | None = None
) -> float:
    """Compute Pearson's correlation after the fitted 5-parameter logistic.

    start: parameters to start the fit from, such as those of a larger sample.
    """
    return plcc(true, logistic(predicted, *fit_logistic(true, predicted, start)))


def logistic(x: np.ndarray, b1: float, b2: float, b3: float, b4: float, b5: float) -> np.ndarray:
    """Map a score to an opinion, as the video-quality experts group does.

    Source: Sheikh, Sabir and Bovik, "A statistical evaluation of recent full reference image
    quality assessment algorithms", IEEE TIP 2006.
    """
    return b1 * (0.5 - 1 / (1 + np.exp(np.clip(b2 * (x - b3), -50, 50)))) + b4 * x + b5


def fit_logistic(
    true: np.ndarray, predicted: np.ndarray, start: np.ndarray | None = None
) -> np.ndarray:
    """Return least-squares parameters (5,) of a monotone `logistic`.

    b1, b2 and b4 are not negative for predictions that rise with the truth: a curve that bends
    back on itself is no map from scores to opinions. It is a straight line (b1 = 0) where either
    side is constant, or where there are no more images than parameters. start: parameters to
    start from; without them the best of several starts is taken.
    """
    if np.ptp(predicted) == 0 or np.ptp(true) == 0:
        return np.array([0, 0, 0, 0, true.mean()])
    # Fit in standard units, with predictions that rise with the truth.
    sign = 1 if np.mean((predicted - predicted.mean()) * (true - true.mean())) >= 0 else -1
    x_scale = sign * predicted.std()
    x = (predicted - predicted.mean()) / x_scale
    y = (true - true.mean()) / true.std()
    if len(true) <= PARAMETER_COUNT:
        fitted = np.array([0, 1, 0, np.mean(x * y), 0])
    elif start is not None:
        fitted = _fit_standardised(x, y, _to_standard_units(start, true, predicted, x_scale))
    else:
        fits = [_fit_standardised(x, y, (1, b2, 0, 0.5, 0)) for b2 in STEEPNESS_STARTS]
        line = np.array([0, 1, 0, np.mean(x * y), 0])
        fitted = min([*fits, line], key=lambda p: np.sum((logistic(x, *p) - y) ** 2))
    b1, b2, b3, b4, b5 = fitted
    b3 = predicted.mean() + x_scale * b3
    b4 = b4 * true.std() / x_scale
    b5 = true.mean() + b5 * true.std() - b4 * predicted.mean()
    return np.array([b1 * true.std(), b2 / x_scale, b3, b4, b5])


def _fit_standardised(x, y, start):
    """Return the parameters (5,) that scipy finds from this start, all in standard units."""
    low = np.array([0, 0, x.min(), 0, -np.inf])
    high = np.array([np.inf, MAX_STEEPNESS, x.max(), np.inf, np.inf])
    inside = np.clip(start, low, high)
    fitted, _ = scipy.optimize.curve_fit(
        logistic,
        x,
        y,
        p0=inside,
        bounds=(low, high),
        jac=_jacobian,
        ftol=1e-6,
        xtol=1e-6,
        max_nfev=5000,
    )
    return fitted


def _jacobian(x, b1, b2, b3, b4, b5):
    """Return the derivatives (N, 5) of `logistic` by its parameters."""
    inner = np.clip(b2 * (x - b3), -50, 50)
    rise = 1 / (1 + np.exp(-inner))
    slope = rise * (1 - rise)
    columns = (rise - 0.5, b1 * slope * (x - b3), -b1 * slope * b2, x, np.ones_like(x))
    return np.stack(columns, axis=1)


def _to_standard_units(parameters, true, predicted, x_scale):
    b1, b2, b3, b4, b5 = parameters
    return np.array(
        [
            b1 / true.std(),
            b2 * x_scale,
            (b3 - predicted.mean()) / x_scale,
            b4 * x_scale / true.std(),
            (b5 + b4 * predicted.mean() - true.mean()) / true.std(),
        ]
    )


QUALITY_MEASURES = {f.__name__: f for f in (srcc, plcc, plcc_logistic, krcc, rmse, mae)}


def quality_measures(
    true: np.ndarray, predicted: np.ndarray, start: np.ndarray | None = None
) -> dict[str, float]:
    """Return {name: value} of QUALITY_MEASURES for true and predicted qualities (N,) in 0–100.

    start: parameters that the logistic's fit starts from.
    """
    values = {}
    for name, measure in QUALITY_MEASURES.items():
        if measure is plcc_logistic:
            values[name] = plcc_logistic(true, predicted, start)
        else:
            values[name] = measure(true, predicted)
    return values


def bootstrap_intervals(
    true: np.ndarray,
    predicted: np.ndarray,
    groups: np.ndarray,
    seed: int = 0,
    rounds: int = BOOTSTRAP_ROUNDS,
) -> dict[str, list[float]]:
    """Return {name: [low, high]}: 95 % percentile intervals of QUALITY_MEASURES.

    Whole groups (N,) of images (references or photographs) are resampled, because images of one
    group are not independent. One group gives no interval: [nan, nan].
    """
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    if len(members) < 2:
        return {name: [float("nan")] * 2 for name in QUALITY_MEASURES}
    rng = np.random.default_rng(seed)
    start = fit_logistic(true, predicted)
    rows = []
    for _ in range(rounds):
        drawn = rng.integers(len(members), size=len(members))
        index = np.concatenate([members[i] for i in drawn])
        rows.append(list(quality_measures(true[index], predicted[index], start).values()))
    low, high = np.nanpercentile(np.array(rows), [2.5, 97.5], axis=0)
    return {name: [float(low[i]), float(high[i])] for i, name in enumerate(QUALITY_MEASURES)}


def _correlation(measure, true, predicted):
    if np.ptp(true) == 0 or np.ptp(predicted) == 0:
        return float("nan")
    return float(measure(true, predicted).statistic)
