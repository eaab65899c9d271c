"""-m benchmarks.distortion_speed at a tiny size, and that its peers do to the pixels what ours do."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from benchmarks import peers

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"

spec = importlib.util.spec_from_file_location("benchmark_of_distortions", FOLDER / "distortions.py")
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)

# Mean difference in grey levels, where nothing is drawn. kornia's JPEG does not round.
ALIKE = {
    "gaussian_blur": 1,
    "jpeg_compression": 4,
    "color_saturation": 1,
    "contrast": 1,
    "brightness": 1,
}
DRAWN = "motion_blur", "gaussian_noise", "pixelation"  # compared by how much they change an image


@pytest.fixture(scope="module")
def outputs():
    """(images, {type: {library: (N, 3, H, W) float}})"""
    images = benchmark.photographs(32, 32, 32)
    return images, {
        name: {library: as_batch(job()) for library, job in row.items()}
        for name, row in benchmark.jobs_of(images, "cpu").items()
    }


def as_batch(result):
    if isinstance(result, list):
        result = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in result])
    assert result.dtype == torch.uint8
    return result.float()


@pytest.mark.parametrize("name", ALIKE)
def test_peers_give_the_same_pixels_where_nothing_is_drawn(name, outputs):
    images, of_types = outputs
    row = dict(of_types[name])
    if name == "jpeg_compression":  # albumentations hands red to the codec as blue
        swapped = [image.flip(0).permute(1, 2, 0).contiguous().numpy() for image in images]
        transform = peers.albumentations_transforms()[name]
        row["albumentations"] = as_batch([transform(image) for image in swapped]).flip(1)
    for library, result in row.items():
        assert (result - row["ours"]).abs().mean() <= ALIKE[name], library


@pytest.mark.parametrize("name", DRAWN)
def test_peers_change_an_image_as_much_where_something_is_drawn(name, outputs):
    images, of_types = outputs
    ours, *others = (
        (result - images).square().mean().sqrt().item() for result in of_types[name].values()
    )
    assert others == pytest.approx([ours] * len(others), rel=0.3)


def test_the_table_has_a_row_for_each_type_and_the_same_types_in_both_means(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(benchmark, "SIZES", ((32, 32),))
    threads = torch.get_num_threads()
    flags = f"--threads 1 --devices cpu --rounds 1 --pixels 8192 --output {tmp_path}"
    benchmark.main(benchmark.parse_args(flags.split()))
    torch.set_num_threads(threads)
    rows = [
        line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")
    ]
    assert [row[0].strip("| ") for row in rows[2:]] == [
        *benchmark.DISTORTION_TYPES,
        benchmark.STREAM,
    ]
    (case,) = json.loads((tmp_path / "distortions.json").read_text())["cases"]
    times, compared = case["microseconds"], case["compared"]["kornia"]
    shared = [row for row in times.values() if "kornia" in row]
    assert "kornia" not in times["pixelation"] and len(shared) == 7
    assert compared["ours"] == pytest.approx(sum(row["ours"] for row in shared) / 7)
    assert compared["times_as_fast"] == pytest.approx(
        sum(row["kornia"] for row in shared) / 7 / compared["ours"]
    )
