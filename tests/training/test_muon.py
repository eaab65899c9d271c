"""The optimizer: orthogonal steps for kernels, AdamW's for the rest."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from training.muon import ITERATIONS, LR_FACTOR, QUINTIC, Muon, orthogonalize


@pytest.fixture(params=(True, False), ids=("bfloat16", "float32"), autouse=True)
def in_bfloat16(request, monkeypatch):
    """Run each test as on a device with bfloat16, and as on one without."""
    monkeypatch.setattr("training.muon.has_bfloat16", lambda device: request.param)
    return request.param


def random_matrix(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def with_singular_values(values, columns):
    """Return U, V and the matrix U diag(values) V, with random U and V."""
    u, _, v = torch.linalg.svd(random_matrix(len(values), columns), full_matrices=False)
    return u, v, u * values @ v


def falling_values(count):
    values = torch.arange(1, count + 1) ** -2.0
    return values / values.norm()


@pytest.mark.parametrize("shape", ((64, 27), (64, 576), (128, 64)))
def test_a_step_points_where_the_polar_factor_does(shape):
    matrix = random_matrix(*shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)

    step = orthogonalize(matrix)

    assert nn.functional.cosine_similarity(step.flatten(), (u @ v).flatten(), dim=0) > 0.97
    values = torch.linalg.svdvals(step)
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_large_singular_values_are_made_about_equal():
    """And small ones grow 140-fold."""
    values = falling_values(128)
    u, v, matrix = with_singular_values(values, columns=1152)

    grown = (u.T @ orthogonalize(matrix) @ v.T).diag()

    is_large = values > 0.01
    assert is_large.sum() == 9
    assert grown[is_large].min() > 0.5
    assert grown.max() < 1.3
    assert (grown[-40:] / values[-40:]).median() == pytest.approx(140, rel=0.1)


def test_singular_values_follow_the_polynomial(in_bfloat16):
    """In float32 down to a ten-thousandth of the largest; bfloat16 loses those."""
    values = falling_values(64)
    u, v, matrix = with_singular_values(values, columns=576)
    a, b, c = QUINTIC
    expected = values
    for _ in range(ITERATIONS):
        expected = a * expected + b * expected**3 + c * expected**5

    found = u.T @ orthogonalize(matrix) @ v.T

    if in_bfloat16:
        assert (found - expected.diag()).norm() < 0.15 * expected.norm()
    else:
        assert torch.allclose(found.diag(), expected, rtol=2e-4, atol=0)
        assert (found - expected.diag()).abs().max() < 2e-4


@pytest.fixture
def images():
    return torch.randn(4, 3, 6, 6)


@pytest.fixture
def model(images):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2))
    model(images)
    return model


def take_step(model, optimizer, images):
    optimizer.zero_grad()
    model(images).square().mean().backward()
    optimizer.step()


def test_all_but_kernels_take_adamws_step(model, images):
    twin = deepcopy(model)
    others = [p for p in twin.parameters() if p.ndim != 4]

    take_step(model, Muon(model, 1e-3, 10), images)
    take_step(twin, torch.optim.AdamW(others, 1e-3, (0.9, 0.99), weight_decay=10), images)

    assert torch.equal(model[2].weight, twin[2].weight)
    assert torch.equal(model[0].bias, twin[0].bias)


def test_a_kernel_moves_by_about_equal_singular_values(model, images):
    before = model[0].weight.clone()

    take_step(model, Muon(model, 1e-3, 10), images)

    decayed = (1 - LR_FACTOR * 1e-2) * before
    values = torch.linalg.svdvals((model[0].weight - decayed).flatten(1))
    assert (values > 0.5 * LR_FACTOR * 1e-3).all()
    assert (values < 1.3 * LR_FACTOR * 1e-3).all()


def test_a_saved_optimizer_goes_on_alike(model, images):
    optimizer = Muon(model, 1e-3, 0.1)
    take_step(model, optimizer, images)
    twin = deepcopy(model)
    other = Muon(twin, 1e-3, 0.1)
    other.load_state_dict(deepcopy(optimizer.state_dict()))

    take_step(model, optimizer, images)
    take_step(twin, other, images)

    for a, b in zip(model.parameters(), twin.parameters()):
        assert torch.equal(a, b)


def test_a_kernel_goes_on_along_its_momentum(model, images):
    """After a step along its gradient it takes one with a gradient of zero."""
    optimizer = Muon(model, 1e-3, 0)
    kernel = model[0].weight
    model(images).square().mean().backward()
    start = kernel.detach().clone()

    optimizer.step()
    middle = kernel.detach().clone()
    kernel.grad = torch.zeros_like(kernel)
    optimizer.step()

    first = (middle - start).flatten()
    second = (kernel.detach() - middle).flatten()
    assert nn.functional.cosine_similarity(first, second, dim=0) > 0.99
    assert second.norm() > LR_FACTOR * 1e-3
