"""Laws of Run.predict that hold for any size, view and order of a batch."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.inference import BATCH_PIXELS, Run, build, forward
from models.quality_net import Output
from tests.distortions.test_properties import NOT_UINT8
from training.config import Recipe
from utils.errors import UserError

SIDES = st.integers(8, 70)
CONFIG = {
    "backbone": "resnet18",
    "stem": "small",
    "embedding_dim": 16,
    "n_clusters": 3,
    "type_loss_weight": 0.1,
    "types": ["gaussian_blur", "rain"],
    "local_types": [],
    "image_size": 32,
    "recipe": asdict(Recipe()),
}
VIEWS = {
    "mirrored": lambda x: x[..., ::-1],
    "strided": lambda x: x[:, :, ::2],
    "transposed": lambda x: x.swapaxes(2, 3),
    "tensor": torch.from_numpy,
    "PIL": lambda x: list(map(Image.fromarray, x.transpose(0, 2, 3, 1))),
}


@pytest.fixture(scope="module")
def run():
    """A run with random weights, and a mixture of random embeddings."""
    torch.manual_seed(0)
    model, mixture = build(CONFIG)
    mixture.refit(np.random.default_rng(0).normal(size=(300, 16)), seed=0)
    return Run(model, mixture, {"config": CONFIG, "reference_digests": [], "epoch": 0})


def make_pixels(*shape, seed=0):
    values = np.random.default_rng(seed).integers(-128, 384, shape)
    return values.clip(0, 255).astype(np.uint8)


@settings(max_examples=10, deadline=None)
@given(SIDES, SIDES, st.integers(2, 4), st.randoms(use_true_random=False), st.integers(0, 99))
def test_the_order_of_a_batch_does_not_matter(run, height, width, count, random, seed):
    images = make_pixels(count, 3, height, width, seed=seed)
    order = random.sample(range(count), count)

    predictions = run.predict(images)
    permuted = run.predict(images[order])

    for values, permuted_values in zip(predictions, permuted):
        assert len(values) == count
        assert np.isfinite(values).all()
        assert np.allclose(permuted_values, values[order], atol=1e-3)


@settings(max_examples=10, deadline=None)
@given(SIDES, SIDES, st.integers(0, 99))
def test_predictions_are_in_their_ranges(run, height, width, seed):
    predictions = run.predict(make_pixels(2, 3, height, width, seed=seed))

    assert (predictions.qualities >= 0).all()
    assert (predictions.qualities <= 100).all()
    assert np.allclose(predictions.responsibilities.sum(1), 1, atol=1e-5)
    assert np.allclose(predictions.type_probabilities.sum(1), 1, atol=1e-5)


@settings(max_examples=6, deadline=None)
@given(st.integers(8, 32), st.integers(8, 32))
def test_an_image_up_to_the_training_size_is_answered_by_the_network(run, height, width):
    images = make_pixels(2, 3, height, width)

    predictions = run.predict(images)

    output = forward(run.model, torch.from_numpy(images))
    assert np.array_equal(predictions.qualities, output.quality.double().numpy())
    assert np.array_equal(predictions.embeddings, output.embedding.numpy())


@settings(max_examples=6, deadline=None)
@given(st.integers(70, 200), st.integers(70, 200), st.data())
def test_every_region_of_a_large_image_counts(run, height, width, data):
    """A patch of 8×8 pixels, wherever it is, changes the answer."""
    image = make_pixels(1, 3, height, width)
    top = data.draw(st.integers(0, height - 8))
    left = data.draw(st.integers(0, width - 8))

    patched = image.copy()
    patched[:, :, top : top + 8, left : left + 8] = 255 - patched[0, 0, top, left]

    change = run.predict(patched).embeddings - run.predict(image).embeddings
    assert np.abs(change).max() > 1e-5


@pytest.mark.parametrize("shape", ((1, 3, 700, 3000), (3, 3, 700, 1000), (2000, 3, 16, 40)))
def test_memory_is_bounded_by_the_largest_forward_pass(run, monkeypatch, shape):
    """However large or many images are, so many pixels go through the network at once."""
    pixels = []

    def answer_nothing(model, images):
        pixels.append(images[:, 0].numel())
        count = len(images)
        return Output(torch.zeros(count), torch.zeros(count, 16), torch.zeros(count, 3))

    monkeypatch.setattr("models.inference.forward", answer_nothing)
    predictions = run.predict(torch.zeros(shape, dtype=torch.uint8))

    assert len(predictions.qualities) == shape[0]
    assert max(pixels) <= BATCH_PIXELS
    assert sum(pixels) >= shape[0] * shape[2] * shape[3]


@settings(max_examples=6, deadline=None)
@given(SIDES, SIDES, st.sampled_from(list(VIEWS)))
def test_any_view_and_kind_of_images_is_taken(run, height, width, kind):
    images = make_pixels(2, 3, 2 * height, width)

    view = VIEWS[kind](images)
    copy = np.ascontiguousarray(view) if isinstance(view, np.ndarray) else images

    assert np.allclose(run.predict(view).qualities, run.predict(copy).qualities, atol=1e-3)


@pytest.mark.parametrize("dtype", NOT_UINT8)
def test_other_values_than_uint8_are_refused(run, dtype):
    with pytest.raises(UserError, match="got .*1, 3, 16, 16"):
        run.predict(np.zeros((1, 3, 16, 16), dtype))
