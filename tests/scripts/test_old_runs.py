"""Runs that were trained before a run's folder had its present format are used and resumed.

Such a run is made of a fresh one: its files are written again with the names of that time.
"""

import io
import json
import shutil
import signal
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.results import read_metrics
from models import load_run
from tests.scripts.running import script, test_run
from tests.stress import kill_and_resume
from tests.stress.kill_and_resume import differences
from utils.checkpoint import FORMAT, load_checkpoint

pytestmark = pytest.mark.slow

# A step an epoch.
FLAGS = (
    "--references photos --image_size 8 --train_samples 4 --val_samples 2 "
    "--distortions_per_image 3 --n_clusters 2 --epochs 3 --batch_size 16 --refit_interval 1 "
    "--save_interval 0 --device cpu"
).split()
OLD_STATES = {
    "model": "online",
    "ema": "averaged",
    "optimizer": "optimizer",
    "scheduler": "schedule",
}
OLD_BUFFERS = {"ood_threshold": "unknown_below", "label_stability": "kept"}
NEW_IN_CONFIG = ("recipe", "git_commit")
CHECKPOINTS = ("best.pt", "last.pt", "last.prev.pt")


def old_config(config):
    """Return a configuration without what runs did not say then."""
    return {name: value for name, value in config.items() if name not in NEW_IN_CONFIG}


def old_checkpoint(checkpoint):
    """Return a checkpoint by its names of format 3, whose training states were not nested."""
    old = {name: value for name, value in checkpoint.items() if name != "training"}
    for name, state in checkpoint.get("training", {}).items():
        old[OLD_STATES[name]] = state
    old["mixture"] = {
        OLD_BUFFERS.get(name, name): buffer for name, buffer in checkpoint["mixture"].items()
    }
    old["config"] = old_config(checkpoint["config"])
    old["format"] = 3
    return old


def make_old(folder):
    """Write a run's files again as the code of format 3 did."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(old_config(config)))
    for name in CHECKPOINTS:
        content = io.BytesIO()
        torch.save(old_checkpoint(load_checkpoint(folder / name)), content)
        checksum = zlib.crc32(content.getvalue()).to_bytes(4, "big")
        (folder / name).write_bytes(content.getvalue() + checksum)


def copy_as_old(folder, name, old_name):
    """Copy a run of experiments/, and make the copy an old one."""
    copy = folder / "experiments" / old_name
    shutil.copytree(folder / "experiments" / name, copy)
    make_old(copy)
    return copy


@pytest.fixture(scope="module")
def place(module_folder):
    """Return a folder with a tested run 'fresh', and 'old', which is the same in the old format."""
    assert kill_and_resume.run(module_folder, "fresh", FLAGS, test=True) == 0
    old = copy_as_old(module_folder, "fresh", "old")
    shutil.rmtree(old / "visualizations")
    test_run(module_folder, "old", "--test_samples 6 --skip_tsne --device cpu")
    return module_folder


def without_names(metrics):
    """Return metrics without the run's name and its figures, which are drawn for one run only."""
    return {name: value for name, value in metrics.items() if name not in ("run", "figures")}


def test_an_old_run_has_the_old_names(place):
    """So that the tests below are of such a run."""
    folder = place / "experiments" / "old"

    checkpoint = torch.load(folder / "last.pt", weights_only=True)

    assert checkpoint["format"] == 3 < FORMAT
    assert {"online", "averaged", "optimizer", "schedule", "log"} < checkpoint.keys()
    assert {"unknown_below", "kept"} < checkpoint["mixture"].keys()
    for config in (checkpoint["config"], json.loads((folder / "config.json").read_text())):
        assert not set(NEW_IN_CONFIG) & config.keys()


@pytest.mark.parametrize("checkpoint", ("best", "last"))
def test_an_old_run_predicts_as_a_fresh_one(place, checkpoint):
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 20, 30), dtype=np.uint8)
    runs = place / "experiments"

    old = load_run(runs / "old", checkpoint, device="cpu").predict(images)
    fresh = load_run(runs / "fresh", checkpoint, device="cpu").predict(images)

    for old_values, fresh_values in zip(old, fresh):
        assert np.array_equal(old_values, fresh_values, equal_nan=True)


def test_an_old_run_is_tested_as_a_fresh_one(place):
    runs = place / "experiments"

    old = read_metrics(runs / "old")
    fresh = read_metrics(runs / "fresh")

    assert differences(without_names(old), without_names(fresh)) == []
    assert len(old["figures"]) == 9


def test_predictions_of_an_old_run_are_a_fresh_ones(place):
    written = Path("visualizations", "predictions.csv")

    old = (place / "experiments" / "old" / written).read_bytes()

    assert old == (place / "experiments" / "fresh" / written).read_bytes()


def test_an_old_run_is_displayed(place):
    output, _ = script("display_viz_english.py --experiment experiments/old", place)

    assert output.startswith("old (best.pt")
    assert "cluster 1:" in output


def test_a_finished_old_run_is_resumed_to_no_effect(place):
    done = copy_as_old(place, "fresh", "done")
    before = {path: path.read_bytes() for path in done.iterdir() if path.is_file()}

    assert kill_and_resume.run(place, "done", ["--resume"]) == 0

    assert {path: path.read_bytes() for path in done.iterdir() if path.is_file()} == before


def test_a_killed_old_run_ends_like_a_fresh_one(place):
    """Bit for bit, and its checkpoints are then of today's format."""
    step = {"moment": "in a training step", "kill_at": 3}
    assert kill_and_resume.run(place, "killed", FLAGS, **step) == -signal.SIGKILL
    old = copy_as_old(place, "killed", "old_killed")

    assert kill_and_resume.run(place, "old_killed", ["--resume"], test=True) == 0

    differing = kill_and_resume.compare(old, place / "experiments" / "fresh")
    assert not any(differing.values()), differing
    assert torch.load(old / "last.pt", weights_only=True)["format"] == FORMAT
