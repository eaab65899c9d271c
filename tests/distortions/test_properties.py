"""Laws of distortions that hold for any size, kind of numbers, level and order of a batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from distortions.apply import apply_distortion, distort
from distortions.registry import DISTORTIONS, quality_of
from utils.errors import UserError
from utils.images import to_rgb
from utils.rng import fold_in

SIDES = st.integers(8, 70)
LEVELS = st.floats(0, 1, width=32)
SIGNS = st.sampled_from((-1, 1))
RANDOM = st.randoms(use_true_random=False)
NOT_UINT8 = "object S3 >u2 int8 int16 int32 int64 float16 float32 float64 bool".split()
VIEWS = {
    "transposed": lambda x: x.transpose(1, 0, 2),
    "mirrored": lambda x: x[::-1, ::-1],
    "strided": lambda x: x[::2],
}


def make_pixels(*shape):
    """Return uint8, some of it noise, some flat black and flat white."""
    values = np.random.default_rng(0).integers(-128, 384, shape)
    return values.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", DISTORTIONS)
@settings(max_examples=6, deadline=None)
@given(
    height=SIDES,
    width=SIDES,
    draws=st.lists(st.tuples(LEVELS, SIGNS), min_size=2, max_size=5),
    random=RANDOM,
    float_type=st.sampled_from((torch.float32, torch.float64)),
    sign_type=st.sampled_from((torch.int8, torch.int64, torch.float32)),
)
def test_the_order_of_a_batch_does_not_matter(
    name, height, width, draws, random, float_type, sign_type
):
    count = len(draws)
    images = torch.from_numpy(make_pixels(count, height, width, 3))
    keys = fold_in(3, torch.arange(count))
    level = torch.tensor([level for level, _ in draws], dtype=float_type)
    sign = torch.tensor([sign for _, sign in draws], dtype=sign_type)

    def run(rows):
        label = torch.zeros(len(rows), dtype=torch.int64)
        return distort(images[rows], (name,), label, level[rows], sign[rows], keys[rows])

    untouched = images.clone()
    output = run(torch.arange(count))
    order = torch.tensor(random.sample(range(count), count))

    assert output.dtype == torch.uint8
    assert output.shape == images.shape
    assert torch.equal(images, untouched)
    assert torch.equal(output[level == 0], images[level == 0])
    assert torch.equal(run(order), output[order])
    assert torch.equal(run(torch.arange(1)), output[:1])


@pytest.mark.parametrize("name", DISTORTIONS)
@settings(max_examples=3, deadline=None)
@given(SIDES, SIDES, LEVELS, SIGNS, st.integers(0, 2**32 - 1), st.sampled_from(list(VIEWS)))
def test_any_view_of_an_image_is_taken(name, height, width, level, sign, seed, view):
    shape = (width, height, 3) if view == "transposed" else (height * 2, width, 3)
    image = VIEWS[view](make_pixels(*shape))

    output, quality = apply_distortion(image, name, level, sign, seed)
    copy = Image.fromarray(np.ascontiguousarray(image))
    again, _ = apply_distortion(copy, name, level, sign, seed)

    assert output.dtype == np.uint8
    assert np.array_equal(output, np.asarray(again))
    is_changed = not np.array_equal(np.asarray(output), np.asarray(image))
    assert quality == (pytest.approx(quality_of(name, level)) if is_changed else 100)
    assert 0 <= quality <= 100


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(("1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16")), SIDES, SIDES)
def test_every_mode_of_pil_is_taken(mode, height, width):
    image = Image.new(mode, (width, height))

    output, _ = apply_distortion(image, "brightness", 0.0)

    assert output.mode == "RGB"
    assert np.array_equal(np.asarray(output), np.asarray(to_rgb(image)))


@pytest.mark.parametrize("dtype", NOT_UINT8)
def test_other_values_than_uint8_are_refused(dtype):
    with pytest.raises(UserError, match="got .*16, 16, 3"):
        apply_distortion(np.zeros((16, 16, 3), dtype), "fog", 0.5)
