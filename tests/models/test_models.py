"""The network, and the Run that users load."""

import numpy as np
import pytest
import torch
from PIL import Image

from models import load_run
from models.inference import Run, build
from models.mixture import Mixture
from models.quality_net import SINGLE_PIXEL_SIDE, STEMS, QualityNet, resolve_stem
from models.tiles import weigh
from tests.models.test_predict_properties import CONFIG
from utils.checkpoint import save_checkpoint
from utils.device import choose_device
from utils.images import to_nchw

OOD_THRESHOLD = -40.0
BLACK = torch.zeros((2, 3, 32, 32), dtype=torch.uint8)


@pytest.fixture(scope="module")
def run(module_folder):
    """A saved and loaded run with random weights."""
    torch.manual_seed(0)
    model, mixture = build(CONFIG)
    mixture.refit(np.random.default_rng(0).normal(size=(300, 16)), seed=0)
    mixture.ood_threshold.fill_(OOD_THRESHOLD)
    checkpoint = {
        "config": CONFIG,
        "reference_digests": [],
        "epoch": 4,
        "finished": True,
        "model": model.state_dict(),
        "mixture": mixture.state_dict(),
    }
    save_checkpoint(module_folder / "best.pt", checkpoint)
    return load_run(module_folder, device="cpu")


@pytest.fixture
def images(crops):
    return to_nchw(crops.images[:12])


@pytest.mark.parametrize("backbone", ("resnet18", "resnet34", "resnet50"))
@pytest.mark.parametrize("stem, side", (("small", 8), ("imagenet", 64)))
def test_the_network_bounds_its_scores(backbone, stem, side):
    model = QualityNet(backbone, stem, 16, type_count=9).eval()

    output = model(torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8))

    assert output.embedding.shape == (2, 16)
    assert output.type_logits.shape == (2, 9)
    assert output.quality.shape == (2,)
    assert (output.quality >= 0).all()
    assert (output.quality <= 100).all()


@pytest.mark.parametrize("bias, score", ((-1000.0, 0.0), (0.0, 50.0), (1000.0, 100.0)))
def test_a_saturated_head_stays_in_bounds(bias, score):
    model = QualityNet("resnet18", "small", 16).eval()
    model.quality_head.weight.data.zero_()
    model.quality_head.bias.data.fill_(bias)

    assert model(BLACK).quality.tolist() == [score, score]


def test_without_a_type_loss_there_is_no_type_head():
    model, _ = build({**CONFIG, "type_loss_weight": 0})

    assert model.type_head is None
    assert model(BLACK).type_logits is None


@pytest.mark.parametrize(
    "stem, side, expected",
    (("auto", 32, "small"), ("auto", 96, "imagenet"), ("small", 96, "small")),
)
def test_the_stem_follows_the_image_size(stem, side, expected):
    assert resolve_stem(stem, side) == expected


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("backbone", ("resnet18", "resnet50"))
def test_the_largest_single_pixel_image_is_known(backbone, stem):
    """The largest image of which a strided convolution sees a single pixel."""
    model = QualityNet(backbone, stem, 16).eval()
    sides = []
    for module in model.modules():
        is_strided = isinstance(module, torch.nn.Conv2d) and module.stride == (2, 2)
        if is_strided and module.kernel_size != (1, 1):
            module.register_forward_pre_hook(lambda _, inputs: sides.append(inputs[0].shape[3]))

    largest = 0
    for size in range(8, 40):
        sides.clear()
        model(torch.zeros((1, 3, size, size), dtype=torch.uint8))
        if min(sides) == 1:
            largest = size

    assert largest == SINGLE_PIXEL_SIDE[stem]


@pytest.mark.parametrize("name", STEMS)
def test_the_stem_starts_from_an_orthogonal_basis(name):
    """And from its negative, at the size of random filters."""
    stem = QualityNet("resnet18", name, 16).backbone.conv1.weight.detach().flatten(1)

    basis = stem[:27]

    assert torch.allclose(basis @ basis.T, torch.eye(27) * basis[0].square().sum(), atol=1e-5)
    assert torch.equal(stem[27:54], -basis)
    assert stem[54:].norm(dim=1).mean() == pytest.approx(basis[0].norm().item(), rel=0.2)


def test_a_recipe_can_leave_the_stem_random():
    config = {**CONFIG, "recipe": {**CONFIG["recipe"], "cosine_stem": False}}

    model, _ = build(config)

    stem = model.backbone.conv1.weight.detach().flatten(1)
    assert not torch.equal(stem[27:54], -stem[:27])


def test_a_recipe_reaches_the_mixture():
    recipe = {**CONFIG["recipe"], "covariance": "diag", "match_refits": False}

    _, mixture = build({**CONFIG, "recipe": recipe})

    assert mixture.covariance == "diag"
    assert not mixture.match_refits


def test_pretrained_needs_the_imagenet_stem():
    with pytest.raises(ValueError, match="--pretrained needs --stem imagenet"):
        QualityNet("resnet18", "small", 16, pretrained=True)


def test_weights_that_cannot_be_downloaded_are_one_line(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)

    message = "ImageNet weights of resnet18 could not be downloaded .no network"
    with pytest.raises(ValueError, match=message):
        QualityNet("resnet18", "imagenet", 16, pretrained=True)


def test_the_mixture_has_no_parameters():
    assert list(Mixture(8, 32).parameters()) == []


def test_predict_gives_every_answer(run, images):
    predictions = run.predict(images)

    assert predictions.qualities.shape == (12,)
    assert predictions.embeddings.shape == (12, 16)
    assert predictions.log_likelihoods.shape == (12,)
    assert np.allclose(predictions.responsibilities.sum(1), 1)
    assert np.array_equal(predictions.clusters, predictions.responsibilities.argmax(1))
    assert np.array_equal(predictions.unknown, predictions.log_likelihoods < OOD_THRESHOLD)


def test_type_probabilities_are_those_of_the_type_head(run, images):
    predictions = run.predict(images)

    logits = run.model.type_head(torch.from_numpy(predictions.embeddings)).detach()
    assert np.allclose(predictions.type_probabilities, logits.softmax(1), atol=1e-6)


def test_no_type_head_gives_no_type_probabilities(images):
    model, mixture = build({**CONFIG, "type_loss_weight": 0})
    headless = Run(model, mixture, {"config": CONFIG, "reference_digests": [], "epoch": 0})

    assert headless.predict(images).type_probabilities.shape == (12, 0)


@pytest.mark.parametrize("size", ((32, 32), (50, 70), (8, 20)))
def test_an_image_gets_the_same_answer_in_any_batch(run, size):
    generator = torch.Generator().manual_seed(0)
    batch = torch.randint(0, 256, (9, 3, *size), dtype=torch.uint8, generator=generator)

    together = run.predict(batch)

    for i in (0, 4, 8):
        alone = run.predict(batch[i : i + 1])
        for value, values in zip(alone, together):
            assert np.allclose(value[0], values[i], atol=1e-3)


def test_pil_images_of_any_sizes_are_taken(run):
    red = Image.new("RGB", (32, 32), "red")
    images = [Image.new("L", (8, 200), 90), Image.new("RGB", (481, 321), "red"), red]

    together = run.predict(images)

    assert len(together.qualities) == 3
    assert np.allclose(together.qualities[2], run.predict([red]).qualities[0], atol=1e-3)


def test_heads_read_the_tiles_mean_embedding(run, images):
    """Busy tiles count more."""
    top = torch.cat([images[0], images[1]], 2)
    bottom = torch.cat([images[2], images[3]], 2)
    mosaic = torch.cat([top, bottom], 1)

    predictions = run.predict(mosaic[None])

    tiles = torch.from_numpy(run.predict(images[:4]).embeddings)
    weights = weigh(images[:4])
    embedding = ((weights * tiles).sum(0) / weights.sum()).float()
    output = run.model.read_embedding(embedding[None])
    assert np.allclose(predictions.embeddings[0], embedding, atol=1e-5)
    assert predictions.qualities[0] == pytest.approx(output.quality.item(), abs=1e-3)
    probabilities = output.type_logits.softmax(1).detach()
    assert np.allclose(predictions.type_probabilities, probabilities, atol=1e-5)


@pytest.mark.parametrize("are_lower", (True, False))
def test_a_local_distortion_is_judged_where_it_shows(images, are_lower):
    """By the tiles that show it, if they have the lower quality. Heads read one direction here."""
    torch.manual_seed(0)
    model, mixture = build(CONFIG)
    config = {**CONFIG, "local_types": ["rain"]}
    run = Run(model, mixture, {"config": config, "reference_digests": [], "epoch": 0})
    tiles = torch.from_numpy(run.predict(images[:4]).embeddings)
    direction = tiles[1] - tiles.mean(0)
    shows_rain = (tiles - tiles.mean(0)) @ direction > 0
    assert 0 < shows_rain.sum() < 4
    set_head(model.quality_head, 0, -direction if are_lower else direction, tiles.mean(0))
    steep = 1e4 * direction  # so that the type head is sure of each tile
    set_head(model.type_head, config["types"].index("rain"), steep, tiles.mean(0))
    rows = torch.cat([images[0], images[1]], 2), torch.cat([images[2], images[3]], 2)

    embedding = run.predict(torch.cat(rows, 1)[None]).embeddings[0]

    chosen = shows_rain if are_lower else torch.ones(4, dtype=torch.bool)
    weights = weigh(images[:4])[chosen]
    expected = (weights * tiles[chosen]).sum(0) / weights.sum()
    assert np.allclose(embedding, expected, atol=1e-4)


def set_head(head, output, direction, zero):
    """Let one output of a head grow along a direction from a place, and the rest be 0."""
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.weight[output] = direction
        head.bias[output] = -direction @ zero


@pytest.mark.parametrize(
    "bad, message",
    (
        (torch.zeros(2, 3, 32, 32), "torch.float32"),
        (torch.zeros((3, 32, 32), dtype=torch.uint8), r"\(3, 32, 32\)"),
        (torch.zeros((1, 3, 7, 32), dtype=torch.uint8), "sides of 8 or more"),
        ([], "list of one or more PIL images"),
        (Image.new("RGB", (32, 32)), "got one PIL image: put it in a list"),
        ([np.zeros((32, 32, 3), np.uint8)], "got a list that holds ndarray"),
        (["photo.jpg"], "got a list that holds str: open it by PIL.Image.open"),
        ("photo.jpg", "got str 'photo.jpg'"),
    ),
)
def test_predict_refuses_other_input(run, bad, message):
    with pytest.raises(ValueError, match=message):
        run.predict(bad)


def test_load_run_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no run: it is empty"):
        load_run(tmp_path)


def test_choose_device_takes_a_device_too():
    assert choose_device(torch.device("cpu")) == choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    "device, message",
    (("warp", "none of auto"), ("cpu:", "none of auto"), ("cuda:99", "torch sees . CUDA")),
)
def test_choose_device_refuses_what_is_not_there(device, message):
    with pytest.raises(ValueError, match=message):
        choose_device(device)


@pytest.mark.parametrize("stages, joined, channels", ((4, 1, 512), (3, 1, 256), (3, 3, 448)))
def test_stages_are_left_out_and_joined(stages, joined, channels):
    model = QualityNet("resnet18", "imagenet", 16, stages=stages, joined_stages=joined).eval()
    images = torch.randint(0, 256, (2, 3, 70, 96), dtype=torch.uint8)

    cells = model.feature_map(images)

    side = model.cell_side
    assert side == 32 >> (4 - stages)
    assert cells.shape == (2, channels, -(-70 // side), -(-96 // side))
    assert torch.allclose(model.read(cells.mean((2, 3))).quality, model(images).quality, atol=1e-3)


def test_stages_that_are_left_out_have_no_weights():
    model = QualityNet("resnet18", "imagenet", 16, stages=3)

    assert not [name for name in model.state_dict() if "layer4" in name]
