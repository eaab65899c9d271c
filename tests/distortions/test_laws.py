"""Laws of every registered distortion, on real images."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from distortions.apply import distort
from distortions.registry import DISTORTION_TYPES, DISTORTIONS
from tests.helpers import distort_all, photo_pieces
from utils.rng import fold_in

# These make the same bytes on a CPU and on a GPU.
EXACT = ("jpeg_compression", "color_saturation", "contrast", "brightness", "pixelation")
SIGNED = [
    (name, sign)
    for name, entry in DISTORTIONS.items()
    for sign in ((-1, 1) if entry.directions else (1,))
]
# Of KADID's, these work on a whole batch, and in bytes.
KADID_IN_BYTES = ("gaussian_blur", "motion_blur", "jpeg", "white_noise", "mean_shift", "darken")
BATCHED = (*DISTORTION_TYPES, *(f"kadid_{name}" for name in KADID_IN_BYTES))
SIGNED_BATCHED = [(name, sign) for name, sign in SIGNED if name in BATCHED]


@pytest.mark.parametrize("name, direction", SIGNED)
def test_level_0_is_the_identity(name, direction, crops):
    assert torch.equal(distort_all(name, crops.images, 0.0, direction), crops.images)


@pytest.mark.parametrize("height, width", ((32, 32), (41, 9), (97, 130)))
@pytest.mark.parametrize("name, direction", SIGNED_BATCHED)
def test_cpu_and_gpu_ways_agree(name, direction, height, width, monkeypatch):
    """Within one grey level, and hardly ever so much."""
    images = photo_pieces(height, width)
    levels = torch.linspace(0, 1, len(images))

    one_by_one = distort_all(name, images, levels, direction)
    for module in ("uint8_ops", "filters", "pixelate", "jpeg"):
        monkeypatch.setattr(f"distortions.{module}.on_cpu", lambda images: False)
    as_a_batch = distort_all(name, images, levels, direction)

    difference = (as_a_batch.int() - one_by_one.int()).abs()
    assert difference.max() <= 1
    assert difference.float().mean() < 0.01
    assert name not in EXACT or difference.max() == 0


@pytest.mark.parametrize("name, direction", SIGNED)
def test_the_mean_error_grows_with_the_level(name, direction, crops):
    """It grows strictly in steps of 0.05, but for two types and KADID's.

    JPEG may stay where its tables do. A Gaussian of less than a quarter pixel (under level 0.08,
    below what is ever drawn) changes no pixel by a whole grey level. KADID's take long, so their
    steps are 0.2, on 200 crops.
    """
    steps = 5 if DISTORTIONS[name].is_kadid else 10 if name == "jpeg_compression" else 20
    levels = np.linspace(0, 1, steps + 1)
    if name == "gaussian_blur":
        levels = np.delete(levels, 1)
    images = crops.images[:200] if DISTORTIONS[name].is_kadid else crops.images

    errors = []
    for level in levels:
        output = distort_all(name, images, level, direction).float()
        errors.append((output - images).abs().mean().item())

    assert errors[0] == 0
    assert (np.diff(errors) > 0).all(), np.round(errors, 3)


@pytest.mark.parametrize("height, width", ((32, 32), (41, 9)))
@pytest.mark.parametrize("name", DISTORTIONS)
def test_an_image_depends_on_no_other_image(name, height, width):
    """It depends neither on its batch nor on its place in it."""
    small = torch.rand(257, 3, 5, 5)
    images = (255 * F.interpolate(small, (height, width))).byte().permute(0, 2, 3, 1).contiguous()
    keys = fold_in(3, torch.arange(257))
    levels = torch.linspace(1, 0.2, 257)

    together = distort_all(name, images, levels, -1, keys)

    for size in (1, 2, 3, 64):
        chosen = torch.randperm(257)[:size]
        alone = distort_all(name, images[chosen], levels[chosen], -1, keys[chosen])
        assert torch.equal(alone, together[chosen]), size


def test_images_of_all_types_stay_in_their_places(crops):
    label = torch.arange(-1, 8).repeat(4)
    images = crops.images[:36]
    levels = torch.linspace(0.2, 1, 36)
    keys = fold_in(1, torch.arange(36))

    mixed = distort(images, DISTORTION_TYPES, label, levels, torch.ones(36), keys)

    for i in range(36):
        expected = images[i : i + 1]
        if label[i] >= 0:
            name = DISTORTION_TYPES[label[i]]
            expected = distort_all(name, expected, levels[i : i + 1], 1, keys[i : i + 1])
        assert torch.equal(mixed[i], expected[0]), label[i]


@pytest.mark.parametrize("name", DISTORTION_TYPES)
def test_mixed_precision_around_it_changes_nothing(name, crops):
    expected = distort_all(name, crops.images[:20], 0.7)

    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(distort_all(name, crops.images[:20], 0.7), expected)


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(list(DISTORTIONS)),
    st.integers(8, 41),
    st.integers(8, 41),
    st.floats(0, 1),
    st.sampled_from((-1, 1)),
)
def test_any_size_level_and_direction_keeps_the_size(name, height, width, level, direction):
    generator = torch.Generator().manual_seed(0)
    shape = (2, height, width, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

    assert distort_all(name, images, level, direction).shape == images.shape
