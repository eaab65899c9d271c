"""The optimizer: orthogonal steps for kernels, AdamW's for the rest."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from training.muon import ITERATIONS, LR_FACTOR, QUINTIC, Muon, orthogonalize


@pytest.fixture(params=(True, False), ids=("bfloat16", "float32"), autouse=True)
def in_bfloat16(request, monkeypatch):
    monkeypatch.setattr("training.muon.has_bfloat16", lambda device: request.param)
    return request.param


@pytest.mark.parametrize("shape", ((64, 27), (64, 576), (128, 64)))
def test_a_step_points_where_the_polar_factor_does(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    step = orthogonalize(matrix)
    assert nn.functional.cosine_similarity(step.flatten(), (u @ v).flatten(), dim=0) > 0.97
    values = torch.linalg.svdvals(step)
    assert values.min() > 0.5 and values.max() < 1.3


def test_small_singular_values_grow_and_the_others_are_made_about_equal():
    generator = torch.Generator().manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn((128, 1152), generator=generator), full_matrices=False)
    values = torch.arange(1, 129) ** -2.0
    values = values / values.norm()
    grown = (u.T @ orthogonalize(u * values @ v) @ v.T).diag()
    large = values > 0.01
    assert grown[large].min() > 0.5 and grown.max() < 1.3
    assert (grown[-40:] / values[-40:]).median() == pytest.approx(140, rel=0.1) and large.sum() == 9


def test_each_way_makes_of_every_singular_value_what_the_polynomial_does(in_bfloat16):
    """In float32 down to a ten-thousandth of the largest; bfloat16 loses those."""
    matrix = torch.randn((64, 576), generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    values = torch.arange(1, 65) ** -2.0
    expected = values / values.norm()
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        expected = a * expected + b * expected**3 + c * expected**5
    made = u.T @ orthogonalize(u * values @ v) @ v.T
    if in_bfloat16:
        assert (made - expected.diag()).norm() < 0.15 * expected.norm()
    else:
        assert torch.allclose(made.diag(), expected, rtol=2e-4, atol=0)
        assert (made - expected.diag()).abs().max() < 2e-4


def small_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2))


def test_all_but_kernels_take_adamws_step():
    model, images = small_model(), torch.randn(4, 3, 6, 6)
    model(images)
    twin = deepcopy(model)
    kernel = model[0].weight.clone()
    others = [p for p in twin.parameters() if p.ndim != 4]
    for net, optimizer in (
        (model, Muon(model, 1e-3, 10)),
        (twin, torch.optim.AdamW(others, 1e-3, (0.9, 0.99), weight_decay=10)),
    ):
        net(images).square().mean().backward()
        optimizer.step()
    assert torch.equal(model[2].weight, twin[2].weight) and torch.equal(model[0].bias, twin[0].bias)
    values = torch.linalg.svdvals((model[0].weight - (1 - LR_FACTOR * 1e-2) * kernel).flatten(1))
    assert (values > 0.5 * LR_FACTOR * 1e-3).all() and (values < 1.3 * LR_FACTOR * 1e-3).all()


def test_a_saved_optimizer_goes_on_alike():
    model, images = small_model(), torch.randn(4, 3, 6, 6)
    model(images)
    optimizer = Muon(model, 1e-3, 0.1)

    def step(net, optimizer):
        optimizer.zero_grad()
        net(images).square().mean().backward()
        optimizer.step()

    step(model, optimizer)
    twin = deepcopy(model)
    other = Muon(twin, 1e-3, 0.1)
    other.load_state_dict(deepcopy(optimizer.state_dict()))
    for pair in ((model, optimizer), (twin, other)):
        step(*pair)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters()))


def test_a_kernel_goes_on_along_its_momentum():
    model = small_model()
    model(torch.randn(4, 3, 6, 6)).square().mean().backward()
    optimizer, kernel = Muon(model, 1e-3, 0), model[0].weight
    places = [kernel.detach().clone()]
    for gradient in (kernel.grad.clone(), torch.zeros_like(kernel)):
        kernel.grad = gradient
        optimizer.step()
        places.append(kernel.detach().clone())
    first, second = places[1] - places[0], places[2] - places[1]
    assert nn.functional.cosine_similarity(first.flatten(), second.flatten(), dim=0) > 0.99
    assert second.norm() > LR_FACTOR * 1e-3
