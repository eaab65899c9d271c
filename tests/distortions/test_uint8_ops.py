import numpy as np
import pytest
import torch

from distortions import uint8_ops
from utils.rng import CounterRNG, fold_in

BATCH = torch.randint(0, 256, (4, 3, 9, 14), generator=torch.Generator().manual_seed(0)).byte()


@pytest.fixture(params=("one by one", "as a batch"), autouse=True)
def both_ways(request, monkeypatch):
    if request.param == "as a batch":
        monkeypatch.setattr(uint8_ops, "on_cpu", lambda images: False)


def test_bytes_are_the_nearest_and_no_value_wraps():
    values = torch.tensor(
        [[-3e9, -3.0, -0.4, 0.4, 0.6, 127.5, 128.5], [254.4, 254.6, 255.4, 256.0, 3e9, 1e12, 7.0]]
    )
    expected = [[0, 0, 0, 0, 1, 128, 128], [254, 255, 255, 255, 255, 255, 7]]
    assert uint8_ops.to_uint8(values.clone()).tolist() == expected


def test_images_are_interleaved_without_a_copy_where_they_are_already():
    flat = uint8_ops.to_nhwc(BATCH)
    assert flat.is_contiguous() and torch.equal(flat, BATCH.permute(0, 2, 3, 1))
    assert uint8_ops.to_nhwc(uint8_ops.to_nchw(flat)).data_ptr() == flat.data_ptr()


def test_pixels_are_put_into_their_rows():
    output, rows = torch.zeros(6, 9, 14, 3, dtype=torch.uint8), torch.tensor([5, 0, 3, 2])
    uint8_ops.scatter_rows(uint8_ops.to_nhwc(BATCH), output, rows)
    assert torch.equal(output[rows], uint8_ops.to_nhwc(BATCH)) and output[[1, 4]].sum() == 0


def test_means_are_of_each_channel():
    assert torch.allclose(uint8_ops.channel_means(BATCH), BATCH.double().mean((2, 3)), rtol=1e-15)


def test_values_are_mapped_by_each_images_own_table():
    factor = torch.tensor([0.5, 1.0, 2.0, -1.0])
    mapped = uint8_ops.map_values(BATCH, lambda values: factor[:, None] * values)
    assert torch.equal(mapped, (factor.view(4, 1, 1, 1) * BATCH).round().clamp(0, 255).byte())


def test_colours_are_mixed_by_each_images_own_matrix():
    matrices = torch.rand(4, 3, 3) - 0.2
    mixed = uint8_ops.mix_channels(BATCH, matrices)
    expected = torch.einsum(
        "bij,bjyx->biyx", (1024 * matrices).round().double() / 1024, BATCH.double()
    )
    assert (mixed.double() - expected.clamp(0, 255)).abs().max() <= 0.5


def test_noise_is_added_and_clipped(monkeypatch):
    monkeypatch.setattr(uint8_ops, "CHUNK_PIXELS", 300)  # two images at a time
    deviation, keys = (
        torch.tensor([3.0, 50.0, 200.0, 0.0]).view(4, 1, 1, 1),
        fold_in(5, torch.arange(4)),
    )
    flat = uint8_ops.to_nhwc(BATCH)
    expected = (flat + deviation * CounterRNG(keys).normal_like(flat)).round().clamp(0, 255).byte()
    assert torch.equal(uint8_ops.to_nhwc(uint8_ops.add_noise(BATCH, deviation, keys)), expected)


def test_a_cpu_is_given_a_few_images_at_a_time(monkeypatch):
    monkeypatch.setattr(uint8_ops, "CHUNK_PIXELS", 3 * 9 * 14 + 1)
    sizes = []

    @uint8_ops.chunked
    def halved(images, factor):
        sizes.append((len(images), len(factor)))
        return images // factor

    factor = torch.tensor([1, 2, 3, 4], dtype=torch.uint8).view(4, 1, 1, 1)
    assert torch.equal(halved(BATCH, factor), BATCH // factor)
    assert sizes == ([(3, 3), (1, 1)] if uint8_ops.on_cpu(BATCH) else [(4, 4)])


def test_an_image_without_its_parameter_is_refused():
    with pytest.raises(ValueError, match="shorter"):
        uint8_ops.map_on_cpu(BATCH, lambda image, value, into: np.copyto(into, image), np.zeros(3))
