"""Run.quality_map: a value for every pixel, whose logits' mean is the network's answer."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import roc_auc_score

import ablations.networks
from models import blocks
from models.blocks import blocks_of
from models.inference import Run, build, feature_map, forward
from models.quality_map import interpolate
from models.quality_net import CELL_SIDE, STEMS
from tests.helpers import distort_all, photo_pieces
from tests.models.test_predict_properties import CONFIG, make_pixels
from utils.errors import UserError
from utils.images import to_nchw

SIDES = st.integers(8, 150)
CELL = CELL_SIDE[CONFIG["stem"]]


def make_run(**changes):
    """Return a run with random weights; changes are of its configuration."""
    torch.manual_seed(0)
    model, mixture = build({**CONFIG, **changes})
    return Run(
        model, mixture, {"config": {**CONFIG, **changes}, "reference_digests": [], "epoch": 0}
    )


@pytest.fixture(scope="module")
def run():
    return make_run()


@pytest.fixture(scope="module")
def noise_finder():
    """A run whose quality head tells noisy places of photographs from others, by regression."""
    finder = make_run(embedding_dim=64)
    clean = photo_pieces(96, 96)[:15]
    noisy = distort_all("gaussian_noise", clean, level=1.0)
    cells = feature_map(finder.model, to_nchw(torch.cat([clean, noisy])))
    features = cells.permute(0, 2, 3, 1).flatten(0, 2)
    with torch.inference_mode():
        embeddings = finder.model.read(features).embedding
    is_clean = torch.arange(len(embeddings)) < len(embeddings) / 2
    center = embeddings.mean(0)
    wanted = torch.where(is_clean, 2.0, -2.0)[:, None]
    weight = torch.linalg.lstsq(embeddings - center, wanted).solution.T
    with torch.no_grad():
        finder.model.quality_head.weight.copy_(weight)
        finder.model.quality_head.bias.copy_(-(weight @ center))
    return finder


@pytest.mark.parametrize("network", ablations.networks.NETWORKS)
def test_a_network_whose_heads_read_more_than_means_says_so(network):
    recipe = {**CONFIG["recipe"], "network": network}
    run = make_run(recipe=recipe)
    image = make_pixels(40, 60, 3)

    if network == "plain":
        assert run.quality_map(image).quality.shape == (40, 60)
    else:
        with pytest.raises(UserError, match=f"network '{network}' has no quality map"):
            run.quality_map(image)


@settings(max_examples=10, deadline=None)
@given(SIDES, SIDES)
def test_a_map_has_a_value_for_every_pixel(run, height, width):
    answer = run.quality_map(make_pixels(height, width, 3))

    assert answer.quality.shape == (height, width)
    assert answer.quality.dtype == np.float32
    assert answer.quality.min() >= 0
    assert answer.quality.max() <= 100
    assert answer.type_probabilities.shape == (-(-height // CELL), -(-width // CELL), 3)
    assert np.allclose(answer.type_probabilities.sum(2), 1, atol=1e-5)
    assert answer.types == ("gaussian_blur", "rain")


@settings(max_examples=10, deadline=None)
@given(SIDES, SIDES, st.sampled_from(STEMS))
def test_a_networks_answer_is_the_mean_of_its_map(height, width, stem):
    """Of the logits at the cells, whose quality is the map's at their pixels."""
    run = make_run(stem=stem)
    pixels = make_pixels(3, height, width)

    cells = run.quality_map(pixels).quality[:: CELL_SIDE[stem], :: CELL_SIDE[stem]]

    quality = forward(run.model, torch.from_numpy(pixels)[None]).quality.item()
    mean = np.log(cells / (100 - cells)).mean()
    assert 100 / (1 + np.exp(-mean)) == pytest.approx(quality, abs=1e-3)


def test_every_kind_of_image_has_the_same_map(run):
    pixels = make_pixels(40, 60, 3)
    channels_first = pixels.transpose(2, 0, 1)
    kinds = (pixels, Image.fromarray(pixels), channels_first, torch.from_numpy(channels_first))

    maps = [run.quality_map(image) for image in kinds]

    for answer in maps:
        assert np.array_equal(answer.quality, maps[0].quality)
        assert np.array_equal(answer.type_probabilities, maps[0].type_probabilities)


@pytest.mark.parametrize(
    "bad, message",
    (
        (np.zeros((2, 3, 32, 32), np.uint8), r"one image.*got uint8 \(2, 3, 32, 32\)"),
        (np.zeros((32, 32), np.uint8), r"one image.*got uint8 \(32, 32\)"),
        (np.zeros((32, 32, 3)), r"got .*float64"),
        (np.zeros((7, 32, 3), np.uint8), "sides of 8 or more"),
        ("photo.jpg", "one image.*got str"),
        ([Image.new("RGB", (32, 32))], "one image.*got list"),
    ),
)
def test_other_input_is_refused(run, bad, message):
    with pytest.raises(UserError, match=message):
        run.quality_map(bad)


def test_without_a_type_head_a_map_has_no_types():
    answer = make_run(type_loss_weight=0).quality_map(make_pixels(40, 60, 3))

    assert answer.type_probabilities.shape == (3, 4, 0)


def test_a_map_finds_the_distorted_half(noise_finder):
    for i, clean in enumerate(photo_pieces(200, 256)[15:]):
        noisy = distort_all("gaussian_noise", clean[None], level=1.0)[0]
        is_noisy = np.zeros((200, 256), bool)
        is_noisy[:, 128 * (i % 2) : 128 * (i % 2) + 128] = True
        mixed = np.where(is_noisy[..., None], noisy, clean)

        quality = noise_finder.quality_map(mixed).quality

        assert roc_auc_score(is_noisy.ravel(), -quality.ravel()) > 0.9


@settings(max_examples=50)
@given(st.integers(8, 5000), st.integers(8, 5000), st.sampled_from(STEMS))
def test_blocks_hold_every_cell_once(height, width, stem):
    side = CELL_SIDE[stem]
    count = np.zeros((-(-height // side), -(-width // side)), int)

    for block in blocks_of(height, width, side):
        count[block.rows.cells, block.columns.cells] += 1
        for span, length in ((block.rows, height), (block.columns, width)):
            first = span.pixels.start // side + span.own.start
            assert first == span.cells.start  # the block's own cells are where they belong
            assert span.pixels.start % side == 0
            assert 8 <= span.pixels.stop - span.pixels.start <= blocks.BLOCK_SIDE
            assert span.pixels.stop <= length

    assert (count == 1).all()


def test_blocks_give_what_the_whole_image_gives(run, monkeypatch):
    """Provided that their margins hold all that a cell sees, 435 pixels with ResNet-18."""
    image = make_pixels(3, 30, 1000)
    whole = run.quality_map(image)

    monkeypatch.setattr(blocks, "BLOCK_SIDE", 512)
    monkeypatch.setattr(blocks, "MARGIN", 224)
    in_blocks = run.quality_map(image)

    assert len(list(blocks_of(30, 1000, CELL))) > 10
    assert np.allclose(in_blocks.quality, whole.quality, atol=1e-3)
    assert np.allclose(in_blocks.type_probabilities, whole.type_probabilities, atol=1e-5)


def test_memory_is_bounded_by_the_largest_block(run, monkeypatch):
    pixels = []

    def feature_map_of_nothing(model, images):
        pixels.append(images[:, 0].numel())
        return torch.zeros(1, 512, -(-images.shape[2] // CELL), -(-images.shape[3] // CELL))

    monkeypatch.setattr("models.inference.feature_map", feature_map_of_nothing)
    answer = run.quality_map(np.zeros((2000, 3000, 3), np.uint8))

    assert answer.quality.shape == (2000, 3000)
    assert max(pixels) <= blocks.BLOCK_SIDE**2
    assert sum(pixels) >= 2000 * 3000


def test_interpolation_is_linear_between_cells():
    values = interpolate(np.array([[0.0, 4.0], [8.0, 12.0]], np.float32), 6, 5, 4)

    assert values[0].tolist() == [0, 1, 2, 3, 4]
    assert values[:, 0].tolist() == [0, 2, 4, 6, 8, 8]
    assert values[2, 2] == 6


def test_a_cell_is_about_its_pixel(run):
    """Features answer most strongly to what changes around their own pixel."""
    flat = torch.full((1, 3, 240, 240), 128, dtype=torch.uint8)
    changed = flat.clone()
    changed[:, :, 5 * CELL - 2 : 5 * CELL + 3, 9 * CELL - 2 : 9 * CELL + 3] = 0

    change = (feature_map(run.model, changed) - feature_map(run.model, flat))[0].norm(dim=0)

    assert divmod(change.argmax().item(), change.shape[1]) == (5, 9)
