"""ablations.quality_maps: parts of photographs, AUROC of finding them, and its command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from ablations import quality_maps
from ablations.quality_maps import LEVELS, SHAPES, TYPES, auroc, distort_part, draw_part
from models.inference import Run, build
from tests.models.test_predict_properties import CONFIG, make_pixels
from utils.errors import UserError

SHARES = {"half": (0.49, 0.51), "quarter": (0.24, 0.26), "disc": (0.12, 0.3)}


@pytest.fixture(scope="module")
def run():
    """A run with random weights, trained on the bundled photographs by its word."""
    config = {
        **CONFIG,
        "types": list(TYPES),
        "data_seed": 0,
        "references": "photos",
        "working_size": 512,
    }
    model, mixture = build(config)
    return Run(model, mixture, {"config": config, "reference_digests": [], "epoch": 0})


@pytest.mark.parametrize("shape", SHAPES)
def test_a_part_has_its_share_of_the_image(shape):
    rng = np.random.default_rng(0)
    low, high = SHARES[shape]

    parts = [draw_part(120, 160, shape, rng) for _ in range(20)]

    assert all(low < part.mean() < high for part in parts)
    assert len({part.tobytes() for part in parts}) > 1  # the place is drawn


@pytest.mark.parametrize("name", TYPES)
def test_only_the_part_is_distorted(name):
    photograph = make_pixels(60, 80, 3)

    case = distort_part(photograph, name, 1.0, "disc", np.random.default_rng(0))

    changed = (case.image != photograph).any(2)
    assert not changed[~case.is_distorted].any()
    assert changed[case.is_distorted].mean() > 0.5


def test_auroc_is_one_where_the_part_is_worse():
    part = draw_part(64, 64, "half", np.random.default_rng(0))

    assert auroc(part, np.where(part, 20.0, 90.0)) == 1
    assert auroc(part, np.where(part, 90.0, 20.0)) == 0


def test_every_case_is_measured_and_counted(run):
    rows = quality_maps.measure(run, [make_pixels(64, 64, 3)], seed=0)

    cases = {(row["type"], row["shape"], row["level"]) for row in rows}
    assert len(cases) == len(rows) == len(TYPES) * len(SHAPES) * len(LEVELS)
    lines = quality_maps.summarize([rows])
    assert len(lines) == 2 + len(TYPES) + 1
    mean = np.mean([row["auroc"] for row in rows if row["type"] == TYPES[0]])
    assert lines[2].startswith(f"| {TYPES[0]} | {mean:.3f} |")


def test_a_run_without_the_types_is_refused():
    model, mixture = build(CONFIG)
    run = Run(model, mixture, {"config": CONFIG, "reference_digests": [], "epoch": 0})

    with pytest.raises(UserError, match="not trained on gaussian_noise, jpeg_compression"):
        quality_maps.check_types(run, "name")


def test_no_photograph_of_training_is_measured(run):
    assert len(quality_maps.held_out_photographs([run], "photos", 18)) == 2
    assert len(quality_maps.held_out_photographs([run], "photos", 1)) == 1


def test_the_command_writes_numbers_and_a_gallery(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quality_maps, "load_run", lambda *args, **options: run)
    monkeypatch.setattr(quality_maps, "find_run", Path)
    monkeypatch.setattr(quality_maps, "LEVELS", (1.0,))
    small = [make_pixels(40, 60, 3), make_pixels(60, 40, 3)]
    monkeypatch.setattr(quality_maps, "held_out_photographs", lambda *args: small)
    flags = ["--experiment", "tiny", "--references", "photos"]
    numbers = tmp_path / "maps.json"
    gallery = tmp_path / "maps.png"

    quality_maps.main(quality_maps.parse_args([*flags, "--output", str(numbers)]))
    quality_maps.main(quality_maps.parse_args([*flags, "--gallery", str(gallery)]))

    assert [len(rows) for rows in json.loads(numbers.read_text())["runs"]] == [12]
    assert gallery.stat().st_size > 10_000
    assert "| all |" in capsys.readouterr().out
