"""How visible a distortion is, and the level that follows."""

import numpy as np
import pytest
import torch

from distorted_dataset import DISTORTION_TYPES, DistortedImageDataset
from distortions.registry import DISTORTIONS, LEVELS
from distortions.visibility import VisibilityCurves, dissimilarity
from tests.helpers import distort_all, photo_pieces


@pytest.fixture(scope="module")
def pieces():
    return photo_pieces(48, 48)


@pytest.fixture(scope="module")
def curves(pieces):
    return VisibilityCurves(pieces, ("gaussian_noise", "contrast"))


def by_its_formula(reference, distorted):
    """Compute it for one (H, W, 3) image, as the paper writes the map."""

    def opponent(image):
        r, g, b = np.moveaxis(image.astype(float), -1, 0)
        return (
            0.2989 * r + 0.5870 * g + 0.1140 * b,
            0.30 * r + 0.04 * g - 0.35 * b,
            0.34 * r - 0.60 * g + 0.17 * b,
        )

    def gradient(luma):
        padded = np.pad(luma, 1, mode="edge")
        height, width = luma.shape
        across = sum(padded[k : k + height, 2:] - padded[k : k + height, :-2] for k in range(3))
        down = sum(padded[2:, k : k + width] - padded[:-2, k : k + width] for k in range(3))
        return np.hypot(across / 3, down / 3)

    def similarity(a, b, constant):
        return (2 * a * b + constant) / (a**2 + b**2 + constant)

    luma_r, h_r, m_r = opponent(reference)
    luma_d, h_d, m_d = opponent(distorted)
    fused = gradient((luma_r + luma_d) / 2)
    g_r, g_d = gradient(luma_r), gradient(luma_d)
    gradients = similarity(g_r, g_d, 140) + similarity(g_d, fused, 55) - similarity(g_r, fused, 55)
    colours = (2 * (h_r * h_d + m_r * m_d) + 550) / (h_r**2 + h_d**2 + m_r**2 + m_d**2 + 550)
    return 1 - (0.6 * gradients + 0.4 * colours).mean()


@pytest.mark.parametrize("name", ("gaussian_noise", "color_saturation", "jpeg_compression"))
def test_the_measure_is_that_of_its_formula(pieces, name):
    distorted = distort_all(name, pieces, 1.0)

    measured = dissimilarity(pieces, distorted)

    expected = [by_its_formula(*pair) for pair in zip(pieces.numpy(), distorted.numpy())]
    assert np.allclose(measured, expected, rtol=1e-3)


def test_equal_images_have_no_distance(pieces):
    assert dissimilarity(pieces, pieces).max() == 0


def test_curves_rise_with_the_level(curves):
    for t, name in enumerate(("gaussian_noise", "contrast")):
        for row in range(2 if DISTORTIONS[name].directions else 1):
            assert (curves.curves[t, row].diff() > 0).all()


def test_the_average_scene_keeps_its_level(curves):
    """An image that measures what the curve says has the level that it was given."""
    levels = torch.tensor(LEVELS)
    measured = curves.curves[0, 0]
    zeros = torch.zeros(len(levels), dtype=torch.int64)

    refined = curves.refine(measured, zeros, zeros, levels, share=1.0)

    assert torch.allclose(refined, levels, atol=1e-5)


def test_noise_on_a_flat_scene_is_worse_than_on_a_busy_one(curves):
    rng = np.random.default_rng(0)
    busy = torch.from_numpy(rng.integers(60, 196, (8, 48, 48, 3), dtype=np.uint8))
    flat = torch.full_like(busy, 128)
    level = torch.full((8,), 0.6)
    zeros = torch.zeros(8, dtype=torch.int64)

    refined = []
    for scene in (busy, flat):
        measured = dissimilarity(scene, distort_all("gaussian_noise", scene, 0.6))
        refined.append(curves.refine(measured, zeros, zeros, level, share=0.5))

    assert (refined[0] < level).all()
    assert (refined[1] > level).all()
    assert (refined[1] <= 1).all()


def test_a_type_that_the_measure_does_not_see_keeps_its_level(pieces):
    """A shift of all values leaves gradients and hue, so that brightness is hardly seen."""
    unseen = VisibilityCurves(pieces, ("brightness",))
    level = torch.tensor([0.4])
    zero = torch.zeros(1, dtype=torch.int64)

    refined = unseen.refine(torch.tensor([0.9]), zero, zero, level, share=1.0)

    assert refined == level


def test_a_datasets_targets_are_refined_and_its_labels_stay(crops):
    references = crops.slice(0, 24)
    plain = DistortedImageDataset(references, DISTORTION_TYPES, seed=1)
    refined = DistortedImageDataset(references, DISTORTION_TYPES, seed=1, refinement=0.5)

    images = refined.images(torch.arange(len(refined)))

    is_pristine = refined.labels.main_type == len(DISTORTION_TYPES)
    difference = (refined.targets - refined.labels.quality).abs()
    assert torch.equal(images, plain.images(torch.arange(len(plain))))
    assert torch.equal(refined.labels.quality, plain.labels.quality)
    assert torch.equal(plain.targets, plain.labels.quality)
    assert (difference[is_pristine] == 0).all()
    assert 1 < difference[~is_pristine].mean() < 20
    assert refined.targets.min() >= 20 and refined.targets.max() <= 100


def test_targets_of_composed_distortions_stay(crops):
    dataset = DistortedImageDataset(crops.slice(0, 24), compose=3, refinement=0.5)

    dataset.images(torch.arange(len(dataset)))

    is_composed = (dataset.labels.type >= 0).sum(1) > 1
    assert torch.equal(dataset.targets[is_composed], dataset.labels.quality[is_composed])
