"""Measures of quality against scipy and known values, and the laws of the logistic fit."""

import numpy as np
import pytest
from scipy import optimize, stats

from evaluation import metrics


@pytest.fixture
def scores():
    """True qualities, and predictions that are a noisy sigmoid of them."""
    rng = np.random.default_rng(0)
    true = rng.uniform(20, 100, 400)
    return true, 100 / (1 + np.exp(-(true - 60) / 8)) + rng.normal(0, 3, 400)


def test_srcc_is_the_correlation_of_ranks(scores):
    true, predicted = scores

    expected = stats.pearsonr(stats.rankdata(true), stats.rankdata(predicted))[0]

    assert metrics.srcc(true, predicted) == pytest.approx(expected)


def test_plcc_agrees_with_numpy(scores):
    true, predicted = scores

    assert metrics.plcc(true, predicted) == pytest.approx(np.corrcoef(true, predicted)[0, 1])


def test_krcc_counts_ordered_pairs(scores):
    true, predicted = scores

    signs = np.sign(np.subtract.outer(true, true) * np.subtract.outer(predicted, predicted))

    assert metrics.krcc(true, predicted) == pytest.approx(signs.sum() / (400 * 399))


def test_errors_have_known_values():
    true = np.array([1.0, 2])
    predicted = np.array([4.0, 6])

    assert metrics.rmse(true, predicted) == pytest.approx(12.5**0.5)
    assert metrics.mae(true, predicted) == 3.5


@pytest.mark.parametrize("measure", (metrics.srcc, metrics.plcc, metrics.krcc))
def test_a_constant_side_has_no_correlation(measure, scores):
    assert np.isnan(measure(scores[0], np.full(400, 50.0)))


def test_the_logistic_has_its_known_shape():
    assert metrics.logistic(np.array([3.0]), 2, 1, 3, 0, 7)[0] == 7
    assert metrics.logistic(np.array([900.0]), 2, 1, 3, 0, 7)[0] == pytest.approx(8)


def test_the_fit_straightens_a_sigmoid(scores):
    true, predicted = scores

    assert metrics.plcc_logistic(predicted, true) > metrics.plcc(predicted, true) + 0.02


@pytest.mark.parametrize("case", ("sigmoid", "noise", "falling"))
def test_the_fit_is_never_worse_than_a_line(case, scores):
    true, predicted = scores
    noise = np.random.default_rng(1).normal(size=400)
    x = {"sigmoid": predicted, "noise": noise, "falling": -true}[case]

    assert metrics.plcc_logistic(true, x) >= abs(metrics.plcc(true, x)) - 1e-6


@pytest.mark.parametrize("case", ("rising", "with outliers", "falling"))
def test_the_fit_keeps_the_order(case, scores):
    """Outliers would bend a free fit back."""
    true, predicted = scores
    if case == "with outliers":
        true = np.where(predicted > 101, 20, true)
    sign = -1 if case == "falling" else 1
    grid = np.linspace(0, 100, 300)

    fitted = metrics.logistic(grid, *metrics.fit_logistic(true, sign * predicted)[0])

    assert (sign * np.diff(fitted) >= -1e-9).all()


def test_the_fit_finds_known_parameters():
    grid = np.linspace(0, 100, 300)
    known = (30.0, 0.2, 55.0, 0.3, 20.0)

    fitted = metrics.fit_logistic(metrics.logistic(grid, *known), grid)[0]

    assert fitted == pytest.approx(known, rel=1e-3)


@pytest.mark.parametrize("step", (10, 20, 35, 50, 63, 70, 85, 92))
def test_a_hard_step_is_fitted_wherever_it_is(step):
    rng = np.random.default_rng(0)
    predicted = rng.uniform(0, 100, 400)
    true = 100.0 * (predicted > step) + rng.normal(0, 3, 400)

    assert metrics.plcc_logistic(true, predicted) > 0.97


@pytest.mark.parametrize("seed", range(3))
def test_no_curve_of_a_dense_grid_fits_better(seed):
    """Of centers and steepnesses, with which scipy's nnls fits the rest."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(20, 100, 1000)
    sigmoid = 1 / (1 + np.exp(-(true - rng.uniform(40, 80)) / 6))
    predicted = np.clip(30 + 60 * sigmoid + rng.normal(0, 6, 1000), 0, 100)

    limits = (metrics.MIN_STEEPNESS, metrics.MAX_STEEPNESS)
    steepnesses = np.geomspace(*limits, 40) / predicted.std()
    best = 0.0
    for center in np.quantile(predicted, np.linspace(0, 1, 40)):
        for steepness in steepnesses:
            curve = metrics.logistic(predicted, 1, steepness, center, 0, 0)
            columns = np.stack([curve - curve.mean(), predicted - predicted.mean()], axis=1)
            weights, _ = optimize.nnls(columns, true - true.mean())
            best = max(best, np.corrcoef(true, columns @ weights)[0, 1])

    assert metrics.plcc_logistic(true, predicted) > best - 1e-6


def test_units_do_not_matter_to_the_fit(scores):
    true, predicted = scores

    in_other_units = metrics.plcc_logistic(true / 20 + 1, predicted * 1000 - 7)

    assert in_other_units == pytest.approx(metrics.plcc_logistic(true, predicted), abs=1e-4)


@pytest.mark.parametrize("seed", range(30))
def test_a_fit_from_starts_is_that_of_its_own(seed, scores):
    """As a bootstrap does: it starts from the fits of the whole."""
    true, predicted = scores
    starts = metrics.fit_logistic(true, predicted)[: metrics.BOOTSTRAP_STARTS]
    index = np.random.default_rng(seed).integers(400, size=400)

    started = metrics.plcc_logistic(true[index], predicted[index], starts)

    expected = metrics.plcc_logistic(true[index], predicted[index])
    assert started == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("count", (2, 5))
def test_few_images_get_a_line(count, scores):
    true, predicted = scores

    (fitted,) = metrics.fit_logistic(true[:count], predicted[:count])

    assert fitted[0] == 0


@pytest.mark.parametrize("seed", range(12))
def test_a_step_among_few_images_is_fitted(seed):
    """Ever steeper curves come ever nearer to a step, so the fit must know when to end."""
    rng = np.random.default_rng(seed)
    predicted = rng.normal(50, 10, 30)
    true = 100.0 * (predicted > 55) + rng.normal(0, 3, 30)

    assert metrics.plcc_logistic(true, predicted) > 0.97


@pytest.mark.parametrize("images", (6, 30, 60))
def test_noise_is_fitted_without_complaint(images):
    """Of noise there is no best curve, and a fit that does not end is left out."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        predicted = rng.normal(50, 10, images)
        true = rng.uniform(20, 100, images)

        assert np.isfinite(metrics.fit_logistic(true, predicted)).all()


def test_a_fit_that_does_not_end_leaves_the_line(scores, monkeypatch):
    true, predicted = scores
    monkeypatch.setattr(metrics, "MAX_EVALUATIONS", 1)

    ((b1, _, _, b4, b5),) = metrics.fit_logistic(true, predicted)

    assert b1 == 0
    assert (b4, b5) == pytest.approx(tuple(np.polyfit(predicted, true, 1)))


def test_a_bad_start_is_never_worse_than_a_line(scores):
    """Such as that of predictions that fall where these rise."""
    true, predicted = scores
    starts = metrics.fit_logistic(true, -predicted)

    assert metrics.plcc_logistic(true, predicted, starts) >= metrics.plcc(true, predicted) - 1e-6


@pytest.mark.parametrize("images", (6, 30, 1000))
@pytest.mark.parametrize("decimals", (5, -1))
def test_the_fit_repeats_itself_wherever_arrays_lie(images, decimals):
    """With and without ties: the same input gives the same result to the last digit."""
    rng = np.random.default_rng(0)
    predicted = np.round(rng.normal(50, 10, images), decimals)
    true = rng.uniform(20, 100, images)

    first = metrics.fit_logistic(true, predicted)

    for shift in range(1, 8):
        room = np.empty((2, images + shift))
        room[0, shift:] = true
        room[1, shift:] = predicted
        assert np.array_equal(metrics.fit_logistic(room[0, shift:], room[1, shift:]), first)


def test_bootstrap_resamples_whole_groups():
    """Errors are common to a group, so intervals by group are wider than by image."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(20), 30)
    true = rng.uniform(0, 100, 600)
    predicted = true + rng.normal(0, 25, 20)[group]

    by_group = metrics.bootstrap_intervals(true, predicted, group, rounds=100)["plcc"]
    by_image = metrics.bootstrap_intervals(true, predicted, np.arange(600), rounds=100)["plcc"]

    assert by_group[0] < metrics.plcc(true, predicted) < by_group[1]
    assert by_group[1] - by_group[0] > 1.5 * (by_image[1] - by_image[0])


def test_a_resampled_group_brings_all_its_images():
    true = np.arange(40.0)
    group = np.repeat(np.arange(20), 2)
    predicted = true + np.tile([0, 10], 20)

    intervals = metrics.bootstrap_intervals(true, predicted, group, rounds=20)

    assert intervals["mae"] == pytest.approx([5, 5])


def test_one_group_gives_no_interval(scores):
    assert np.isnan(metrics.bootstrap_intervals(*scores, np.zeros(400))["srcc"]).all()
