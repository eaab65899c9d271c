"""The timing benchmarks at a tiny size, and that both sides of a comparison do the same work."""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import startup  # noqa: E402
from inference import photograph, tiles_of  # noqa: E402
from timing import medians  # noqa: E402

from errors import UserError  # noqa: E402
from models import load_run  # noqa: E402
from models.run import tile_corners  # noqa: E402

TINY = "--references photos --image_size 16 --train_samples 8 --val_samples 4 --distortions_per_image 2 --n_clusters 3 --epochs 1 --device cpu"  # fmt: skip


def run(script, folder):
    name, *flags = shlex.split(script)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, ROOT / name, *flags], cwd=folder, env=environment, capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("timings")
    run(f"train_with_distortions.py --experiment_name tiny {TINY}", folder)
    return folder


def test_the_median_round_is_told_and_the_first_is_not_counted():
    waits = iter((0.2, 0.01, 0.02, 0.1))
    seconds = medians({"sleep": lambda: time.sleep(next(waits)), "nothing": lambda: None}, rounds=3)
    assert 0.02 <= seconds["sleep"] < 0.09 and seconds["nothing"] < 0.01


def test_inference_is_timed_on_small_images_and_photographs(workplace):
    flags = "--images 40 --photographs 2 --rounds 1 --output out"
    output = run(f"benchmarks/inference.py experiments/tiny {flags}", workplace)
    rows = [line.split("|")[1:4] for line in output.splitlines() if line.startswith("| 16×16") or "480×320 |" in line]
    assert [int(row[1]) for row in rows] == [1, len(tile_corners(320, 480, 16))]
    rates = json.loads((workplace / "out/inference.json").read_text())["images_per_second"]
    for (_, _, share), of_size in zip(rows, rates.values()):
        assert share.strip() == f"{of_size['predict'] / of_size['network']:.0%}"


def test_the_bare_network_answers_the_same_tiles_as_predict(workplace):
    tiny, images = load_run(workplace / "experiments/tiny", device="cpu"), photograph(0)[None]
    single = tiny.predict(tiles_of(images, 16)).qualities.mean()
    assert np.isclose(tiny.predict(images).qualities[0], single, atol=1e-4)


def test_photographs_have_their_size():
    assert photograph(3).shape == (3, 320, 480) and photograph(3).dtype == torch.uint8


def test_the_first_step_is_waited_for(tmp_path):
    command = ["-c", startup.FIRST_STEP, *TINY.split(), "--experiment_name", "tiny"]
    assert startup.seconds_of(command, startup.STEPPED) > 0.5


def test_a_timed_command_that_fails_is_told():
    with pytest.raises(UserError, match="ended with 2.*experiment_name"):
        startup.seconds_of([ROOT / "train_with_distortions.py"], 0)
