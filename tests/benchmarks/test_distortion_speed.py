"""benchmarks.distortion_speed at a tiny size, and that peers do to the pixels what ours do."""

import json

import pytest
import torch

from benchmarks import distortion_speed, peers
from distortions.registry import DISTORTION_TYPES
from utils.images import to_nhwc

# Mean difference in grey levels, where nothing is drawn. kornia's JPEG does not round.
ALIKE = {
    "gaussian_blur": 1,
    "jpeg_compression": 4,
    "color_saturation": 1,
    "contrast": 1,
    "brightness": 1,
}
DRAWN = ("motion_blur", "gaussian_noise", "pixelation")  # compared by how much they change


@pytest.fixture(scope="module")
def images():
    return distortion_speed.photo_pieces(32, 32, 32)


@pytest.fixture(scope="module")
def outputs(images):
    """{type: {library: (N, H, W, 3) float}}"""
    outputs = {}
    for name, jobs in distortion_speed.make_jobs(images, "cpu").items():
        outputs[name] = {library: as_batch(library, job()) for library, job in jobs.items()}
    return outputs


def as_batch(library, result):
    """Return any library's result as (N, H, W, 3) float."""
    if isinstance(result, list):
        result = torch.stack([torch.from_numpy(image) for image in result])
    assert result.dtype == torch.uint8
    return (to_nhwc(result) if library == "kornia" else result).float()


@pytest.mark.parametrize("name", ALIKE)
def test_peers_give_the_same_pixels(name, images, outputs):
    results = dict(outputs[name])
    if name == "jpeg_compression":  # albumentations hands red to the codec as blue
        transform = peers.albumentations_transforms()[name]
        swapped = [transform(image) for image in images.flip(3).contiguous().numpy()]
        results["albumentations"] = as_batch("albumentations", swapped).flip(3)

    for library, result in results.items():
        assert (result - results["ours"]).abs().mean() <= ALIKE[name], library


@pytest.mark.parametrize("name", DRAWN)
def test_peers_change_an_image_as_much(name, images, outputs):
    changes = {}
    for library, result in outputs[name].items():
        changes[library] = (result - images).square().mean().sqrt().item()

    ours = changes.pop("ours")
    assert changes == pytest.approx(dict.fromkeys(changes, ours), rel=0.3)


def test_peers_take_their_parameters_from_the_registry():
    assert peers.parameter_of("gaussian_noise") == 27.2
    assert peers.parameter_of("brightness") == 71  # of two directions, the second


@pytest.fixture
def result(tmp_path, monkeypatch, capsys):
    """The printed lines and the only case of a tiny run."""
    monkeypatch.setattr(distortion_speed, "SIZES", ((32, 32),))
    threads = torch.get_num_threads()
    flags = f"--threads 1 --devices cpu --rounds 1 --pixels 8192 --output {tmp_path}"
    distortion_speed.main(distortion_speed.parse_args(flags.split()))
    torch.set_num_threads(threads)
    numbers = json.loads((tmp_path / "distortion_speed.json").read_text())
    (case,) = numbers["cases"]
    return capsys.readouterr().out.splitlines(), case


def test_the_table_has_a_row_for_each_type(result):
    lines, _ = result

    names = [line.split(" | ")[0].strip("| ") for line in lines if line.startswith("|")]
    assert names[2:] == [*DISTORTION_TYPES, distortion_speed.STREAM]


def test_means_are_taken_over_the_same_types(result):
    _, case = result
    compared = case["compared"]["kornia"]

    shared = [row for row in case["microseconds"].values() if "kornia" in row]
    ours = sum(row["ours"] for row in shared) / 7
    theirs = sum(row["kornia"] for row in shared) / 7
    assert "kornia" not in case["microseconds"]["pixelation"]
    assert len(shared) == 7
    assert compared["ours"] == pytest.approx(ours)
    assert compared["times_as_fast"] == pytest.approx(theirs / ours)
