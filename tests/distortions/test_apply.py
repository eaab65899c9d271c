"""apply_distortion: one image, as a PIL image or an array."""

import numpy as np
import pytest
from PIL import Image

from distortions.apply import apply_distortion


def test_pil_images_and_arrays_are_served_alike(crops):
    array = crops.images[0].numpy()

    from_array, quality = apply_distortion(array, "motion_blur", 0.5, seed=3)
    from_pil, _ = apply_distortion(Image.fromarray(array), "motion_blur", 0.5, seed=3)

    assert isinstance(from_pil, Image.Image)
    assert np.array_equal(np.asarray(from_pil), from_array)
    assert quality == 67.5


def test_the_seed_decides_the_random_numbers(crops):
    array = crops.images[0].numpy()

    first, _ = apply_distortion(array, "motion_blur", 0.5, seed=3)
    second, _ = apply_distortion(array, "motion_blur", 0.5, seed=4)

    assert not np.array_equal(first, second)


def test_the_seed_alone_draws_the_direction(crops):
    """Level says nothing about it."""
    array = crops.images[0].numpy()

    directions = []
    for seed in range(20):
        is_brighter = set()
        for level in (0.2, 1):
            output, _ = apply_distortion(array, "brightness", level, seed=seed)
            is_brighter.add(bool(output.mean() > array.mean()))
        directions.append(is_brighter)

    assert {True} in directions
    assert {False} in directions
    assert {True, False} not in directions


@pytest.mark.parametrize(
    "change, message",
    (
        ({"distortion_type": "sepia"}, "unknown distortion 'sepia'.*gaussian_blur"),
        ({"level": 1.2}, "level 1.2 is outside 0–1"),
        ({"level": float("nan")}, "level nan"),
        ({"direction": 0}, "direction 0"),
        ({"image": np.zeros((7, 32, 3), np.uint8)}, r"sides of 8 or more, got uint8 \(7, 32, 3\)"),
        ({"image": np.zeros((32, 32, 3))}, "got float64"),
    ),
)
def test_bad_input_is_refused(change, message):
    good = {
        "image": np.zeros((32, 32, 3), np.uint8),
        "distortion_type": "contrast",
        "level": 0.5,
        "direction": 1,
    }

    with pytest.raises(ValueError, match=message):
        apply_distortion(**{**good, **change})
