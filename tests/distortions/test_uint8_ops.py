"""Operations on bytes, one image after the other as on a CPU, and as a batch as on a GPU."""

import numpy as np
import pytest
import torch

from distortions import uint8_ops
from utils.rng import CounterRNG, fold_in

BATCH = torch.randint(0, 256, (4, 9, 14, 3), generator=torch.Generator().manual_seed(0)).byte()


@pytest.fixture(params=("one by one", "as a batch"), autouse=True)
def both_ways(request, monkeypatch):
    """Run each test in both ways."""
    if request.param == "as a batch":
        monkeypatch.setattr(uint8_ops, "on_cpu", lambda images: False)


def test_bytes_are_the_nearest_and_none_wraps():
    values = torch.tensor(
        [[-3e9, -3.0, -0.4, 0.4, 0.6, 127.5, 128.5], [254.4, 254.6, 255.4, 256.0, 3e9, 1e12, 7.0]]
    )
    expected = [[0, 0, 0, 0, 1, 128, 128], [254, 255, 255, 255, 255, 255, 7]]

    assert uint8_ops.to_uint8(values.clone()).tolist() == expected


def test_pixels_are_written_to_their_rows():
    output = torch.zeros(6, 9, 14, 3, dtype=torch.uint8)
    rows = torch.tensor([5, 0, 3, 2])

    uint8_ops.scatter_rows(BATCH, output, rows)

    assert torch.equal(output[rows], BATCH)
    assert output[[1, 4]].sum() == 0


def test_means_are_of_each_channel():
    means = uint8_ops.channel_means(BATCH)

    assert torch.allclose(means, BATCH.double().mean((1, 2)), rtol=1e-15)


def test_values_are_mapped_by_each_images_table():
    factor = torch.tensor([0.5, 1.0, 2.0, -1.0])

    mapped = uint8_ops.map_values(BATCH, lambda values: factor[:, None] * values)

    expected = (factor.view(4, 1, 1, 1) * BATCH).round().clamp(0, 255).byte()
    assert torch.equal(mapped, expected)


def test_colours_are_mixed_by_each_images_matrix():
    matrices = torch.rand(4, 3, 3) - 0.2
    rounded = (1024 * matrices).round().double() / 1024

    mixed = uint8_ops.mix_channels(BATCH, matrices)

    expected = torch.einsum("bij,byxj->byxi", rounded, BATCH.double()).clamp(0, 255)
    assert (mixed.double() - expected).abs().max() <= 0.5


def test_noise_is_added_and_clipped(monkeypatch):
    monkeypatch.setattr(uint8_ops, "CHUNK_PIXELS", 300)  # two images at a time
    deviation = torch.tensor([3.0, 50.0, 200.0, 0.0]).view(4, 1, 1, 1)
    keys = fold_in(5, torch.arange(4))

    noisy = uint8_ops.add_noise(BATCH, deviation, keys)

    noise = deviation * CounterRNG(keys).normal_like(BATCH)
    assert torch.equal(noisy, (BATCH + noise).round().clamp(0, 255).byte())


def test_a_cpu_gets_a_few_images_at_a_time(monkeypatch):
    monkeypatch.setattr(uint8_ops, "CHUNK_PIXELS", 3 * 9 * 14 + 1)
    sizes = []

    @uint8_ops.chunked
    def divide(images, divisor):
        sizes.append((len(images), len(divisor)))
        return images // divisor

    divisor = torch.tensor([1, 2, 3, 4], dtype=torch.uint8).view(4, 1, 1, 1)
    assert torch.equal(divide(BATCH, divisor), BATCH // divisor)
    assert sizes == ([(3, 3), (1, 1)] if uint8_ops.on_cpu(BATCH) else [(4, 4)])


def test_an_image_without_its_parameter_is_refused():
    def copy(image, value, output):
        np.copyto(output, image)

    with pytest.raises(ValueError, match="shorter"):
        uint8_ops.map_on_cpu(BATCH, copy, np.zeros(3))
