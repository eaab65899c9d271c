"""The default eight: their frozen tables, and what each does, against an outside oracle."""

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from distortions.jpeg import jpeg_batched, jpeg_round_trip
from distortions.registry import DISTORTION_TYPES, DISTORTIONS
from distortions.standard import LUMA
from tests.helpers import distort_all, photo_pieces

# Name: worst quality, and the parameter at levels 0, 0.2, …, 1 in each direction.
FROZEN = {
    "gaussian_blur": (40, (0, 0.60, 0.77, 0.945, 1.34, 1.83)),
    "motion_blur": (35, (1, 2.08, 2.97, 3.86, 5.37, 8.67)),
    "gaussian_noise": (30, (0, 6.8, 11.4, 16.9, 27.2, 45)),
    "jpeg_compression": (20, (100, 26, 18, 12, 7, 3)),
    "color_saturation": (
        50,
        (1, 0.857, 0.721, 0.585, 0.449, 0.27),
        (1, 1.32, 1.66, 2.00, 2.63, 3.63),
    ),
    "contrast": (50, (1, 0.85, 0.70, 0.55, 0.40, 0.25), (1, 1.16, 1.32, 1.48, 1.64, 1.80)),
    "brightness": (55, (0, -27, -42, -56, -71, -87), (0, 27, 42, 56, 71, 87)),
    "pixelation": (35, (1, 1.10, 1.22, 1.45, 2.00, 2.75)),
}


def test_the_tables_are_frozen():
    """Stronger distortions would buy every score."""
    tables = {}
    for name in DISTORTION_TYPES:
        entry = DISTORTIONS[name]
        tables[name] = (entry.worst_quality, *entry.tables)

    assert tables == FROZEN


def test_the_eight_come_first_in_label_order():
    assert tuple(DISTORTIONS)[:8] == DISTORTION_TYPES == tuple(FROZEN)


@pytest.mark.parametrize("level, sigma", ((0.2, 0.60), (0.6, 0.945), (1.0, 1.83)))
def test_gaussian_blur_agrees_with_opencv(level, sigma, crops):
    """Within 0.54 grey levels: 0.5 is rounding, the rest what lies beyond four sigma."""
    images = crops.images[:20]

    blurred = distort_all("gaussian_blur", images, level).numpy()

    for image, result in zip(images.numpy(), blurred):
        expected = cv2.GaussianBlur(image.astype(np.float32), (15, 15), sigma)
        assert np.abs(expected - result).max() < 0.54


@pytest.mark.parametrize("level, deviation", ((0.2, 6.8), (0.8, 27.2)))
def test_gaussian_noise_has_the_tables_deviation(level, deviation):
    grey = torch.full((200, 32, 32, 3), 128, dtype=torch.uint8)

    noisy = distort_all("gaussian_noise", grey, level).float()

    assert noisy.std().item() == pytest.approx(deviation, rel=0.02)


@pytest.mark.parametrize("setting", (1, 3, 7, 12, 18, 26, 75, 95, 100))
@pytest.mark.parametrize("height, width", ((32, 32), (153, 241), (8, 17), (33, 16)))
def test_batched_jpeg_is_libjpegs_byte_for_byte(setting, height, width):
    noise = torch.randint(0, 256, (5, height, width, 3)).byte()
    images = torch.cat([photo_pieces(height, width), noise, 255 * (noise > 127).byte()])
    settings = torch.full((len(images),), float(setting))

    assert torch.equal(jpeg_batched(images, settings), jpeg_round_trip(images, settings))


@pytest.mark.parametrize("setting", (3, 7, 12, 18, 26, 75))
@pytest.mark.parametrize("height, width", ((32, 32), (153, 241)))
def test_jpeg_agrees_with_pillows_codec(setting, height, width):
    """Within 0.2 grey levels on average; the law allows 1."""
    images = photo_pieces(height, width)

    coded = jpeg_round_trip(images, torch.full((len(images),), float(setting)))

    for image, ours in zip(images.numpy(), coded.numpy()):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=setting, subsampling="4:2:0")
        theirs = np.asarray(Image.open(buffer), np.float32)
        assert np.abs(ours - theirs).mean() < 0.2


def squeeze(images, low, high):
    """Squeeze images into grey levels that no distortion of theirs clips."""
    return (low + images * ((high - low) / 255)).to(torch.uint8)


def luma(images):
    return (images.double() * torch.tensor(LUMA)).sum(3, keepdim=True)


@pytest.mark.parametrize(
    "level, direction, factor", ((0.4, -1, 0.721), (0.2, 1, 1.32), (1.0, -1, 0.27))
)
def test_saturation_scales_chroma_and_keeps_luma(level, direction, factor, crops):
    """Within 0.65 grey levels: 0.5 is rounding, the rest that of the matrix to 1024ths."""
    images = squeeze(crops.images, 110, 145)

    output = distort_all("color_saturation", images, level, direction)

    expected = luma(images) + factor * (images - luma(images))
    assert (luma(output) - luma(images)).abs().max() < 0.5
    assert (output - expected).abs().max() < 0.65


@pytest.mark.parametrize("level, direction, factor", ((0.6, -1, 0.55), (0.6, 1, 1.48)))
def test_contrast_scales_about_the_mean(level, direction, factor, crops):
    images = squeeze(crops.images, 100, 155)

    output = distort_all("contrast", images, level, direction)

    mean = luma(images).mean((1, 2, 3), keepdim=True)
    assert (output - (mean + factor * (images - mean))).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize("direction, expected", ((-1, 128 - 56), (1, 128 + 56)))
def test_brightness_shifts_all_pixels_alike(direction, expected):
    grey = torch.full((1, 8, 8, 3), 128, dtype=torch.uint8)

    shifted = distort_all("brightness", grey, 0.6, direction)

    assert shifted.unique().tolist() == [expected]


def test_pixelation_at_level_08_has_blocks_of_two_pixels(crops):
    output = distort_all("pixelation", crops.images, 0.8)

    equals_left = (output[:, :, 1:] == output[:, :, :-1]).all(1).all(2)  # (N, 31), of columns
    alternates = equals_left[:, 1:] ^ equals_left[:, :-1]
    assert alternates.float().mean() > 0.95
