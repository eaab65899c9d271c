"""Whole photographs at every level: what is scored, and what is made of the scores."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ablations.whole_images import (
    Row,
    check_equal_types,
    distort_at_levels,
    level_lines,
    measure,
    measure_lines,
)
from distortions.registry import LEVELS, quality_of
from tests.helpers import photo_pieces
from utils.errors import UserError
from utils.rng import fold_in

TRUE = np.array([quality_of("gaussian_blur", level) for level in LEVELS[1:]])


def rows_of(blur, dark, bright):
    return [
        Row("gaussian_blur", 1, blur),
        Row("brightness", -1, dark),
        Row("brightness", 1, bright),
    ]


def test_a_photograph_gets_worse_from_level_to_level():
    photograph = photo_pieces(64, 80)[3]

    distorted = distort_at_levels(photograph, "gaussian_noise", 1, key=fold_in(1))

    errors = (distorted.int() - photograph.int()).abs().double().mean((1, 2, 3))
    assert distorted.shape == (5, 64, 80, 3)
    assert (errors.diff() > 0).all()


def test_perfect_predictions_have_perfect_measures():
    brightness = np.array([quality_of("brightness", level) for level in LEVELS[1:]])[None]
    measured = measure(np.array([100.0]), rows_of(TRUE[None], brightness, brightness))

    assert measured["srcc"] == 1
    assert measured["rmse"] == 0
    assert measured["pristine_good"] == 1
    assert measured["falling"] == 2
    assert measured["by_type"]["gaussian_blur"]["predicted"] == [100, *TRUE]


def test_a_mean_that_does_not_fall_is_told():
    """Of both directions of a type together, and from pristine to the lowest level too."""
    falling = np.array([[90.0, 80, 70, 60, 50]])
    rising = np.array([[60.0, 71, 75, 81, 90]])

    measured = measure(np.array([84.0]), rows_of(falling, rising, falling))

    assert measured["falling"] == 0
    assert measured["pristine_good"] == 0


def test_tables_are_over_runs():
    runs = [
        measure(np.array([quality]), [Row("gaussian_blur", 1, TRUE[None])])
        for quality in (90.0, 80.0)
    ]

    assert any("85.0 ± 7.1" in line for line in measure_lines(runs))
    assert any("| 85 | 88 |" in line for line in level_lines(runs))


def test_directions_are_drawn_alike():
    """One key for all levels of a type, so that a level changes nothing else."""
    photograph = photo_pieces(48, 48)[0]

    first = distort_at_levels(photograph, "motion_blur", 1, key=fold_in(5))
    again = distort_at_levels(photograph, "motion_blur", 1, key=fold_in(5))

    assert torch.equal(first, again)


def test_runs_of_other_types_are_not_measured_together():
    runs = [SimpleNamespace(config={"types": [name]}) for name in ("rain", "rain", "fog")]

    with pytest.raises(UserError, match="--experiment c: it was trained on other types than a"):
        check_equal_types(runs, [Path("runs/a"), Path("runs/b"), Path("runs/c")])
