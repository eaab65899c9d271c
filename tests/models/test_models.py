"""The network, the losses and the Run that users load."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from models import load_run
from models.inference import Run, build, tile_corners
from models.mixture import Mixture
from models.quality_net import SINGLE_PIXEL_SIDE, STEMS, QualityNet, resolve_stem
from tests.models.test_predict_properties import CONFIG
from training.losses import balanced_assignment, cluster_loss, quality_loss, type_loss
from utils.checkpoint import save_checkpoint
from utils.device import choose_device
from utils.images import to_nchw

OOD_THRESHOLD = -40.0


@pytest.fixture(scope="module")
def run(module_folder):
    torch.manual_seed(0)
    model, mixture = build(CONFIG)
    mixture.refit(np.random.default_rng(0).normal(size=(300, 16)), seed=0)
    mixture.ood_threshold.fill_(OOD_THRESHOLD)
    state = {"config": CONFIG, "reference_digests": [], "epoch": 4, "model": model.state_dict(),
             "mixture": mixture.state_dict(), "finished": True}  # fmt: skip
    save_checkpoint(module_folder / "best.pt", state)
    return load_run(module_folder, device="cpu")


@pytest.fixture
def images(crops):
    return to_nchw(crops.images[:12])


@pytest.mark.parametrize("backbone", ("resnet18", "resnet34", "resnet50"))
@pytest.mark.parametrize("stem, side", (("small", 8), ("imagenet", 64)))
def test_the_network_bounds_its_scores(backbone, stem, side):
    model = QualityNet(backbone, stem, 16, type_count=9).eval()
    output = model(torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8))
    assert output.embedding.shape == (2, 16) and output.type_logits.shape == (2, 9)
    assert (
        output.quality.shape == (2,)
        and (output.quality >= 0).all()
        and (output.quality <= 100).all()
    )


def test_scores_stay_in_bounds_where_the_head_saturates():
    model, images = (
        QualityNet("resnet18", "small", 16).eval(),
        torch.zeros((2, 3, 32, 32), dtype=torch.uint8),
    )
    model.quality_head.weight.data.zero_()
    for bias, score in ((-1000.0, 0.0), (0.0, 50.0), (1000.0, 100.0)):
        model.quality_head.bias.data.fill_(bias)
        assert model(images).quality.tolist() == [score, score]


def test_without_a_type_loss_there_is_no_type_head():
    model, _ = build({**CONFIG, "type_loss_weight": 0})
    assert (
        model.type_head is None
        and model(torch.zeros((2, 3, 32, 32), dtype=torch.uint8)).type_logits is None
    )


def test_the_stem_follows_the_image_size():
    assert [resolve_stem("auto", 32), resolve_stem("auto", 96), resolve_stem("small", 96)] == [
        "small",
        "imagenet",
        "small",
    ]


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("backbone", ("resnet18", "resnet50"))
def test_the_largest_image_with_a_single_pixel_under_a_stride_is_known(backbone, stem):
    model, sides = QualityNet(backbone, stem, 16).eval(), []
    for module in model.modules():
        if (
            isinstance(module, torch.nn.Conv2d)
            and module.stride == (2, 2)
            and module.kernel_size != (1, 1)
        ):
            module.register_forward_pre_hook(lambda _, inputs: sides.append(inputs[0].shape[3]))
    single = []
    for size in range(8, 40):
        sides.clear()
        model(torch.zeros((1, 3, size, size), dtype=torch.uint8))
        single += [size] * (min(sides) == 1)
    assert max(single) == SINGLE_PIXEL_SIDE[stem]


def test_the_small_stem_starts_from_an_orthogonal_basis_and_its_negative():
    stem = QualityNet("resnet18", "small", 16).backbone.conv1.weight.detach().flatten(1)
    basis = stem[:27]
    assert torch.allclose(basis @ basis.T, torch.eye(27) * basis[0].square().sum(), atol=1e-5)
    assert torch.equal(stem[27:54], -basis)
    assert stem[54:].norm(dim=1).mean() == pytest.approx(basis[0].norm().item(), rel=0.2)


def test_pretrained_needs_the_imagenet_stem():
    with pytest.raises(ValueError, match="--pretrained needs --stem imagenet"):
        QualityNet("resnet18", "small", 16, pretrained=True)


def test_pretrained_fails_with_one_line_where_there_is_no_network(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with pytest.raises(
        ValueError, match="ImageNet weights of resnet18 could not be downloaded .no network"
    ):
        QualityNet("resnet18", "imagenet", 16, pretrained=True)


def test_quality_loss_has_known_values_and_gradients():
    predicted = torch.tensor([50.0, 95.0], dtype=torch.float64, requires_grad=True)
    quality = torch.tensor([55.0, 45.0], dtype=torch.float64)
    assert quality_loss(predicted, quality).item() == pytest.approx((0.05**2 / 0.2 + 0.45) / 2)
    assert torch.autograd.gradcheck(lambda p: quality_loss(p, quality), (predicted,))


def test_cluster_loss_pulls_to_the_assigned_component_and_away_from_the_others():
    mixture = Mixture(2, 2)
    rng = np.random.default_rng(0)
    mixture.refit(np.concatenate([rng.normal(-3, 1, (200, 2)), rng.normal(3, 1, (200, 2))]), seed=0)
    left, right = mixture.means[mixture.means[:, 0].argsort()] * mixture.scale + mixture.center
    embedding = (0.4 * left + 0.6 * right).clone().requires_grad_()
    cluster_loss(mixture, embedding[None]).backward()
    assert -embedding.grad @ (right - left) > 0


def test_cluster_loss_is_a_tenth_of_the_cross_entropy_to_the_balanced_assignment():
    mixture, rng = Mixture(3, 4), np.random.default_rng(0)
    centers = 6 * np.eye(4)[rng.choice(3, 300, p=[0.6, 0.3, 0.1])]
    mixture.refit(rng.normal(size=(300, 4)) + centers, seed=0)
    embeddings = torch.tensor(rng.normal(size=(64, 4)) + 2, dtype=torch.float32, requires_grad=True)
    logits = mixture.log_joint(embeddings) / 4
    expected = 0.1 * F.cross_entropy(
        logits, balanced_assignment(logits.detach().log_softmax(1), mixture.weights)
    )
    loss = cluster_loss(mixture, embeddings)
    assert loss.dtype == torch.float32 and torch.isclose(loss.double(), expected)
    ours, theirs = (torch.autograd.grad(value, embeddings)[0] for value in (loss, expected))
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-8)


def test_assignments_go_towards_the_shares_of_the_fit_the_surest_first():
    """All of the batch would go to the first of two components, some images more surely."""
    first = torch.linspace(0.55, 0.95, 128)
    assignment = balanced_assignment(
        torch.stack([first, 1 - first], 1).log(), torch.tensor([0.75, 0.25])
    )
    assert (
        torch.allclose(assignment.sum(1), torch.ones(128))
        and (assignment[1:, 0] >= assignment[:-1, 0]).all()
    )
    assert (assignment.argmax(1) == 1).float().mean() == pytest.approx(0.25, abs=0.06)


def test_a_batch_that_has_the_shares_of_the_fit_stays():
    first = torch.cat([torch.linspace(0.65, 0.95, 96), torch.linspace(0.05, 0.35, 32)])
    assignment = balanced_assignment(
        torch.stack([first, 1 - first], 1).log(), torch.tensor([0.75, 0.25])
    )
    assert (assignment.argmax(1) == torch.tensor([0] * 96 + [1] * 32)).all()


@pytest.mark.parametrize("share", (0.5, 0.05))
def test_a_single_sure_image_stays_even_in_a_small_component(share):
    assignment = balanced_assignment(
        torch.tensor([[0.9, 0.1]]).log(), torch.tensor([share, 1 - share])
    )
    assert assignment[0, 0] > 0.9


def test_the_mixture_has_no_parameters():
    assert list(Mixture(8, 32).parameters()) == []


def test_type_loss_is_the_cross_entropy():
    logits = torch.log(torch.tensor([[0.2, 0.8], [0.5, 0.5]]))
    assert type_loss(logits, torch.tensor([1, 0])).item() == pytest.approx(
        -(np.log(0.8) + np.log(0.5)) / 2
    )


def test_predict_gives_every_answer(run, images):
    answer = run.predict(images)
    assert (
        answer.qualities.shape == (12,)
        and ((answer.qualities > 0) & (answer.qualities < 100)).all()
    )
    assert answer.embeddings.shape == (12, 16) and answer.log_likelihoods.shape == (12,)
    assert np.allclose(answer.responsibilities.sum(1), 1)
    assert np.array_equal(answer.clusters, answer.responsibilities.argmax(1))
    assert np.array_equal(answer.unknown, answer.log_likelihoods < OOD_THRESHOLD)
    logits = run.model.type_head(torch.from_numpy(answer.embeddings)).detach()
    assert np.allclose(answer.type_probabilities, logits.softmax(1), atol=1e-6)


def test_without_a_type_head_there_are_no_type_probabilities(run, images):
    model, mixture = build({**CONFIG, "type_loss_weight": 0})
    headless = Run(model, mixture, {"config": CONFIG, "reference_digests": [], "epoch": 0})
    assert headless.predict(images).type_probabilities.shape == (12, 0)


@pytest.mark.parametrize("size", ((32, 32), (50, 70), (8, 20)))
def test_an_image_gets_the_same_answer_alone_and_in_any_batch(run, size):
    batch = torch.randint(
        0, 256, (9, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    together = run.predict(batch)
    for i in (0, 4, 8):
        for one, all_of_them in zip(run.predict(batch[i : i + 1]), together):
            assert np.allclose(one[0], all_of_them[i], atol=1e-3)


def test_pil_images_of_any_sizes_are_taken(run):
    images = [
        Image.new("L", (8, 200), 90),
        Image.new("RGB", (481, 321), "red"),
        Image.new("RGB", (32, 32), "red"),
    ]
    together = run.predict(images)
    assert len(together.qualities) == 3
    assert np.allclose(together.qualities[2], run.predict(images[2:]).qualities[0], atol=1e-3)


def test_large_images_are_averaged_over_their_tiles(run, images):
    mosaic = torch.cat(
        [torch.cat([images[0], images[1]], 2), torch.cat([images[2], images[3]], 2)], 1
    )
    expected = run.predict(images[:4]).qualities.mean()
    assert run.predict(mosaic[None]).qualities[0] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    "height, width", ((32, 32), (8, 100), (321, 481), (33, 5000), (4000, 3000))
)
def test_tiles_cover_evenly_and_are_64_at_most(height, width):
    corners = tile_corners(height, width, 32)
    assert 1 <= len(corners) <= 64 and len(set(corners)) == len(corners)
    assert all(0 <= y <= max(0, height - 32) and 0 <= x <= max(0, width - 32) for y, x in corners)
    if height * width <= 64 * 32 * 32:
        covered = np.zeros((height, width), bool)
        for y, x in corners:
            covered[y : y + 32, x : x + 32] = True
        assert covered.all()


@pytest.mark.parametrize("bad, message", (
    (torch.zeros(2, 3, 32, 32), "torch.float32"),
    (torch.zeros((3, 32, 32), dtype=torch.uint8), r"\(3, 32, 32\)"),
    (torch.zeros((1, 3, 7, 32), dtype=torch.uint8), "sides of 8 or more"),
    ([], "list of one or more PIL images"),
    (Image.new("RGB", (32, 32)), "list of one or more PIL images"),
    ([np.zeros((32, 32, 3), np.uint8)], "list of one or more PIL images"),
))  # fmt: skip
def test_predict_refuses_other_input(run, bad, message):
    with pytest.raises(ValueError, match=message):
        run.predict(bad)


def test_load_run_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="best.pt does not exist; train first"):
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
