"""The parts of a training run: its state, its losses, and what it does when something fails."""

from dataclasses import asdict

import pytest
import torch

from distorted_dataset import DistortedImageDataset
from models.inference import build
from references.sources import load_training_references
from training import loop
from training.config import Recipe
from training.loop import (
    OPTIMIZERS,
    check_finite,
    compute_losses,
    create_state,
    epoch_order,
    error_context,
    refit,
    train_one_epoch,
    training_batches,
    update_bn_statistics,
    validate,
)
from training.losses import CLUSTER_LOSSES, QUALITY_LOSSES
from training.muon import Muon
from utils.errors import UserError

CPU = torch.device("cpu")
DEFAULTS = {
    "backbone": "resnet18",
    "stem": "small",
    "image_size": 8,
    "embedding_dim": 4,
    "n_clusters": 2,
    "gmm_samples": 100,
    "cluster_loss_weight": 0.5,
    "type_loss_weight": 0.1,
    "epochs": 2,
    "batch_size": 8,
    "lr": 1e-3,
    "seed": 0,
    "amp": False,
}


@pytest.fixture(scope="module")
def references():
    return load_training_references("photos", 4, 2, 8, "data", 0)[0]


@pytest.fixture
def train(references):
    """Return 16 training images, two steps an epoch."""
    return DistortedImageDataset(references, distortions_per_image=3)


def make_config(dataset, recipe=None, **changes):
    """Return what the loop needs of a run's configuration."""
    fixed = {"types": list(dataset.types), "recipe": asdict(recipe or Recipe())}
    return {**DEFAULTS, **fixed, **changes}


def make_state(dataset, config):
    """Return the state at the start of a run, from seed 0."""
    torch.manual_seed(0)
    model, mixture = build(config)
    return create_state(model, mixture, config, len(dataset))


def first_losses(state, dataset, config, use_cluster_loss=False):
    """Return the losses of the dataset's first eight images."""
    indices = torch.arange(8)
    images = dataset.images(indices)
    return compute_losses(state, images, indices, dataset, use_cluster_loss, config)


def test_the_default_optimizer_is_muon(train):
    state = make_state(train, make_config(train))

    assert isinstance(state.optimizer, Muon)


def test_an_added_optimizer_is_used_by_its_name(train, monkeypatch):
    made = []

    def descent(model, lr, weight_decay):
        made.append((lr, weight_decay))
        return torch.optim.SGD(model.parameters(), lr, weight_decay=weight_decay)

    monkeypatch.setitem(OPTIMIZERS, "descent", descent)
    state = make_state(train, make_config(train, Recipe(optimizer="descent")))

    assert type(state.optimizer) is torch.optim.SGD
    assert made == [(1e-3, loop.WEIGHT_DECAY)]


def test_an_added_quality_loss_is_used_by_its_name(train, monkeypatch):
    monkeypatch.setitem(QUALITY_LOSSES, "mean", lambda predicted, quality: quality.mean())
    config = make_config(train, Recipe(quality_loss="mean"))

    losses = first_losses(make_state(train, config), train, config)

    assert losses["quality_loss"] == train.labels.quality[:8].mean()


def test_an_added_cluster_loss_is_used_by_its_name(train, monkeypatch):
    monkeypatch.setitem(CLUSTER_LOSSES, "count", lambda mixture, embeddings: torch.tensor(7.0))
    config = make_config(train, Recipe(cluster_loss="count"))

    losses = first_losses(make_state(train, config), train, config, use_cluster_loss=True)

    assert losses["cluster_loss"] == 7


def test_the_loss_is_the_weighted_sum_of_its_terms(train, monkeypatch):
    monkeypatch.setitem(CLUSTER_LOSSES, "count", lambda mixture, embeddings: torch.tensor(7.0))
    config = make_config(train, Recipe(cluster_loss="count"))

    losses = first_losses(make_state(train, config), train, config, use_cluster_loss=True)

    expected = losses["quality_loss"] + 0.5 * 7 + 0.1 * losses["type_loss"]
    assert losses.keys() == {"loss", "quality_loss", "cluster_loss", "type_loss"}
    assert torch.isclose(losses["loss"], expected)


def test_without_a_type_head_there_is_no_type_loss(train):
    config = make_config(train, type_loss_weight=0)

    losses = first_losses(make_state(train, config), train, config)

    assert losses.keys() == {"loss", "quality_loss"}
    assert losses["loss"] == losses["quality_loss"]


@pytest.mark.parametrize("weight, is_used", ((0.5, True), (0, False)))
def test_the_cluster_loss_needs_a_fit_and_a_weight(train, weight, is_used):
    config = make_config(train, cluster_loss_weight=weight)
    state = make_state(train, config)

    before_fit, _ = train_one_epoch(state, train, 0, config)
    refit(state.mixture, state.ema_model, train, config)
    after_fit, _ = train_one_epoch(state, train, 1, config)

    assert "cluster_loss" not in before_fit
    assert ("cluster_loss" in after_fit) == is_used


@pytest.mark.parametrize("share, is_same", ((0, True), (0.9, False)))
def test_the_share_is_the_span_of_the_average(train, share, is_same):
    """Without a span the averaged weights are the trained ones."""
    config = make_config(train, Recipe(ema_share=share))
    state = make_state(train, config)

    train_one_epoch(state, train, 0, config)

    pairs = zip(state.model.parameters(), state.ema_model.parameters())
    assert all(torch.equal(trained, averaged) for trained, averaged in pairs) == is_same


def test_the_average_follows_the_trained_weights(train):
    """Its first value is the weights after the first step; then it goes a part of the way."""
    config = make_config(train, Recipe(ema_share=0.5), epochs=4)  # a span of 4 of 8 steps
    state = make_state(train, config)
    model = state.model

    state.ema.update_parameters(model)
    first = model.quality_head.weight.detach().clone()
    with torch.no_grad():
        model.quality_head.weight += 1
    state.ema.update_parameters(model)

    assert torch.allclose(state.ema_model.quality_head.weight, first + 1 / 4)


@pytest.mark.parametrize("images, epochs", ((80, 5), (81, 6)))
def test_the_learning_rate_is_one_cycle_of_the_run(train, images, epochs):
    """It rises to --lr over a fifth of the steps, and ends near zero with the last."""
    config = make_config(train, epochs=epochs)
    state = create_state(*build(config), config, images)
    rates = []

    for _ in range(epochs * -(-images // 8)):
        rates.append(state.scheduler.get_last_lr()[0])
        state.optimizer._opt_called = True  # else the scheduler warns that no step was taken
        state.scheduler.step()

    peak = rates.index(max(rates))
    assert rates == sorted(rates[:peak]) + sorted(rates[peak:], reverse=True)
    assert peak == pytest.approx(0.2 * len(rates), abs=1)
    assert rates[0] < 1e-4
    assert rates[peak] == pytest.approx(1e-3, rel=0.02)
    assert rates[-1] < 1e-6


def test_a_run_of_one_step_has_a_learning_rate(train):
    config = make_config(train, epochs=1)

    state = create_state(*build(config), config, image_count=4)

    assert state.scheduler.get_last_lr()[0] > 0


def test_an_epoch_trains_the_weights(train):
    config = make_config(train)
    state = make_state(train, config)
    before = state.model.quality_head.weight.detach().clone()

    losses, images_per_second = train_one_epoch(state, train, 0, config)

    assert not torch.equal(state.model.quality_head.weight, before)
    assert losses.keys() == {"loss", "quality_loss", "type_loss"}
    assert images_per_second > 0


def test_an_epochs_losses_are_means_over_its_images(train, monkeypatch):
    """Batches of 8, 5 and 3 images of the same loss, 1, 2 and 3."""
    steps = iter((1.0, 2.0, 3.0))

    def count(state, images, *rest):
        zero = sum(0 * weight.sum() for weight in state.model.parameters())
        return {"loss": zero + next(steps)}

    def three_batches(dataset, order, batch_size, device):
        for indices in order.split((8, 5, 3)):
            yield dataset.images(indices), indices

    monkeypatch.setattr(loop, "compute_losses", count)
    monkeypatch.setattr(loop, "training_batches", three_batches)
    config = make_config(train, epochs=4)
    losses, _ = train_one_epoch(make_state(train, config), train, 0, config)

    assert losses["loss"] == pytest.approx((8 * 1 + 5 * 2 + 3 * 3) / 16)


def test_every_epoch_has_an_order_of_its_own(train):
    first = epoch_order(train, 0, seed=0)
    second = epoch_order(train, 1, seed=0)

    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(16))
    assert not torch.equal(first, second)


def test_the_order_of_an_epoch_is_the_seeds(train):
    order = epoch_order(train, 0, seed=0)

    assert torch.equal(order, epoch_order(train, 0, seed=0))
    assert not torch.equal(order, epoch_order(train, 0, seed=1))


@pytest.mark.parametrize("batch_size, sizes", ((8, [8, 8]), (7, [7, 7, 2]), (5, [5, 5, 5])))
def test_a_batch_of_a_single_image_is_left_out(train, batch_size, sizes):
    order = torch.arange(16)

    batches = list(training_batches(train, order, batch_size, CPU))

    assert [len(images) for images, _ in batches] == sizes


def test_statistics_are_of_the_epochs_images(train):
    """The stem's are mean and variance of what the first convolution gives, from all images."""
    config = make_config(train)
    model = make_state(train, config).ema_model
    outputs = []
    model.backbone.conv1.register_forward_hook(lambda *call: outputs.append(call[2].detach()))

    update_bn_statistics(model, train, 0, config)

    means = [output.mean((0, 2, 3)) for output in outputs]
    assert [len(output) for output in outputs] == [8, 8]
    assert torch.allclose(model.backbone.bn1.running_mean, sum(means) / 2, atol=1e-6)


def test_validation_has_no_clusters_before_a_fit(train):
    config = make_config(train)
    state = make_state(train, config)

    assert validate(state.ema_model, state.mixture, train).keys() == {"srcc", "plcc"}


def test_validation_measures_clusters_after_a_fit(train):
    """And from the second fit on, how many images kept their cluster."""
    config = make_config(train)
    state = make_state(train, config)

    refit(state.mixture, state.ema_model, train, config)
    once = validate(state.ema_model, state.mixture, train)
    refit(state.mixture, state.ema_model, train, config)
    twice = validate(state.ema_model, state.mixture, train)

    assert once.keys() == {"srcc", "plcc", "active_clusters", "nmi"}
    assert twice.keys() == once.keys() | {"kept"}
    assert twice["kept"] == 1


@pytest.mark.parametrize("value", (float("nan"), float("inf"), -float("inf")))
def test_what_is_not_finite_is_refused(value):
    tensors = [torch.ones(2), torch.tensor([0.0, value])]

    with pytest.raises(UserError, match="not finite, .* start again with an --lr below 0.5"):
        check_finite(tensors, lr=0.5)


def test_what_is_finite_passes():
    """Whole numbers too, such as a batch norm's count of batches."""
    check_finite([torch.ones(2), torch.tensor(3)], lr=0.5)


def test_an_error_names_its_moment():
    with pytest.raises(UserError, match="^epoch 3: too few$"), error_context("epoch 3", {}):
        raise UserError("too few")


def test_too_little_memory_names_a_way_out():
    config = {"batch_size": 64, "image_size": 32}

    expected = "^epoch 3: not enough GPU memory; .* --batch_size below 64 or an --image_size below"
    with pytest.raises(UserError, match=expected), error_context("epoch 3", config):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_other_errors_are_left_as_they_are():
    """They are bugs, and need their traceback."""
    with pytest.raises(KeyError), error_context("epoch 3", {}):
        raise KeyError("a bug")
