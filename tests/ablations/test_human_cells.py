"""A run against people's opinions, cell by cell, with made-up opinions."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from ablations.anchor_levels import KADID_LEVELS, PARAMETERS, to_quality
from ablations.human_cells import (
    main,
    measure,
    measure_lines,
    parse_args,
    predict_cells,
    type_lines,
)
from models.inference import build
from tests.helpers import photo_pieces
from tests.models.test_predict_properties import CONFIG
from utils.checkpoint import save_checkpoint

# Opinions that fall with the level, and differ between types.
OPINIONS = {
    name: tuple(4.5 - 0.6 * (level - 1) - 0.02 * t for level in KADID_LEVELS)
    for t, name in enumerate(PARAMETERS)
}


def qualities():
    """Return (25, 5) what a run predicts that agrees with people."""
    return np.array([[to_quality(opinion) for opinion in row] for row in OPINIONS.values()])


class MeanRun:
    """Stands for a run whose predicted quality is the image's mean grey level."""

    def predict(self, images):
        return MeanRun.Answer(images.float().mean((1, 2, 3)).numpy())

    class Answer:
        def __init__(self, qualities):
            self.qualities = qualities


def test_a_run_that_agrees_with_people_scores_1():
    measured = measure(OPINIONS, qualities(), pristine=98.0)

    for name in ("srcc", "plcc", "srcc_known", "plcc_known"):
        assert measured[name] == pytest.approx(1)
    assert measured["well_ordered"] == 23
    assert measured["pristine"] == 98


def test_a_type_that_is_judged_the_wrong_way_is_seen():
    """Types 18 and 25, whose level is no severity, are not counted."""
    predictions = qualities()
    for name in ("jitter", "denoise", "mean_shift", "contrast_change"):
        t = list(PARAMETERS).index(name)
        predictions[t] = predictions[t, ::-1]

    measured = measure(OPINIONS, predictions, pristine=98.0)

    assert measured["well_ordered"] == 21
    assert measured["by_type"]["jitter"]["srcc"] == pytest.approx(-1)
    assert measured["by_type"]["jpeg"]["srcc"] == pytest.approx(1)
    assert measured["srcc"] < 0.95


def test_known_cells_are_levels_1_to_4_of_eleven_types():
    """What is wrong outside of them leaves their correlation as it is."""
    predictions = qualities()
    predictions[:, 4] = 100
    predictions[list(PARAMETERS).index("jitter")] = 0

    measured = measure(OPINIONS, predictions, pristine=98.0)

    assert measured["srcc_known"] == pytest.approx(1)
    assert measured["srcc"] < 0.9

    predictions[list(PARAMETERS).index("jpeg"), 3] = 100
    assert measure(OPINIONS, predictions, pristine=98.0)["srcc_known"] < 0.99


def test_each_cell_is_the_mean_over_photographs():
    """KADID's mean shifts are +.15, +.08, 0, −.08 and −.15 of white."""
    photographs = [torch.full((16, 24, 3), value, dtype=torch.uint8) for value in (100, 140)]

    cells, pristine = predict_cells([MeanRun(), MeanRun()], photographs)

    assert cells.shape == (2, 25, 5)
    assert pristine.tolist() == [120, 120]
    shifts = cells[0, list(PARAMETERS).index("mean_shift")] - 120
    expected = 255 * np.array(PARAMETERS["mean_shift"].values)
    assert shifts == pytest.approx(expected, abs=1)
    darker = cells[1, list(PARAMETERS).index("darken")]
    assert all(first > second for first, second in pairwise(darker))


def test_several_runs_give_mean_and_deviation():
    first = measure(OPINIONS, qualities(), pristine=98.0)
    second = measure(OPINIONS, qualities() - 2, pristine=96.0)

    assert "| mean predicted quality of pristine photographs | 97.0 ± 1.4 |" in measure_lines(
        [first, second]
    )
    assert type_lines(OPINIONS, [first, second])[2].startswith(
        "| kadid_gaussian_blur | 1.00 ± 0.00 | 4.50: 97 | 3.90: 83 |"
    )


@pytest.fixture
def workplace(tmp_path):
    """Make a folder of two runs with random weights, photographs, and a file of opinions."""
    for seed in (0, 1):
        torch.manual_seed(seed)
        model, mixture = build(CONFIG)
        mixture.refit(np.random.default_rng(seed).normal(size=(300, 16)), seed=0)
        checkpoint = {
            "config": {**CONFIG, "references": "elsewhere", "data_seed": 0, "crop": "whole"},
            "reference_digests": [],
            "epoch": 4,
            "finished": True,
            "model": model.state_dict(),
            "mixture": mixture.state_dict(),
        }
        (tmp_path / f"seed{seed}").mkdir()
        save_checkpoint(tmp_path / f"seed{seed}" / "best.pt", checkpoint)
    (tmp_path / "photos").mkdir()
    for i, piece in enumerate(photo_pieces(32, 40)[:3].numpy()):
        Image.fromarray(piece).save(tmp_path / "photos" / f"{i}.png")
    lines = ["type,level,mean_mos"]
    for name, row in OPINIONS.items():
        lines += [f"{name},{level},{opinion}" for level, opinion in zip(KADID_LEVELS, row)]
    (tmp_path / "opinions.csv").write_text("\n".join(lines))
    return tmp_path


def test_the_module_writes_what_it_prints(workplace, capsys):
    """At a tiny size: two runs, one photograph."""
    output = workplace / "results" / "cells.json"
    flags = ["--experiment", str(workplace / "seed0"), str(workplace / "seed1")]
    flags += ["--references", str(workplace / "photos"), "--images", "1"]
    flags += ["--opinions", str(workplace / "opinions.csv"), "--working_size", "24"]

    main(parse_args([*flags, "--output", str(output)]))

    printed = capsys.readouterr().out
    written = json.loads(output.read_text())
    assert "1 photographs" not in printed
    assert written.keys() >= {"command", "commit", "date", "machine", "versions", "opinions"}
    assert written["experiments"] == ["seed0", "seed1"]
    assert len(written["photographs"]) == 1
    for run in written["runs"]:
        assert len(run["by_type"]) == 25
        assert all(len(row["predicted"]) == 5 for row in run["by_type"].values())
        assert 0 <= run["pristine"] <= 100
    mean = np.mean([run["srcc"] for run in written["runs"]])
    assert f"| SRCC, all 125 cells | {mean:.3f} ±" in printed
