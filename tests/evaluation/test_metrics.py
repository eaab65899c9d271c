import numpy as np
import pytest
from scipy import optimize, stats

from evaluation import metrics


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    true = rng.uniform(20, 100, 400)
    return true, 100 / (1 + np.exp(-(true - 60) / 8)) + rng.normal(0, 3, 400)


def test_correlations_agree_with_scipy(scores):
    true, predicted = scores
    assert metrics.srcc(true, predicted) == pytest.approx(
        stats.pearsonr(stats.rankdata(true), stats.rankdata(predicted))[0]
    )
    assert metrics.plcc(true, predicted) == pytest.approx(np.corrcoef(true, predicted)[0, 1])
    signs = np.sign(np.subtract.outer(true, true) * np.subtract.outer(predicted, predicted))
    assert metrics.krcc(true, predicted) == pytest.approx(signs.sum() / (400 * 399))


def test_errors_have_known_values():
    assert metrics.rmse(np.array([1.0, 2]), np.array([4.0, 6])) == pytest.approx(12.5**0.5)
    assert metrics.mae(np.array([1.0, 2]), np.array([4.0, 6])) == 3.5


def test_a_constant_side_has_no_correlation(scores):
    constant = np.full(400, 50.0)
    assert all(
        np.isnan(measure(scores[0], constant))
        for measure in (metrics.srcc, metrics.plcc, metrics.krcc)
    )


def test_the_logistic_map_straightens_a_sigmoid_and_is_never_worse_than_a_line(scores):
    true, predicted = scores
    assert metrics.plcc_logistic(predicted, true) > metrics.plcc(predicted, true) + 0.02
    noise = np.random.default_rng(1).normal(size=400)
    for x in (predicted, noise, -true):
        assert metrics.plcc_logistic(true, x) >= abs(metrics.plcc(true, x)) - 1e-6


def test_the_fitted_map_keeps_the_order_and_finds_known_parameters(scores):
    grid = np.linspace(0, 100, 300)
    outliers = np.where(scores[1] > 101, 20, scores[0])  # would bend a free fit back
    for true, sign in ((scores[0], 1), (outliers, 1), (scores[0], -1)):
        assert (
            sign * np.diff(metrics.logistic(grid, *metrics.fit_logistic(true, sign * scores[1])))
            >= -1e-9
        ).all()
    known = (30.0, 0.2, 55.0, 0.3, 20.0)
    assert metrics.fit_logistic(metrics.logistic(grid, *known), grid) == pytest.approx(
        known, rel=1e-3
    )


@pytest.mark.parametrize("step", (10, 20, 35, 50, 63, 70, 85, 92))
def test_a_hard_step_is_fitted_wherever_it_is(step):
    rng = np.random.default_rng(0)
    predicted = rng.uniform(0, 100, 400)
    assert (
        metrics.plcc_logistic(100.0 * (predicted > step) + rng.normal(0, 3, 400), predicted) > 0.97
    )


@pytest.mark.parametrize("images, seeds", ((6, 20), (30, 20), (60, 60), (1000, 2)))
def test_the_logistic_fit_does_not_hang_on_last_digits(images, seeds):
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        drawn = rng.normal(50, 10, images)
        for predicted in (drawn, np.round(drawn, -1)):  # without ties, and with many
            for true in (
                rng.uniform(20, 100, images),
                predicted,
                100.0 * (predicted > 50),
            ):  # noise, a line, a step
                order = rng.permutation(images)  # sums are rounded in another way
                fit = metrics.plcc_logistic(true, predicted)
                again = metrics.plcc_logistic(true[order], predicted[order])
                constant = np.ptp(true) == 0 or np.ptp(predicted) == 0
                assert again == pytest.approx(fit, abs=1e-10, nan_ok=constant)


def test_the_logistic_fit_of_what_neither_rises_nor_falls_does_not_hang_on_last_digits():
    rng = np.random.default_rng(0)
    drawn, fits = rng.integers(0, 6, (2000, 2, 8)), []
    for x, y in drawn[
        8 * (drawn[:, 0] * drawn[:, 1]).sum(-1) == drawn[:, 0].sum(-1) * drawn[:, 1].sum(-1)
    ]:
        predicted, true = 0.1 * x + 3.3, 7.7 * y + 1.1  # a covariance of zero, but for rounding
        order = rng.permutation(8)
        fits.append(metrics.plcc_logistic(true, predicted))  # nan where the best is a constant
        again = metrics.plcc_logistic(true[order], predicted[order])
        assert again == pytest.approx(fits[-1], abs=1e-10, nan_ok=True)
    assert np.isfinite(fits).sum() > 20


@pytest.mark.parametrize("seed", range(3))
def test_no_place_of_a_dense_grid_fits_better_than_the_logistic_fit(seed):
    """Of centers and steepnesses, with which the rest is fitted by scipy's nnls."""
    rng = np.random.default_rng(seed)
    true, middle = rng.uniform(20, 100, 1000), rng.uniform(40, 80)
    predicted = np.clip(
        30 + 60 / (1 + np.exp(-(true - middle) / 6)) + rng.normal(0, 6, 1000), 0, 100
    )
    best = max(
        np.corrcoef(true, columns @ optimize.nnls(columns, true - true.mean())[0])[0, 1]
        for center in np.quantile(predicted, np.linspace(0, 1, 40))
        for steepness in np.geomspace(*metrics.STEEPNESS, 40) / predicted.std()
        for curve in [metrics.logistic(predicted, 1, steepness, center, 0, 0.5)]
        for columns in [np.stack([curve - curve.mean(), predicted - predicted.mean()], 1)]
    )
    assert metrics.plcc_logistic(true, predicted) > best - 1e-6


def test_the_linear_part_of_the_fit_is_the_nearest_without_negative_weights():
    rng = np.random.default_rng(0)
    for _ in range(100):
        u, v, y = (values - values.mean() for values in rng.normal(size=(3, 20)))
        for first, second in ((u, v), (u, 2 * u), (0 * u, v), (1e-8 * u, v)):
            with np.errstate(all="raise"):
                weights = np.array(metrics._not_negative(first, second, y))
            if np.ptp(first) < 1e-6:  # as good as flat
                assert weights[0] == 0
                first = 0 * first
            nearest = optimize.nnls(np.stack([first, second], 1), y)[1]
            assert (weights >= 0).all()
            assert np.linalg.norm(weights @ [first, second] - y) == pytest.approx(nearest, abs=1e-9)


def test_logistic_has_its_known_shape():
    assert metrics.logistic(np.array([3.0]), 2, 1, 3, 0, 7)[0] == 7
    assert metrics.logistic(np.array([900.0]), 2, 1, 3, 0, 7)[0] == pytest.approx(8)


def test_bootstrap_resamples_whole_groups():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(20), 30)
    true = rng.uniform(0, 100, 600)
    predicted = true + rng.normal(0, 25, 20)[group]  # errors are common to a group
    by_group = metrics.bootstrap_intervals(true, predicted, group, rounds=100)["plcc"]
    by_image = metrics.bootstrap_intervals(true, predicted, np.arange(600), rounds=100)["plcc"]
    assert by_group[0] < metrics.plcc(true, predicted) < by_group[1]
    assert by_group[1] - by_group[0] > 1.5 * (by_image[1] - by_image[0])


def test_a_resampled_group_brings_all_its_images():
    true, group = np.arange(40.0), np.repeat(np.arange(20), 2)
    intervals = metrics.bootstrap_intervals(true, true + np.tile([0, 10], 20), group, rounds=20)
    assert intervals["mae"] == pytest.approx([5, 5])


def test_one_group_gives_no_interval(scores):
    assert np.isnan(metrics.bootstrap_intervals(*scores, np.zeros(400))["srcc"]).all()


def test_cluster_measures_of_a_perfect_and_of_no_clustering():
    types = np.repeat(np.arange(4), 50)
    perfect = metrics.cluster_measures((types + 1) % 4, types, 6)
    assert perfect == pytest.approx({"active": 4, "effective": 4, "nmi": 1, "ari": 1, "purity": 1})
    one = metrics.cluster_measures(np.zeros(200, int), types, 6)
    assert one == pytest.approx({"active": 1, "effective": 1, "nmi": 0, "ari": 0, "purity": 0.25})


def test_a_cluster_under_two_percent_is_not_active():
    clusters = np.array([0] * 985 + [1] * 15)
    assert metrics.cluster_measures(clusters, clusters, 2)["active"] == 1


def test_clusters_are_named_for_what_they_hold():
    clusters = np.zeros(100, int)
    types = np.array([1] * 71 + [0] * 22 + [2] * 7)
    qualities = np.linspace(38, 77, 100)
    directions = np.array(["high"] * 60 + ["low"] * 11 + [""] * 29)
    class_names = "motion_blur", "contrast", "pristine"
    names = metrics.cluster_names(clusters, types, directions, qualities, class_names, 2)
    assert names == ["contrast (high) 71 %, motion_blur 22 %, quality 42–73", "empty"]
    directions[50:60] = "low"  # three of ten
    names = metrics.cluster_names(clusters, types, directions, qualities, class_names, 2)
    assert names[0] == "contrast 71 %, motion_blur 22 %, quality 42–73"
