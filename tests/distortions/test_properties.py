"""Laws that hold for any size, kind of numbers, level and order of a batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from distortions.registry import DISTORTIONS, apply_distortion, distort, quality_of
from models.inference import Run, build
from utils.errors import UserError
from utils.images import to_rgb
from utils.rng import fold_in

SIDES, LEVELS, SIGNS = st.integers(8, 70), st.floats(0, 1, width=32), st.sampled_from((-1, 1))
NOT_UINT8 = (
    "object",
    "S3",
    ">u2",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
    "bool",
)
CONFIG = {"backbone": "resnet18", "stem": "small", "embedding_dim": 16, "n_clusters": 3, "type_loss_weight": 0.1,
          "types": ["gaussian_blur", "rain"], "image_size": 32}  # fmt: skip


def pixels(*shape, seed=0):
    """uint8, some of it noise, some flat black and flat white."""
    values = np.random.default_rng(seed).integers(-128, 384, shape)
    return values.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", DISTORTIONS)
@settings(max_examples=6, deadline=None)
@given(SIDES, SIDES, st.lists(st.tuples(LEVELS, SIGNS), min_size=2, max_size=5), st.randoms(use_true_random=False),
       st.sampled_from((torch.float32, torch.float64)),
       st.sampled_from((torch.int8, torch.int64, torch.float32)))  # fmt: skip
def test_a_distortion_does_not_depend_on_the_order_of_its_batch(
    name, height, width, how, random, real, whole
):
    count = len(how)
    images, keys = (
        torch.from_numpy(pixels(count, 3, height, width)),
        fold_in(3, torch.arange(count)),
    )
    level, sign = (
        torch.tensor([h[0] for h in how], dtype=real),
        torch.tensor([h[1] for h in how], dtype=whole),
    )
    untouched, label = images.clone(), torch.zeros(count, dtype=torch.int64)
    output = distort(images, (name,), label, level, sign, keys)
    assert (
        output.dtype == torch.uint8
        and output.shape == images.shape
        and torch.equal(images, untouched)
    )
    assert torch.equal(output[level == 0], images[level == 0])
    order = torch.tensor(random.sample(range(count), count))
    assert torch.equal(
        distort(images[order], (name,), label, level[order], sign[order], keys[order]),
        output[order],
    )
    assert torch.equal(
        distort(images[:1], (name,), label[:1], level[:1], sign[:1], keys[:1]), output[:1]
    )


@pytest.mark.parametrize("name", DISTORTIONS)
@settings(max_examples=3, deadline=None)
@given(
    SIDES,
    SIDES,
    LEVELS,
    SIGNS,
    st.integers(0, 2**32 - 1),
    st.sampled_from(("turned", "mirrored", "strided")),
)
def test_apply_distortion_takes_any_view_and_gives_the_same_again(
    name, height, width, level, sign, seed, view
):
    views = {
        "turned": lambda x: x.transpose(1, 0, 2),
        "mirrored": lambda x: x[::-1, ::-1],
        "strided": lambda x: x[::2],
    }
    image = views[view](pixels(*((width, height) if view == "turned" else (height * 2, width)), 3))
    output, quality = apply_distortion(image, name, level, sign, seed)
    again, _ = apply_distortion(
        Image.fromarray(np.ascontiguousarray(image)), name, level, sign, seed
    )
    assert output.dtype == np.uint8 and np.array_equal(output, np.asarray(again))
    assert quality == pytest.approx(quality_of(name, level)) and 0 <= quality <= 100


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(("1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16")), SIDES, SIDES)
def test_apply_distortion_takes_every_mode(mode, height, width):
    image = Image.new(mode, (width, height))
    output, _ = apply_distortion(image, "brightness", 0.0)
    assert output.mode == "RGB" and np.array_equal(np.asarray(output), np.asarray(to_rgb(image)))


@pytest.mark.parametrize("dtype", NOT_UINT8)
def test_other_values_than_uint8_are_refused(run, dtype):
    with pytest.raises(UserError, match="got .*16, 16, 3"):
        apply_distortion(np.zeros((16, 16, 3), dtype), "fog", 0.5)
    with pytest.raises(UserError, match="got .*1, 3, 16, 16"):
        run.predict(np.zeros((1, 3, 16, 16), dtype))


@pytest.fixture(scope="module")
def run():
    torch.manual_seed(0)
    model, mixture = build(CONFIG)
    mixture.refit(np.random.default_rng(0).normal(size=(300, 16)), seed=0)
    return Run(model, mixture, {"config": CONFIG, "reference_digests": [], "epoch": 0})


@settings(max_examples=10, deadline=None)
@given(SIDES, SIDES, st.integers(2, 4), st.randoms(use_true_random=False), st.integers(0, 99))
def test_predict_does_not_depend_on_the_order_of_its_batch(run, height, width, count, random, seed):
    images = pixels(count, 3, height, width, seed=seed)
    answer, order = run.predict(images), random.sample(range(count), count)
    for permuted, values in zip(run.predict(images[order]), answer):
        assert len(values) == count and np.isfinite(values).all()
        assert np.allclose(permuted, values[order], atol=1e-3)
    assert (answer.qualities >= 0).all() and (answer.qualities <= 100).all()
    for shares in (answer.responsibilities, answer.type_probabilities):
        assert np.allclose(shares.sum(1), 1, atol=1e-5)


@settings(max_examples=6, deadline=None)
@given(SIDES, SIDES, st.sampled_from(("mirrored", "strided", "turned", "tensor", "PIL")))
def test_predict_takes_any_view_and_kind(run, height, width, kind):
    views = {
        "mirrored": lambda x: x[..., ::-1],
        "strided": lambda x: x[:, :, ::2],
        "turned": lambda x: x.swapaxes(2, 3),
        "tensor": torch.from_numpy,
        "PIL": lambda x: list(map(Image.fromarray, x.transpose(0, 2, 3, 1))),
    }
    images = pixels(2, 3, 2 * height, width)
    view = views[kind](images)
    expected = run.predict(np.ascontiguousarray(view) if isinstance(view, np.ndarray) else images)
    assert np.allclose(run.predict(view).qualities, expected.qualities, atol=1e-3)
