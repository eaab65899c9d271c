"""Measures of a quality prediction: numpy arrays in, floats out."""

import contextlib
import itertools
from collections.abc import Sequence

import numpy as np
import scipy  # loads its parts when they are first used

PARAMETER_COUNT = 5  # of the logistic
# Limits of a fitted logistic's steepness, for predictions of unit deviation.
MIN_STEEPNESS = 0.5  # nearly a straight line
MAX_STEEPNESS = 500  # nearly a step
# The fit of a whole test starts from each of these steepnesses at each quantile of predictions.
START_STEEPNESSES = (2, 8)
START_QUANTILES = (0.2, 0.5, 0.8)
MAX_EVALUATIONS = 200  # of the logistic in a fit from one start
TOLERANCE = 1e-6  # relative change at which a fit ends; towards a step it gets ever steeper
BOOTSTRAP_ROUNDS = 200
BOOTSTRAP_STARTS = 2  # a resample's logistic starts from so many fits of the whole


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
    true: np.ndarray, predicted: np.ndarray, starts: Sequence[np.ndarray] = ()
) -> float:
    """Compute Pearson's correlation after the fitted 5-parameter logistic.

    starts: parameters to start the fit from, such as those of a larger sample.
    """
    return plcc(true, logistic(predicted, *fit_logistic(true, predicted, starts)[0]))


def logistic(x: np.ndarray, b1: float, b2: float, b3: float, b4: float, b5: float) -> np.ndarray:
    """Map a score to an opinion, as the video-quality experts group does.

    Source: Sheikh, Sabir and Bovik, "A statistical evaluation of recent full reference image
    quality assessment algorithms", IEEE TIP 2006.
    """
    return b1 * (0.5 - 1 / (1 + np.exp(np.clip(b2 * (x - b3), -50, 50)))) + b4 * x + b5


def fit_logistic(
    true: np.ndarray, predicted: np.ndarray, starts: Sequence[np.ndarray] = ()
) -> list[np.ndarray]:
    """Return parameters (5,) of monotone `logistic`s by least squares, the best first.

    The others are local minima, and can be better starts for another sample of the images.

    b1 is not negative, and b2 and b4 have the sign of the correlation: a curve that bends back
    on itself is no map from scores to opinions. A straight line (b1 = 0) is always among them,
    and the only one where there are no more images than parameters. starts: parameters to start
    from; without them the fit starts from several places.
    """
    if np.ptp(predicted) == 0 or np.ptp(true) == 0:
        return [np.array([0, 0, 0, 0, true.mean()])]
    center = predicted.mean()
    deviation = predicted.std()
    slope = np.mean((predicted - center) * (true - true.mean())) / deviation**2
    sign = 1 if slope >= 0 else -1
    line = np.array([0, sign / deviation, center, slope, true.mean() - slope * center])
    if len(true) <= PARAMETER_COUNT:
        return [line]
    if not starts:
        grid = itertools.product(START_STEEPNESSES, np.quantile(predicted, START_QUANTILES))
        b4 = slope / 2  # half of the rise is the curve's
        b5 = true.mean() - b4 * center
        for b2, b3 in grid:
            starts = [*starts, np.array([true.std(), sign * b2 / deviation, b3, b4, b5])]
    steepness_limits = (sign * MIN_STEEPNESS / deviation, sign * MAX_STEEPNESS / deviation)
    limits = (
        (0, np.inf),
        sorted(steepness_limits),
        (predicted.min(), predicted.max()),
        sorted((0, sign * np.inf)),
        (-np.inf, np.inf),
    )
    low, high = np.transpose(limits)
    units = (true.std(), 1 / deviation, deviation, true.std() / deviation, true.std())
    fits = [line]
    for start in starts:
        with contextlib.suppress(RuntimeError):  # raised where the fit takes too long: leave it out
            fitted, _ = scipy.optimize.curve_fit(
                logistic,
                predicted,
                true,
                p0=np.clip(start, low, high),
                bounds=(low, high),
                jac=_jacobian,
                x_scale=units,
                ftol=TOLERANCE,
                xtol=TOLERANCE,
                max_nfev=MAX_EVALUATIONS,
            )
            fits.append(fitted)
    by_error: dict[float, np.ndarray] = {}
    for fit in fits:  # those of equal error are one and the same
        error = np.mean((logistic(predicted, *fit) - true) ** 2) / true.var()
        by_error.setdefault(round(error, 6), fit)
    return [by_error[error] for error in sorted(by_error)]


def _jacobian(x, b1, b2, b3, b4, b5):
    """Return the derivatives (N, 5) of `logistic` by its parameters."""
    inner = np.clip(b2 * (x - b3), -50, 50)
    rise = 1 / (1 + np.exp(-inner))
    slope = rise * (1 - rise)
    columns = (rise - 0.5, b1 * slope * (x - b3), -b1 * slope * b2, x, np.ones_like(x))
    return np.stack(columns, axis=1)


QUALITY_MEASURES = {f.__name__: f for f in (srcc, plcc, plcc_logistic, krcc, rmse, mae)}


def quality_measures(
    true: np.ndarray, predicted: np.ndarray, starts: Sequence[np.ndarray] = ()
) -> dict[str, float]:
    """Return {name: value} of QUALITY_MEASURES for true and predicted qualities (N,) in 0–100.

    starts: parameters that the logistic's fit starts from.
    """
    values = {}
    for name, measure in QUALITY_MEASURES.items():
        if measure is plcc_logistic:
            values[name] = plcc_logistic(true, predicted, starts)
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
    starts = fit_logistic(true, predicted)[:BOOTSTRAP_STARTS]
    rows = []
    for _ in range(rounds):
        drawn = rng.integers(len(members), size=len(members))
        index = np.concatenate([members[i] for i in drawn])
        rows.append(list(quality_measures(true[index], predicted[index], starts).values()))
    low, high = np.nanpercentile(np.array(rows), [2.5, 97.5], axis=0)
    return {name: [float(low[i]), float(high[i])] for i, name in enumerate(QUALITY_MEASURES)}


def _correlation(measure, true, predicted):
    if np.ptp(true) == 0 or np.ptp(predicted) == 0:
        return float("nan")
    return float(measure(true, predicted).statistic)
