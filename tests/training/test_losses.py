"""The terms of the loss: known values, gradients, and where they pull."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.mixture import Mixture
from training.losses import balanced_assignment, cluster_loss, quality_loss, rank_loss, type_loss

SHARES = torch.tensor([0.75, 0.25])


def log_posteriors(first):
    """Return (B, 2) log-posteriors from those of the first of two components."""
    return torch.stack([first, 1 - first], dim=1).log()


def test_quality_loss_has_known_values_and_gradients():
    predicted = torch.tensor([50.0, 95.0], dtype=torch.float64, requires_grad=True)
    quality = torch.tensor([55.0, 45.0], dtype=torch.float64)

    loss = quality_loss(predicted, quality)

    assert loss.item() == pytest.approx((0.05**2 / 0.2 + 0.45) / 2)
    assert torch.autograd.gradcheck(lambda p: quality_loss(p, quality), (predicted,))


def test_type_loss_is_the_cross_entropy():
    logits = torch.log(torch.tensor([[0.2, 0.8], [0.5, 0.5]]))

    loss = type_loss(logits, torch.tensor([1, 0])).item()

    assert loss == pytest.approx(-(np.log(0.8) + np.log(0.5)) / 2)


def test_cluster_loss_pulls_to_the_assigned_component():
    """And away from the other."""
    mixture = Mixture(2, 2)
    rng = np.random.default_rng(0)
    mixture.refit(np.concatenate([rng.normal(-3, 1, (200, 2)), rng.normal(3, 1, (200, 2))]), seed=0)
    left, right = mixture.means[mixture.means[:, 0].argsort()] * mixture.scale + mixture.center
    embedding = (0.4 * left + 0.6 * right).clone().requires_grad_()

    cluster_loss(mixture, embedding[None]).backward()

    assert -embedding.grad @ (right - left) > 0


def test_cluster_loss_is_a_tenth_of_a_cross_entropy():
    """To the balanced assignment, which carries no gradient."""
    mixture = Mixture(3, 4)
    rng = np.random.default_rng(0)
    centers = 6 * np.eye(4)[rng.choice(3, 300, p=[0.6, 0.3, 0.1])]
    mixture.refit(rng.normal(size=(300, 4)) + centers, seed=0)
    embeddings = torch.tensor(rng.normal(size=(64, 4)) + 2, dtype=torch.float32, requires_grad=True)

    loss = cluster_loss(mixture, embeddings)

    logits = mixture.log_joint(embeddings) / 4
    assignment = balanced_assignment(logits.detach().log_softmax(1), mixture.weights)
    expected = 0.1 * F.cross_entropy(logits, assignment)
    (gradient,) = torch.autograd.grad(loss, embeddings)
    (expected_gradient,) = torch.autograd.grad(expected, embeddings)
    assert loss.dtype == torch.float32
    assert torch.isclose(loss.double(), expected)
    assert torch.allclose(gradient, expected_gradient, rtol=1e-3, atol=1e-8)


def test_assignments_go_towards_the_shares_of_the_fit():
    """All of the batch would go to the first of two components, some images more surely."""
    first = torch.linspace(0.55, 0.95, 128)

    assignment = balanced_assignment(log_posteriors(first), SHARES)

    assert torch.allclose(assignment.sum(1), torch.ones(128))
    assert (assignment[1:, 0] >= assignment[:-1, 0]).all()  # the surest first
    assert (assignment.argmax(1) == 1).float().mean() == pytest.approx(0.25, abs=0.06)


def test_a_batch_that_has_the_shares_of_the_fit_stays():
    first = torch.cat([torch.linspace(0.65, 0.95, 96), torch.linspace(0.05, 0.35, 32)])

    assignment = balanced_assignment(log_posteriors(first), SHARES)

    assert (assignment.argmax(1) == torch.tensor([0] * 96 + [1] * 32)).all()


@pytest.mark.parametrize("share", (0.5, 0.05))
def test_a_sure_image_stays_even_in_a_small_component(share):
    shares = torch.tensor([share, 1 - share])

    assignment = balanced_assignment(torch.tensor([[0.9, 0.1]]).log(), shares)

    assert assignment[0, 0] > 0.9


def rank(predicted, quality, distortions):
    values = (predicted, quality, distortions)
    return rank_loss(*map(torch.tensor, values)).item()


def test_a_pair_of_one_distortion_has_one_order():
    """The better one is surely better, however close the two are."""
    order_kept = rank([70.0, 50.0], [61.0, 60.0], [0, 0])
    order_turned = rank([50.0, 70.0], [61.0, 60.0], [0, 0])

    assert order_kept == pytest.approx(math.log1p(math.exp(-2)), rel=1e-5)
    assert order_turned == pytest.approx(math.log1p(math.exp(2)), rel=1e-5)


@pytest.mark.parametrize("distortions", ([0, 1], [-1, -1]))
def test_another_pair_is_best_at_its_difference(distortions):
    """Of predictions, the true difference costs least; a larger one costs more."""
    predictions = [[50.0 + d, 50.0] for d in (0.0, 5.0, 10.0, 15.0, 40.0)]
    losses = [rank(predicted, [60.0, 50.0], distortions) for predicted in predictions]

    assert min(losses) == losses[2]


def test_pairs_of_equal_quality_do_not_count():
    assert rank([80.0, 20.0], [100.0, 100.0], [8, 8]) == 0
