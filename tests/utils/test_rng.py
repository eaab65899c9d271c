"""Random numbers: the same for an image wherever it is, with the distributions that they claim."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from utils.rng import CounterRNG, _splitmix64_torch, fold_in, permutation, splitmix64

SEEDS = st.integers(0, 2**63 - 1)


def test_splitmix64_agrees_with_its_publication():
    """The generator's first outputs from state 0 (Steele, Lea and Flood, 2014), on CPU and GPU."""
    golden = 0x9E3779B97F4A7C15
    states = [(golden * i) % 2**64 for i in (1, 2, 3)]
    signed = torch.tensor([s - 2**64 if s >= 2**63 else s for s in states])
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]

    for implementation in (splitmix64, _splitmix64_torch):  # a GPU takes the second
        assert [word % 2**64 for word in implementation(signed).tolist()] == expected


@given(SEEDS, st.integers(0, 99))
def test_an_image_draws_the_same_alone_and_in_a_batch(seed, i):
    keys = fold_in(seed, torch.arange(100))
    images = torch.empty(100, 4, 5, 3)

    together = CounterRNG(keys)
    alone = CounterRNG(keys[i : i + 1])

    assert torch.equal(together.uniform()[i], alone.uniform()[0])
    assert torch.equal(together.normal_like(images)[i], alone.normal_like(images[:1])[0])


def test_uniform_numbers_are_uniform_and_have_their_shape():
    rng = CounterRNG(fold_in(1, torch.arange(2000)))

    values = rng.uniform(2, 5, shape=(2, 1))

    assert values.shape == (2000, 2, 1)
    assert stats.kstest(values.flatten().numpy(), stats.uniform(2, 3).cdf).pvalue > 1e-3


def test_signs_are_even():
    assert abs(CounterRNG(fold_in(1, torch.arange(2000))).sign().mean()) < 0.1


def test_normals_are_normal():
    rng = CounterRNG(fold_in(1, torch.arange(2000)))

    normals = rng.normal_like(torch.empty(2000, 5, 5, 3))

    assert stats.kstest(normals.flatten().numpy(), "norm").pvalue > 1e-3


def test_normals_are_unrelated_and_reach_far():
    rng = CounterRNG(fold_in(2, torch.arange(20000)))

    normals = rng.normal_like(torch.empty(20000, 2, 2, 3)).flatten(1).double()

    assert torch.corrcoef(normals.T).fill_diagonal_(0).abs().max() < 0.04
    assert abs(normals.square().mean() - 1) < 0.01
    assert abs((normals**4).mean() - 3) < 0.1
    assert 4 < normals.abs().max() < 4.4


def test_every_field_of_a_key_matters_in_its_place():
    fields = [(0, 1, 2), (1, 0, 2), (0, 2, 1), (0, 1, 3), (0, 1)]

    keys = {fold_in(*values).item() for values in fields}

    assert len(keys) == 5


def test_successive_calls_give_unrelated_numbers():
    rng = CounterRNG(fold_in(0, torch.arange(5000)))

    first = rng.uniform().flatten().numpy()
    second = rng.uniform().flatten().numpy()

    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


def test_a_permutation_holds_every_number_once():
    assert sorted(permutation(100, 3).tolist()) == list(range(100))
    assert permutation(100, 3).tolist() != permutation(100, 4).tolist()


def test_one_images_rng_draws_the_batchs_numbers():
    rng = CounterRNG(fold_in(5, torch.arange(3)))
    image_rng = rng.for_image(2)

    assert image_rng.uniform(1, 2) == rng.uniform(1, 2).flatten()[2].item()
    expected = rng.normal_like(torch.empty(3, 8, 8, 3))[2].numpy()
    assert np.array_equal(image_rng.normal_like(np.empty((8, 8, 3))), expected)


def test_one_images_rng_gives_arrays_of_a_shape():
    image_rng = CounterRNG(fold_in(5, torch.arange(3))).for_image(1)

    assert image_rng.uniform(shape=(2, 3)).shape == (2, 3)
    assert image_rng.uniform(shape=4).shape == (4,)
