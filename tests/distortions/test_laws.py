import io
import math

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from distortions.filters import motion_kernel
from distortions.jpeg import jpeg_batched, jpeg_round_trip
from distortions.registry import (
    DISTORTION_TYPES,
    DISTORTIONS,
    LUMA,
    Distortion,
    apply_distortion,
    distort,
    interpolate,
    per_image,
    select_types,
)
from references.sources import load_photo
from utils.rng import fold_in

EXACT = (
    "jpeg_compression",
    "color_saturation",
    "contrast",
    "brightness",
    "pixelation",
)  # the same bytes in both ways
SIGNED = [
    (name, sign)
    for name, entry in DISTORTIONS.items()
    for sign in ((-1, 1) if entry.directions else (1,))
]


def run(name, images, level, direction=1, keys=None):
    """Distort all images by one type; level a number or one an image."""
    count = len(images)
    keys = fold_in(7, torch.arange(count)) if keys is None else keys
    levels = torch.as_tensor(level, dtype=torch.float32).expand(count)
    return distort(
        images,
        (name,),
        torch.zeros(count, dtype=torch.long),
        levels,
        torch.full((count,), direction),
        keys,
    )


def photos(height, width):
    """(21, 3, height, width) uint8 from three places in each photograph."""
    boxes = [(x, y, x + width, y + height) for x, y in ((0, 0), (40, 60), (101, 33))]
    pieces = [np.array(load_photo(i).crop(box)) for i in range(7) for box in boxes]
    return torch.from_numpy(np.stack(pieces)).permute(0, 3, 1, 2)


def test_the_default_types_are_the_eight_in_label_order():
    assert DISTORTION_TYPES == ("gaussian_blur", "motion_blur", "gaussian_noise", "jpeg_compression", "color_saturation",
                                "contrast", "brightness", "pixelation")  # fmt: skip
    assert [DISTORTIONS[name].worst_quality for name in DISTORTION_TYPES] == [
        40,
        35,
        30,
        20,
        50,
        50,
        55,
        35,
    ]


@pytest.mark.parametrize("name, direction", SIGNED)
def test_level_0_is_the_identity(name, direction, crops):
    assert torch.equal(run(name, crops.images, 0.0, direction), crops.images)


@pytest.mark.parametrize("height, width", ((32, 32), (41, 9), (97, 130)))
@pytest.mark.parametrize("name, direction", [one for one in SIGNED if one[0] in DISTORTION_TYPES])
def test_one_by_one_and_as_a_batch_they_agree_within_a_grey_level(
    name, direction, height, width, monkeypatch
):
    images = photos(height, width)
    levels = torch.linspace(0, 1, len(images))
    alone = run(name, images, levels, direction)
    for module in ("distortions.uint8_ops", "distortions.filters", "distortions.jpeg"):
        monkeypatch.setattr(f"{module}.on_cpu", lambda images: False)  # as on a GPU
    difference = (run(name, images, levels, direction).int() - alone.int()).abs()
    assert difference.max() <= 1 and difference.float().mean() < 0.01
    assert name not in EXACT or difference.max() == 0


@pytest.mark.parametrize("name, direction", SIGNED)
def test_the_mean_error_grows_strictly_with_the_level(name, direction, crops):
    """In steps of 0.05, but for two: JPEG may stay where its tables do, and a Gaussian of less than a quarter pixel (under
    level 0.08, below what is ever drawn) changes no pixel by a whole grey level."""
    levels = np.linspace(0, 1, 11 if name == "jpeg_compression" else 21)
    levels = np.delete(levels, 1) if name == "gaussian_blur" else levels
    errors = [
        (run(name, crops.images, level, direction).float() - crops.images).abs().mean().item()
        for level in levels
    ]
    assert errors[0] == 0 and (np.diff(errors) > 0).all(), np.round(errors, 3)


@pytest.mark.parametrize("height, width", ((32, 32), (41, 9)))
@pytest.mark.parametrize("name", DISTORTIONS)
def test_an_image_depends_on_neither_its_batch_nor_its_place(name, height, width):
    images = torch.stack(
        [F.interpolate(torch.rand(3, 1, 5, 5), (height, width))[:, 0] for _ in range(257)]
    )
    images, keys, levels = (
        (255 * images).byte(),
        fold_in(3, torch.arange(257)),
        torch.linspace(1, 0.2, 257),
    )
    together = run(name, images, levels, -1, keys)
    for size in (1, 2, 3, 64):
        chosen = torch.randperm(257)[:size]
        assert torch.equal(
            run(name, images[chosen], levels[chosen], -1, keys[chosen]), together[chosen]
        ), size


def test_images_of_all_types_stay_in_their_places(crops):
    label = torch.arange(-1, 8).repeat(4)
    images, levels, keys = (
        crops.images[:36],
        torch.linspace(0.2, 1, 36),
        fold_in(1, torch.arange(36)),
    )
    mixed = distort(images, DISTORTION_TYPES, label, levels, torch.ones(36), keys)
    for i in range(36):
        name = DISTORTION_TYPES[label[i]]
        alone = (
            images[i]
            if label[i] < 0
            else run(name, images[i : i + 1], levels[i : i + 1], 1, keys[i : i + 1])[0]
        )
        assert torch.equal(mixed[i], alone), name


@pytest.mark.parametrize("name", DISTORTION_TYPES)
def test_mixed_precision_around_it_changes_nothing(name, crops):
    full = run(name, crops.images[:20], 0.7)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(run(name, crops.images[:20], 0.7), full)


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(list(DISTORTIONS)),
    st.integers(8, 41),
    st.integers(8, 41),
    st.floats(0, 1),
    st.sampled_from((-1, 1)),
)
def test_any_size_level_and_direction_gives_an_image_of_that_size(
    name, height, width, level, direction
):
    images = torch.randint(
        0, 256, (2, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    assert run(name, images, level, direction).shape == images.shape


@pytest.mark.parametrize("setting", (1, 3, 7, 12, 18, 26, 75, 95, 100))
@pytest.mark.parametrize("height, width", ((32, 32), (153, 241), (8, 17), (33, 16)))
def test_emulated_jpeg_is_libjpegs_byte_for_byte(setting, height, width):
    noise = torch.randint(0, 256, (5, 3, height, width)).byte()
    images = torch.cat([photos(height, width), noise, 255 * (noise > 127).byte()])
    qualities = torch.full((len(images),), float(setting))
    assert torch.equal(jpeg_batched(images, qualities), jpeg_round_trip(images, qualities))


@pytest.mark.parametrize("setting", (3, 7, 12, 18, 26, 75))
@pytest.mark.parametrize("height, width", ((32, 32), (153, 241)))
def test_jpeg_agrees_with_pillows_codec(setting, height, width):
    images = photos(height, width)
    for image, ours in zip(images, jpeg_round_trip(images, torch.full((21,), float(setting)))):
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(
            buffer, "JPEG", quality=setting, subsampling="4:2:0"
        )
        theirs = np.asarray(Image.open(buffer), np.float32)
        assert (
            np.abs(ours.permute(1, 2, 0).numpy() - theirs).mean() < 0.2
        )  # grey levels; the law allows 1


@pytest.mark.parametrize("level, sigma", ((0.2, 0.60), (0.6, 0.945), (1.0, 1.83)))
def test_gaussian_blur_agrees_with_opencv(level, sigma, crops):
    ours = run("gaussian_blur", crops.images[:20], level).permute(0, 2, 3, 1).numpy()
    for image, result in zip(crops.images[:20].permute(0, 2, 3, 1).numpy(), ours):
        expected = cv2.GaussianBlur(image.astype(np.float32), (15, 15), sigma)
        assert (
            np.abs(expected - result).max() < 0.54
        )  # 0.5 is rounding, the rest what lies beyond four sigma


def test_a_motion_kernel_is_centred_and_as_long_as_its_path():
    kernels = motion_kernel(torch.full((50, 1, 1), 8.67), math.pi * torch.rand(50, 1, 1))
    at = torch.arange(9.0) - 4
    assert torch.allclose(kernels.sum((1, 2)), torch.ones(50), atol=1e-5)
    assert (kernels * at).sum((1, 2)).abs().max() < 1e-4 and (kernels * at[:, None]).sum(
        (1, 2)
    ).abs().max() < 1e-4
    far = ((kernels > 0) * (at**2 + at[:, None] ** 2).sqrt()).amax((1, 2))
    assert (far <= 8.67 / 2 + 1).all() and (far >= 8.67 / 2 - 1).all()


def test_gaussian_noise_has_the_tables_deviation():
    grey = torch.full((200, 3, 32, 32), 128, dtype=torch.uint8)
    for level, deviation in ((0.2, 6.8), (0.8, 27.2)):
        assert run("gaussian_noise", grey, level).float().std().item() == pytest.approx(
            deviation, rel=0.02
        )


def between(images, low=60, high=195):
    """Images squeezed into grey levels that no distortion of theirs clips."""
    return (low + images * ((high - low) / 255)).to(torch.uint8)


def luma(images):
    return (images.double() * torch.tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)


@pytest.mark.parametrize(
    "level, direction, factor", ((0.4, -1, 0.721), (0.2, 1, 1.32), (1.0, -1, 0.27))
)
def test_saturation_scales_chroma_and_keeps_luma(level, direction, factor, crops):
    images = between(crops.images, 110, 145)
    output = run("color_saturation", images, level, direction)
    expected = luma(images) + factor * (images - luma(images))
    assert (luma(output) - luma(images)).abs().max() < 0.5
    assert (
        output - expected
    ).abs().max() < 0.65  # 0.5 is rounding, the rest that of the matrix to 1024ths


@pytest.mark.parametrize("level, direction, factor", ((0.6, -1, 0.55), (0.6, 1, 1.48)))
def test_contrast_scales_about_the_mean(level, direction, factor, crops):
    images = between(crops.images, 100, 155)
    output = run("contrast", images, level, direction)
    mean = luma(images).mean((1, 2, 3), keepdim=True)
    assert (output - (mean + factor * (images - mean))).abs().max() <= 0.5 + 1e-3


def test_brightness_shifts_all_pixels_alike():
    grey = torch.full((1, 3, 8, 8), 128, dtype=torch.uint8)
    assert run("brightness", grey, 0.6, -1).unique().tolist() == [128 - 56]
    assert run("brightness", grey, 0.6, 1).unique().tolist() == [128 + 56]


def test_pixelation_at_level_08_shows_blocks_of_two_pixels(crops):
    output = run("pixelation", crops.images, 0.8)
    same = (
        (output[..., 1:] == output[..., :-1]).all(1).all(1)
    )  # (N, 31): columns equal to their left neighbour
    runs_of_two = same[:, 1:] ^ same[:, :-1]
    assert runs_of_two.float().mean() > 0.95


@given(st.floats(0, 1, width=32))
def test_interpolate_agrees_with_numpy(level):
    nodes = (1, 2.08, 2.97, 3.86, 5.37, 8.67)
    expected = np.interp(level, np.linspace(0, 1, 6), nodes)
    assert interpolate(torch.tensor([level]), *nodes).item() == pytest.approx(expected, abs=1e-5)


def test_apply_distortion_serves_pil_and_arrays_alike(crops):
    array = crops.images[0].permute(1, 2, 0).numpy()
    from_array, quality = apply_distortion(array, "motion_blur", 0.5, seed=3)
    from_pil, _ = apply_distortion(Image.fromarray(array), "motion_blur", 0.5, seed=3)
    assert isinstance(from_pil, Image.Image) and np.array_equal(np.asarray(from_pil), from_array)
    assert quality == 67.5
    assert not np.array_equal(from_array, apply_distortion(array, "motion_blur", 0.5, seed=4)[0])


def test_apply_distortion_draws_a_direction_from_the_seed_alone(crops):
    array = crops.images[0].permute(1, 2, 0).numpy()
    brighter = [{apply_distortion(array, "brightness", level, seed=seed)[0].mean() > array.mean() for level in (0.2, 1)}
                for seed in range(20)]  # fmt: skip
    assert {True} in brighter and {False} in brighter and {True, False} not in brighter


@pytest.mark.parametrize("change, message", (
    ({"distortion_type": "sepia"}, "unknown distortion 'sepia'.*gaussian_blur"),
    ({"level": 1.2}, "level 1.2 is outside 0–1"),
    ({"level": float("nan")}, "level nan"),
    ({"direction": 0}, "direction 0"),
    ({"image": np.zeros((7, 32, 3), np.uint8)}, r"sides of 8 or more, got uint8 \(7, 32, 3\)"),
    ({"image": np.zeros((32, 32, 3))}, "got float64"),
))  # fmt: skip
def test_apply_distortion_refuses_bad_input(change, message):
    good = {
        "image": np.zeros((32, 32, 3), np.uint8),
        "distortion_type": "contrast",
        "level": 0.5,
        "direction": 1,
    }
    with pytest.raises(ValueError, match=message):
        apply_distortion(**{**good, **change})


@pytest.mark.parametrize(
    "value, message",
    ((float("nan"), "not finite"), (None, r"shape \(1, 3, 9, 8\), expected \(1, 3, 8, 8\)")),
)
def test_a_faulty_custom_distortion_is_named(monkeypatch, value, message):
    def faulty(images, level, direction, draw):
        return images * value if value else torch.zeros(1, 3, 9, 8)

    monkeypatch.setitem(DISTORTIONS, "faulty", Distortion(faulty, 50, ()))
    with pytest.raises(ValueError, match=f"faulty returned .*{message}"):
        run("faulty", torch.zeros((1, 3, 8, 8), dtype=torch.uint8), 0.5)


def test_a_per_image_distortion_that_gives_no_bytes_is_named(monkeypatch):
    faulty = per_image(lambda image, level, direction, draw: image / 255)
    monkeypatch.setitem(DISTORTIONS, "faulty", Distortion(faulty, 50, (), on_bytes=True))
    with pytest.raises(ValueError, match="faulty returned torch.float64, expected uint8"):
        run("faulty", torch.zeros((1, 3, 8, 8), dtype=torch.uint8), 0.5)


def test_select_types():
    assert select_types("default") == DISTORTION_TYPES and select_types("all") == tuple(DISTORTIONS)
    assert select_types("rain, fog") == ("rain", "fog")
    for names, message in (
        ("rain,sepia", "unknown distortion 'sepia'"),
        ("rain,rain", "named twice"),
        ("", "unknown"),
    ):
        with pytest.raises(ValueError, match=message):
            select_types(names)
