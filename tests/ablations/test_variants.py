"""The list of ablations, and the parts that only ablations have."""

import numpy as np
import pytest
import torch

import train_with_distortions
from ablations.cluster_losses import LOSS_VARIANTS
from ablations.old_approach import OldDataset, old_quality
from ablations.variants import ABLATIONS, squared_loss
from distortions.registry import DISTORTION_TYPES
from models.mixture import Mixture
from training.config import Recipe
from training.loop import OPTIMIZERS, WEIGHT_DECAY
from training.losses import CLUSTER_LOSSES, QUALITY_LOSSES, tempered_log_posteriors
from utils.images import to_nhwc


@pytest.mark.parametrize("ablation", ABLATIONS.values(), ids=ABLATIONS)
def test_flags_of_an_ablation_exist(ablation):
    flags = ablation.flags.format(half=1, double=2).split()

    train_with_distortions.parse_args(["--experiment_name", "any", *flags])


@pytest.mark.parametrize("ablation", ABLATIONS.values(), ids=ABLATIONS)
def test_parts_of_an_ablation_exist(ablation):
    assert ablation.recipe.optimizer in OPTIMIZERS
    assert ablation.recipe.quality_loss in QUALITY_LOSSES
    assert ablation.recipe.cluster_loss in CLUSTER_LOSSES


def test_only_the_default_changes_nothing():
    unchanged = [
        name
        for name, ablation in ABLATIONS.items()
        if not ablation.flags and ablation.recipe == Recipe()
    ]

    assert unchanged == ["both"]


def test_adamw_has_three_times_the_weight_decay():
    optimizer = OPTIMIZERS["adamw"](torch.nn.Linear(2, 1), 1e-3, WEIGHT_DECAY)

    assert [group["weight_decay"] for group in optimizer.param_groups] == [3 * WEIGHT_DECAY]


def test_the_squared_loss_is_four_times_the_square():
    loss = squared_loss(torch.tensor([50.0, 60.0]), torch.tensor([100.0, 60.0]))

    assert loss == pytest.approx(4 * 0.5**2 / 2)


@pytest.mark.parametrize("name", LOSS_VARIANTS)
def test_a_cluster_loss_pulls_to_the_component(name):
    """A step against its gradient makes the nearest component more probable."""
    random = np.random.default_rng(0)
    mixture = Mixture(3, 4)
    mixture.refit(
        random.normal(size=(300, 4)) + 6 * np.eye(4)[random.integers(3, size=300)], seed=0
    )
    places = torch.tensor(random.normal(size=(64, 4)) + 3, dtype=torch.float32)
    embeddings = places.clone().requires_grad_()

    CLUSTER_LOSSES[name](mixture, embeddings).backward()
    moved = places - 0.1 * embeddings.grad / embeddings.grad.norm()

    before = tempered_log_posteriors(mixture, places)
    after = tempered_log_posteriors(mixture, moved)
    nearest = before.argmax(1, keepdim=True)
    assert after.gather(1, nearest).mean() > before.gather(1, nearest).mean()


@pytest.fixture
def old_dataset(crops):
    return OldDataset(crops, DISTORTION_TYPES, 5, flip=True)


def test_old_images_are_pristine_in_every_epoch(old_dataset):
    for epoch in (0, 1):
        old_dataset.set_epoch(epoch)

        assert (old_dataset.labels.main_type == len(DISTORTION_TYPES)).all()


def test_old_images_have_their_references_label(old_dataset):
    images = to_nhwc(old_dataset.images(torch.arange(60)))

    assert torch.allclose(old_quality(images), old_dataset.labels.quality[:60], atol=1e-3)


def test_old_labels_lie_between_0_and_100(crops):
    quality = old_quality(crops.images)

    assert quality.min() >= 0
    assert quality.max() <= 100
    assert quality.std() > 3


def test_old_labels_fall_with_brightness(crops):
    darker = old_quality(crops.images // 4)

    assert (darker < old_quality(crops.images)).float().mean() > 0.9
