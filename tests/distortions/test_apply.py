"""apply_distortion: one image, as a PIL image or an array."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distortions.apply import apply_distortion
from utils.errors import UserError


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


GREY = np.full((32, 40, 3), 100, np.uint8)
PHOTO = "photo.jpg"

WRONG_INPUT = (
    ({"distortion_type": "sepia"}, "unknown distortion 'sepia'.*gaussian_blur"),
    ({"distortion_type": "contrasts"}, "unknown distortion 'contrasts'; did you mean contrast?"),
    ({"distortion_type": None}, "unknown distortion None"),
    ({"distortion_type": ["contrast"]}, r"unknown distortion \['contrast'\]"),
    ({"level": 1.2}, "level 1.2: expected a number in 0–1"),
    ({"level": -0.1}, "level -0.1: expected a number in 0–1"),
    ({"level": float("nan")}, "level nan: expected a number in 0–1"),
    ({"level": "0.5"}, "level '0.5': expected a number"),
    ({"level": None}, "level None: expected a number"),
    ({"level": True}, "level True: expected a number"),
    ({"level": np.zeros(2)}, r"level array\(\[0., 0.\]\): expected a number"),
    ({"direction": 0}, r"direction 0 is none of −1, \+1, None \(of contrast, −1 is 'low'"),
    ({"direction": "low"}, "direction 'low' is none of"),
    ({"direction": True}, "direction True is none of"),
    ({"direction": np.ones(2)}, "is none of"),
    ({"seed": 0.5}, "seed 0.5: expected a whole number of 64 bits at most"),
    ({"seed": "1"}, "seed '1': expected"),
    ({"seed": None}, "seed None: expected"),
    ({"seed": 2**64}, "seed 18446744073709551616: expected"),
    ({"image": None}, "got an object of type NoneType"),
    ({"image": PHOTO}, "got 'photo.jpg'; read a file by `Image.open` of PIL"),
    ({"image": Path(PHOTO)}, "got .*'photo.jpg'.*; read a file"),
    ({"image": b"JFIF"}, "got b'JFIF'; read a file"),
    ({"image": 3}, "got an object of type int"),
    ({"image": np.zeros((7, 32, 3), np.uint8)}, r"sides of 8 or more, got uint8 \(7, 32, 3\)$"),
    ({"image": np.zeros((0, 32, 3), np.uint8)}, r"got uint8 \(0, 32, 3\)$"),
    ({"image": np.zeros((32, 32, 3))}, r"got float64 .*\(255 \* image\)"),
    ({"image": GREY * 1.0}, "got float64 .*0–255 by"),
    ({"image": GREY[:, :, 0]}, r"got uint8 \(32, 40\); .*dstack"),
    ({"image": GREY[:, :, :1]}, r"got uint8 \(32, 40, 1\); .*dstack"),
    ({"image": GREY[:, :, [0, 1, 2, 0]]}, r"got uint8 \(32, 40, 4\); .*`image\[:, :, :3\]`"),
    ({"image": GREY.transpose(2, 0, 1)}, r"got uint8 \(3, 32, 40\); .*transpose\(1, 2, 0\)"),
    ({"image": GREY[None]}, r"got uint8 \(1, 32, 40, 3\)$"),
    ({"image": GREY.tolist()}, r"got int64 \(32, 40, 3\); "),
    ({"image": [[1, 2], [3]]}, r"what cannot be read \(ValueError: "),
    ({"image": []}, r"got float64 \(0,\)$"),
    ({"image": torch.zeros(32, 40, 3)}, r"got float32 \(32, 40, 3\); "),
    ({"image": torch.zeros(3, 32, 40, dtype=torch.uint8)}, r"got uint8 \(3, 32, 40\); "),
    ({"image": Image.new("RGB", (7, 32))}, r"got uint8 \(32, 7, 3\)"),
    ({"image": Image.new("F", (32, 32))}, "what cannot be read .*no known range"),
)


@pytest.mark.parametrize("change, message", WRONG_INPUT)
def test_bad_input_is_refused(change, message):
    good = {"image": GREY, "distortion_type": "contrast", "level": 0.5, "direction": 1}

    with pytest.raises(ValueError, match=message) as caught:
        apply_distortion(**{**good, **change})

    assert isinstance(caught.value, UserError)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_cut_short_is_refused():
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "JPEG")
    image = Image.open(io.BytesIO(file.getvalue()[:-900]))

    with pytest.raises(UserError, match="what cannot be read .*truncated"):
        apply_distortion(image, "contrast", 0.5)


@pytest.mark.parametrize(
    "change",
    (
        {"level": np.float32(0.5)},
        {"level": torch.tensor(0.5)},
        {"level": np.array(0.5)},
        {"direction": np.int64(1)},
        {"direction": 1.0},
        {"seed": np.uint8(0)},
        {"image": np.broadcast_to(np.uint8(100), (32, 40, 3))},
        {"image": GREY[::-1, :, ::-1]},
    ),
)
def test_numbers_and_arrays_of_any_kind_are_taken(change):
    good = {"image": GREY, "distortion_type": "brightness", "level": 0.5, "direction": 1}

    output, quality = apply_distortion(**{**good, **change})

    assert np.array_equal(output, apply_distortion(**good)[0])
    assert quality == 77.5


def test_a_tensor_gives_a_tensor():
    image = torch.from_numpy(GREY)

    output, _ = apply_distortion(image, "brightness", 1, direction=1, seed=-1)

    assert torch.is_tensor(output)
    assert output.unique().tolist() == [187]
    assert image.unique().tolist() == [100]


@pytest.mark.parametrize("value", (0, 128, 255))
def test_an_image_that_does_not_change_keeps_its_quality(value):
    flat = np.full((16, 16, 3), value, np.uint8)

    distorted, quality = apply_distortion(flat, "gaussian_blur", 1.0)

    assert np.array_equal(distorted, flat)
    assert quality == 100
