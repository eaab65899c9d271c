"""Measures inside each type, and the words for directions."""

import numpy as np

from evaluation.evaluate import direction_words, measures_by_type

NAMES = ("contrast", "gaussian_blur")  # contrast has directions, and blur has none
TYPES = np.array([0, 0, 1, 2])  # 2 is pristine


def test_directions_are_words_of_their_type():
    words = direction_words(TYPES, np.array([-1, 1, 1, 1]), NAMES)

    assert words.tolist() == ["low", "high", "", ""]


def test_a_type_of_two_images_is_not_measured():
    types = np.array([0, 0, 1, 1, 1, 2, 2, 2])
    true = np.array([50.0, 60, 30, 40, 50, 100, 100, 100])

    measures = measures_by_type(true, true + 2, types, NAMES)

    assert measures == {"gaussian_blur": {"srcc": 1.0, "rmse": 2.0, "images": 3}}
