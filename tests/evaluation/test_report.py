"""The lines of a tested run's table."""

import numpy as np
import pytest

from evaluation.report import spread, table
from evaluation.results import METRIC_TITLES

MEASURES = {}
for name in METRIC_TITLES:
    MEASURES[name] = 0.75
    MEASURES[f"{name}_interval"] = [0.5, None]
METRICS = {
    "run": "mine",
    "checkpoint": "best",
    "epoch": 3,
    "trained_on": "folder a",
    "references": "folder b",
    "test_references": 12,
    "photographs": 12,
    "images": 48,
    **MEASURES,
    "without_pristine": MEASURES,
    "by_type": {"contrast": {"srcc": None, "rmse": 3.25, "images": 5}},
    "clusters": {
        "active": 2,
        "effective": 1.5,
        "nmi": 0.5,
        "ari": 0.25,
        "purity": 1.0,
        "names": ["a", "b"],
    },
    "unknown": {"log_likelihood_below": -12.5, "flagged": 0.125},
}


def test_the_table_shows_measures_with_intervals():
    """What could not be computed is a dash; errors in points of quality have one digit."""
    lines = table(METRICS)

    srcc_line = f"{'SRCC':22}{'0.750 [0.500, –]':28}0.750 [0.500, –]"
    rmse_line = f"{'RMSE':22}{'0.8 [0.5, –]':28}0.8 [0.5, –]"
    assert {srcc_line, rmse_line} <= set(lines)


def test_the_table_shows_types_and_clusters():
    lines = table(METRICS)

    assert f"{'contrast':22}{'–':>7}{'3.2':>8}{'5':>9}" in lines
    assert "  cluster 1: b" in lines
    agreement = "with the true types: NMI 0.500  ARI 0.250  purity 1.000"
    assert f"2 of 2 clusters active, effective number 1.5;  {agreement}" in lines


def test_the_table_names_types_of_too_few_images():
    """Of a test from before they were counted, nothing is said."""
    lines = table({**METRICS, "types_not_measured": ["fog", "rain"]})

    contrast = next(i for i, line in enumerate(lines) if line.startswith("contrast"))
    assert lines[contrast + 1] == "not shown, with fewer than 3 images: fog, rain"
    for metrics in (METRICS, {**METRICS, "types_not_measured": []}):
        assert not any("not shown" in line for line in table(metrics))


@pytest.mark.parametrize(
    "photographs, expected", ((12, "references"), (3, "the 3 photographs that they are crops of"))
)
def test_the_table_says_what_was_resampled(photographs, expected):
    lines = table({**METRICS, "photographs": photographs})

    assert f"in brackets: 95 % bootstrap intervals over {expected}" in lines


@pytest.mark.parametrize(
    "unknown, expected",
    (
        (METRICS["unknown"], "12.5 % of these images are flagged"),
        ({"log_likelihood_below": np.nan, "flagged": 0.0}, "are not flagged"),
        (None, "tested before unknown distortions were flagged"),
    ),
)
def test_the_table_ends_with_unknown_images(unknown, expected):
    lines = table({**METRICS, "unknown": unknown})

    assert expected in lines[-1]


SPREADS = (([0.5], "0.500"), ([0.5, 0.7], "0.600 ± 0.141"), ([0.5, None], "nan ± nan"))


@pytest.mark.parametrize("values, expected", SPREADS)
def test_a_spread_is_mean_and_sample_deviation(values, expected):
    assert spread(values) == expected
