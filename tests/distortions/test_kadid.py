"""KADID-10k's 25: their tables, and what each does, against an outside oracle where one exists."""

import io
import warnings

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.interpolate import CubicSpline
from scipy.ndimage import convolve
from skimage.color import hsv2rgb, lab2rgb, rgb2hsv, rgb2lab, rgb2ycbcr
from skimage.filters import threshold_multiotsu
from sklearn.cluster import KMeans

from ablations.anchor_levels import PARAMETERS
from distortions.apply import apply_parameter
from distortions.effect import takes_effect
from distortions.kadid_ops import (
    KADID_AREA,
    block_size,
    code_jpeg2000,
    covered_pixels,
    edge_strength,
    moved_inside,
    quantize_colors,
    quantize_levels,
)
from distortions.registry import DISTORTIONS, select_types
from tests.helpers import photo_pieces
from utils.rng import fold_in

KADID = select_types("kadid")
RAMP = torch.arange(256, dtype=torch.uint8).repeat(8, 3, 1).permute(0, 2, 1)[None]  # (1, 8, 256, 3)


def distort(name, images, parameter):
    """Distort images (B, H, W, 3) uint8 by a type of KADID's, at a value of its parameter."""
    return apply_parameter(
        images, f"kadid_{name}", parameter, fold_in(5, torch.arange(len(images)))
    )


def psnr(first, second):
    difference = first.astype(np.float64) - second
    return 10 * np.log10(255**2 / (difference**2).mean())


def test_the_family_has_kadids_names_in_its_order():
    assert tuple(f"kadid_{name}" for name in PARAMETERS) == KADID


@pytest.mark.parametrize("name", PARAMETERS)
def test_tables_stay_within_kadids_parameters(name):
    """They begin with what changes nothing, and rise or fall strictly to level 5 at most."""
    parameter = PARAMETERS[name]
    entry = DISTORTIONS[f"kadid_{name}"]
    ends = [parameter.values[-1]]
    if parameter.directions:
        ends = [parameter.values[levels[-1] - 1] for levels in parameter.directions.values()]

    assert entry.directions == tuple(parameter.directions or ())
    assert len(entry.tables) == len(ends)
    for table, end in zip(entry.tables, ends):
        sign = np.sign(end - parameter.none)
        assert table[0] == parameter.none
        assert (sign * np.diff(table) > 0).all()
        assert sign * table[-1] <= sign * end


@pytest.mark.parametrize("sigma", (0.5, 1, 2, 5))
def test_gaussian_blur_agrees_with_opencv(sigma, crops):
    images = crops.images[:5]

    blurred = distort("gaussian_blur", images, sigma).numpy()

    side = 2 * int(2 * sigma) + 1
    border = cv2.BORDER_REPLICATE
    for image, result in zip(images.numpy().astype(np.float32), blurred):
        expected = cv2.GaussianBlur(image, (side, side), sigma, borderType=border)
        assert np.abs(expected - result).max() < 0.51


@pytest.mark.parametrize("radius", (1, 2.5, 4, 8))
def test_lens_blur_agrees_with_the_mean_of_a_disk(radius, crops):
    """The disk is counted on a grid of 11×11 points in each pixel."""
    points = (np.arange(17 * 11) + 0.5) / 11 - 8.5
    is_inside = np.hypot(points, points[:, None]) <= radius
    disk = is_inside.reshape(17, 11, 17, 11).mean((1, 3))
    images = crops.images[:5]

    blurred = distort("lens_blur", images, radius).numpy()

    for image, result in zip(images.numpy(), blurred):
        kernel = (disk / disk.sum())[:, :, None]
        expected = convolve(image.astype(np.float64), kernel, mode="nearest")
        assert np.abs(expected - result).mean() < 0.5


def test_motion_blur_averages_along_a_line():
    """A point becomes a line as long as the parameter, whose weights sum to 1."""
    points = torch.zeros((40, 31, 31, 3), dtype=torch.uint8)
    points[:, 15, 15] = 255

    blurred = distort("motion_blur", points, 9).double()[..., 0]

    assert blurred.sum((1, 2)).numpy() == pytest.approx(np.full(40, 255), abs=12)
    offset = torch.arange(31) - 15
    variance_x = (blurred.sum(1) * offset**2).sum(1)
    variance_y = (blurred.sum(2) * offset**2).sum(1)
    variance = (variance_x + variance_y) / blurred.sum((1, 2))
    # A line of 9 points has the variance 80 / 12; its width adds a little.
    assert variance.numpy() == pytest.approx(np.full(40, 80 / 12), rel=0.25)
    assert len(variance_x.unique()) > 20  # angles differ


def test_color_diffusion_keeps_luma_and_smooths_chroma(crops):
    images = crops.images[:20]

    changed = distort("color_diffusion", images, 1)

    before = rgb2lab(images.numpy())
    after = rgb2lab(changed.numpy())
    assert np.abs(after[..., 0] - before[..., 0]).mean() < 0.3
    roughness = [np.abs(np.diff(lab[..., 1:], axis=2)).mean() for lab in (before, after)]
    assert roughness[1] < 0.5 * roughness[0]


def test_color_shift_moves_green_alone():
    """At the strongest edge green is moved by the whole shift."""
    edge = torch.zeros((40, 32, 32, 3), dtype=torch.uint8)
    edge[:, :, 16:] = 200

    shifted = distort("color_shift", edge, 6)

    assert torch.equal(shifted[..., 0], edge[..., 0])
    assert torch.equal(shifted[..., 2], edge[..., 2])
    moved = (shifted[..., 1] != edge[..., 1]).sum(2).float().mean(1)  # pixels a row
    assert moved.max() <= 7
    assert moved.max() > 4
    assert moved.min() < 2  # along the edge


def test_color_quantization_is_as_good_as_k_means():
    """The mean squared error is at most a quarter above that of scikit-learn's k-means."""
    for image in photo_pieces(48, 48)[::4].numpy():
        result = quantize_colors(image, 16)

        pixels = image.reshape(-1, 3).astype(np.float64)
        fitted = KMeans(16, n_init=1, random_state=0).fit(pixels)
        error = ((result.reshape(-1, 3) - pixels) ** 2).sum()
        assert len(np.unique(result.reshape(-1, 3), axis=0)) <= 16
        assert error < 1.25 * fitted.inertia_


@pytest.mark.parametrize("factor", (0.4, 0.1, 0))
def test_saturation_1_agrees_with_scikit_image(factor, crops):
    images = crops.images[:20]

    changed = distort("color_saturation_1", images, factor).numpy()

    hsv = rgb2hsv(images.numpy())
    hsv[..., 1] *= factor
    assert np.abs(255 * hsv2rgb(hsv) - changed).max() < 0.51


def test_a_negative_factor_inverts_hues():
    red = torch.tensor([200, 100, 100], dtype=torch.uint8).expand(1, 8, 8, 3)

    changed = distort("color_saturation_1", red, -0.4)

    assert changed[0, 0, 0].tolist() == [200, 240, 240]


@pytest.mark.parametrize("factor", (2, 6))
def test_saturation_2_agrees_with_scikit_image(factor, crops):
    """Of colours that a screen can show; libraries clip others in ways of their own."""
    images = crops.images[:20]

    changed = distort("color_saturation_2", images, factor).numpy()

    lab = rgb2lab(images.numpy())
    lab[..., 1:] *= factor
    with pytest.warns(UserWarning, match="negative Z values"):
        expected = 255 * lab2rgb(lab)
    is_shown = ((expected > 0) & (expected < 255)).all(-1)
    assert is_shown.mean() > 0.05
    assert np.abs(expected - changed)[is_shown].mean() < 1


@pytest.mark.parametrize("ratio", (16, 45, 120, 400))
def test_a_compression_ratio_means_the_same_at_any_size(ratio):
    """Crops of 96×96 pixels lose as much alone as in the whole image, within 1 dB on average."""
    wholes = photo_pieces(288, 384)[[0, 15]].numpy()
    alone = []
    together = []
    for whole in wholes:
        coded = code_jpeg2000(whole, ratio)
        for top in range(0, 288, 96):
            for left in range(0, 384, 96):
                place = np.s_[top : top + 96, left : left + 96]
                crop = np.ascontiguousarray(whole[place])
                alone.append(psnr(code_jpeg2000(crop, ratio), crop))
                together.append(psnr(coded[place], crop))

    assert np.mean(alone) == pytest.approx(np.mean(together), abs=1)


@pytest.mark.parametrize("setting", (43, 24, 4))
def test_jpeg_agrees_with_pillows_codec(setting):
    images = photo_pieces(64, 64)[::5]

    coded = distort("jpeg", images, setting).numpy()

    for image, result in zip(images.numpy(), coded):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=setting, subsampling="4:2:0")
        assert np.abs(np.asarray(Image.open(buffer), np.float32) - result).mean() < 0.2


GREY = torch.full((30, 64, 64, 3), 128, dtype=torch.uint8)


def test_white_noise_has_its_variance():
    noise = distort("white_noise", GREY, 0.01).double() / 255

    assert noise.var(dim=(0, 1, 2)).numpy() == pytest.approx(np.full(3, 0.01), rel=0.03)


def test_noise_of_colour_components_has_its_variance_in_ycbcr():
    """Rounding to bytes adds a little to the smallest."""
    noisy = distort("white_noise_color_component", GREY, 0.001)

    components = rgb2ycbcr(noisy.numpy()) / 255
    assert components.var(axis=(0, 1, 2)) == pytest.approx(np.full(3, 0.001), rel=0.03)


def test_impulse_noise_is_half_salt_half_pepper():
    noisy = distort("impulse_noise", GREY, 0.03)

    share = [(noisy == value).double().mean().item() for value in (0, 255)]
    assert share == pytest.approx([0.015, 0.015], rel=0.05)
    assert ((noisy == 128) | (noisy == 0) | (noisy == 255)).all()


def test_multiplicative_noise_grows_with_the_value():
    for value in (40, 120):
        noisy = distort("multiplicative_noise", torch.full_like(GREY, value), 0.02)

        assert (noisy.double().std() / value).item() == pytest.approx(0.02**0.5, rel=0.02)


@pytest.mark.parametrize("variance", (0.01, 0.1))
def test_denoising_removes_most_of_the_noise(variance):
    """What is left is still worse than nothing."""
    images = photo_pieces(96, 96)[::5]

    result = distort("denoise", images, variance).numpy()
    noisy = distort("white_noise", images, variance).numpy()

    gain = psnr(result, images.numpy()) - psnr(noisy, images.numpy())
    assert gain > 3
    assert psnr(result, images.numpy()) < 32


def ramp_curve(name, amount):
    """Return what a type makes of the grey levels 0–255, in 0–1."""
    return distort(name, RAMP, amount)[0, 0, :, 1].numpy() / 255


@pytest.mark.parametrize(
    "name, amount, middle", (("brighten", 0.2, 0.6), ("brighten", 0.7, 0.85), ("darken", 0.4, 0.3))
)
def test_tone_curves_are_parabolas_through_their_middle(name, amount, middle):
    """The third of `brighten` that acts on L alone is as near as greys allow."""
    parabola = np.polyfit((0, 0.5, 1), (0, middle, 1), 2)

    curve = ramp_curve(name, amount)

    expected = np.polyval(parabola, np.linspace(0, 1, 256)).clip(0, 1)
    assert np.abs(curve - expected).max() < (0.05 if name == "brighten" else 0.5 / 255 + 1e-6)
    assert curve[0] == 0
    assert curve[-1] == 1


@pytest.mark.parametrize("amount", (0.3, 0, -0.2, -0.6))
def test_contrast_changes_by_kadids_spline(amount):
    spline = CubicSpline(
        (0, 0.3, 0.5, 0.7, 1),
        (0, 0.25 - amount / 4, 0.5, 0.75 + amount / 4, 1),
        bc_type="not-a-knot",
    )

    curve = ramp_curve("contrast_change", amount)

    expected = spline(np.linspace(0, 1, 256)).clip(0, 1)
    assert np.abs(curve - expected).max() < 0.5 / 255 + 1e-4


def test_mean_shift_adds_its_share_of_white():
    """The share is 20.4 grey levels, so that some images get 20 and others 21."""
    shifted = distort("mean_shift", GREY, 0.08)

    assert shifted.unique().tolist() == [148, 149]
    assert distort("mean_shift", GREY, -0.2).unique().tolist() == [77]


def test_jitter_takes_pixels_from_near():
    """A ramp of one grey level a pixel shows how far."""
    moved = distort("jitter", RAMP.repeat(40, 1, 1, 1), 0.5)

    distance = (moved.double() - RAMP)[:, :, 20:-20, 0]
    assert abs(distance.mean()) < 0.05
    assert 0.6 < distance.std() < 0.5 * 5**0.5


@pytest.mark.parametrize("number", (19.8, 97.7))
def test_patches_come_from_near_places(number):
    """Every pixel that changes is the original's, at most 8 pixels away along each axis."""
    count = 96 * 96
    values = torch.arange(count).view(96, 96)  # tell where a pixel comes from
    images = torch.stack([values // 256, values % 256, values * 0], dim=-1).byte()[None]

    output = distort("non_eccentricity_patch", images.repeat(20, 1, 1, 1), number).int()

    source = output[..., 0] * 256 + output[..., 1]
    far_y = source // 96 - torch.arange(96)[:, None]
    far_x = source % 96 - torch.arange(96)
    is_moved = source != values
    assert max(far_y.abs().max(), far_x.abs().max()) <= 8
    assert torch.hypot(far_y[is_moved].float(), far_x[is_moved].float()).min() > 3
    expected = number * 16**2 / KADID_AREA
    assert expected * 0.7 < is_moved.float().mean() < expected * 1.15


def test_pixelate_shows_one_pixel_of_each_block():
    images = photo_pieces(96, 96)[:1].repeat(20, 1, 1, 1)

    output = distort("pixelate", images, 3)

    changes = (output[:, :, 1:] != output[:, :, :-1]).any(-1).any(1)  # between columns
    assert changes.float().mean().item() == pytest.approx(1 / 3, abs=0.02)
    places = changes.int().argmax(1)
    assert len(places.unique()) == 3  # where the grid begins is random
    colors = {tuple(color) for color in images[0].reshape(-1, 3).tolist()}
    assert {tuple(color) for color in output.reshape(-1, 3).tolist()} <= colors


def test_quantization_agrees_with_otsus_thresholds():
    """The error is at most 2 % above that of scikit-image's exhaustive search."""
    for image in photo_pieces(64, 64)[::5].reshape(-1, 64, 192).numpy():
        result = quantize_levels(image, 4)

        classes = np.digitize(image, threshold_multiotsu(image, 4) + 1)
        error = sum(image[classes == i].var() * (classes == i).sum() for i in range(4))
        assert len(np.unique(result)) == 4
        assert ((result.astype(float) - image) ** 2).sum() < 1.02 * error + image.size


@pytest.mark.parametrize("height, width", ((384, 512), (96, 96), (32, 32), (100, 9)))
@pytest.mark.parametrize("number", (0.533, 9.64))
def test_color_blocks_cover_their_share(number, height, width):
    """They hide at most what they would cover side by side, and often less, where they overlap."""
    images = torch.zeros((60, height, width, 3), dtype=torch.uint8)

    covered = (distort("color_block", images, number) > 0).any(-1)

    share = number * 32**2 / KADID_AREA
    assert covered.any(2).any(1).all()
    assert covered.float().mean().item() == pytest.approx(share, rel=0.2)


@given(st.floats(0.01, 120), st.sampled_from((16, 32)), st.integers(8, 600), st.integers(8, 600))
def test_blocks_cover_the_same_share_of_any_image(number, side, height, width):
    number = min(number, KADID_AREA / side**2)  # side by side they fill an image

    count, block_height, block_width = block_size(number, side, height, width)

    covered = count * block_height * block_width / (height * width)
    assert covered == pytest.approx(number * side**2 / KADID_AREA)
    assert 0 < block_height <= height + 1e-6
    assert 0 < block_width <= width + 1e-6


@given(st.floats(0, 1), st.floats(0.01, 1), st.integers(8, 600), st.floats(-8, 8))
def test_a_part_stays_inside_and_so_does_its_source(place, length, size, distance):
    part = covered_pixels(place, length * size, size)
    source = moved_inside(part, distance, size)

    assert 0 <= part.start < part.stop <= size
    assert 0 <= source.start < source.stop <= size
    assert source.stop - source.start == part.stop - part.start
    assert abs(part.stop - part.start - length * size) <= 1


def test_sharpening_is_unsharp_masking_of_lightness(crops):
    images = crops.images[:20]

    sharp = distort("high_sharpen", images, 2).numpy()

    for image, result in zip(images.numpy(), sharp):
        lab = rgb2lab(image)
        lightness = lab[..., 0].astype(np.float32)
        blurred = cv2.GaussianBlur(lightness, (13, 13), 3, borderType=cv2.BORDER_REPLICATE)
        lab[..., 0] = (lightness + 2 * (lightness - blurred)).clip(0, 100)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of colours that no screen shows
            expected = 255 * lab2rgb(lab).clip(0, 1)
        assert np.abs(expected - result).mean() < 1


def test_grey_images_get_no_change_of_chroma():
    pieces = photo_pieces(64, 64)
    images = pieces.float().mean(-1, keepdim=True).round().byte().expand_as(pieces).contiguous()

    effective = takes_effect(images, KADID)

    never = {name for t, name in enumerate(KADID) if not effective[:, t].any()}
    assert never == {
        "kadid_color_diffusion",
        "kadid_color_saturation_1",
        "kadid_color_saturation_2",
    }


@pytest.mark.parametrize(
    ("height", "width", "count", "side"),
    ((384, 512, 10, 32.0), (96, 96, 1, 21.9), (192, 256, 2, 35.8), (768, 1024, 40, 32.0)),
)
def test_blocks_cover_the_same_share_at_any_size(height, width, count, side):
    """Ten blocks of 32 pixels in 512×384: fewer in a smaller image, whose size makes it up."""
    found, block_height, block_width = block_size(10, 32, height, width)

    assert found == count
    assert block_height == block_width == pytest.approx(side, abs=0.1)
    share = 10 * 32**2 / (384 * 512)
    assert found * block_height * block_width / (height * width) == pytest.approx(share)


def test_edges_do_not_depend_on_where_arrays_lie_in_memory():
    """OpenCV's magnitude does, in its last bits."""
    rng = np.random.default_rng(1)
    colors = np.array([[200, 30, 90], [20, 180, 60]], np.uint8)
    pixels = colors[rng.integers(0, 2, (97, 131))]
    held, results = [], []
    for i in range(120):
        held.append(np.empty(rng.integers(1, 5000), np.uint8))  # moves what is made after it
        memory = np.empty(pixels.size + 64, np.uint8)
        image = memory[i % 64 :][: pixels.size].reshape(pixels.shape)
        image[:] = pixels
        results.append(edge_strength(image))

    for result in results:
        np.testing.assert_array_equal(result, results[0])
