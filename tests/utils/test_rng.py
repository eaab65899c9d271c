import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from utils.rng import CounterRNG, _splitmix64_torch, fold_in, splitmix64, permutation

SEEDS = st.integers(0, 2**63 - 1)


def test_mix_agrees_with_splitmix64():
    # The published generator's first outputs from state 0 (Steele, Lea and Flood, 2014).
    golden = 0x9E3779B97F4A7C15
    states = [(golden * i) % 2**64 for i in (1, 2, 3)]
    signed = torch.tensor([s - 2**64 if s >= 2**63 else s for s in states])
    for way in (splitmix64, _splitmix64_torch):  # a GPU takes the second
        assert [v % 2**64 for v in way(signed).tolist()] == [
            0xE220A8397B1DCDAF,
            0x6E789E6AA1B965F4,
            0x06C45D188009454F,
        ]


@given(SEEDS, st.integers(0, 99))
def test_an_image_draws_the_same_alone_and_in_a_batch(seed, at):
    keys, like = fold_in(seed, torch.arange(100)), torch.empty(100, 3, 4, 5)
    together, alone = CounterRNG(keys), CounterRNG(keys[at : at + 1])
    assert torch.equal(together.uniform()[at], alone.uniform()[0])
    assert torch.equal(together.normal_like(like)[at], alone.normal_like(like[:1])[0])


def test_draws_have_their_distributions():
    draw = CounterRNG(fold_in(1, torch.arange(2000)))
    assert stats.kstest(draw.uniform(2, 5).flatten().numpy(), stats.uniform(2, 3).cdf).pvalue > 1e-3
    assert (
        stats.kstest(draw.normal_like(torch.empty(2000, 3, 5, 5)).flatten().numpy(), "norm").pvalue
        > 1e-3
    )
    assert abs(draw.sign().mean()) < 0.1


def test_normals_are_unrelated_to_each_other_and_reach_far():
    normals = (
        CounterRNG(fold_in(2, torch.arange(20000)))
        .normal_like(torch.empty(20000, 3, 2, 2))
        .flatten(1)
        .double()
    )
    assert torch.corrcoef(normals.T).fill_diagonal_(0).abs().max() < 0.04
    assert abs(normals.square().mean() - 1) < 0.01 and abs((normals**4).mean() - 3) < 0.1
    assert 4 < normals.abs().max() < 4.4


def test_fields_of_a_key_all_matter_and_in_their_places():
    keys = {
        fold_in(*fields).item() for fields in [(0, 1, 2), (1, 0, 2), (0, 2, 1), (0, 1, 3), (0, 1)]
    }
    assert len(keys) == 5


def test_successive_calls_give_unrelated_numbers():
    draw = CounterRNG(fold_in(0, torch.arange(5000)))
    first, second = (draw.uniform().flatten().numpy() for _ in range(2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


def test_permutation_holds_every_number_once():
    assert sorted(permutation(100, 3).tolist()) == list(range(100))
    assert permutation(100, 3).tolist() != permutation(100, 4).tolist()


def test_one_image_draws_the_batchs_numbers():
    keys, like = fold_in(5, torch.arange(3)), torch.empty(3, 3, 8, 8)
    draw = CounterRNG(keys)
    image = draw.image(2)
    assert image.uniform(1, 2) == draw.uniform(1, 2).flatten()[2].item()
    assert np.array_equal(image.normal_like(np.empty((3, 8, 8))), draw.normal_like(like)[2].numpy())
    assert image.uniform(size=(2, 3)).shape == (2, 3)
