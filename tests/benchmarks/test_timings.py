"""The timing benchmarks at a tiny size, and that both sides of a comparison do the same work."""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import train_with_distortions as script
from benchmarks import step
from benchmarks.bare_work import BareEpoch
from benchmarks.inference import photograph, tiles_of
from benchmarks.spans import run as run_in_place
from benchmarks.timing import medians
from distortions.registry import DISTORTION_TYPES
from models import load_run
from models.inference import build, tile_corners
from models.quality_net import QualityNet
from tests.helpers import run_script
from training.muon import ITERATIONS, orthogonalize
from utils.device import has_bfloat16

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
TINY = "--references photos --image_size 16 --train_samples 8 --val_samples 4 --distortions_per_image 2 --n_clusters 3 --epochs 1 --device cpu"  # fmt: skip


def run(script, folder):
    name, *flags = shlex.split(script.removeprefix("-m "))
    target = ROOT / name if name.endswith(".py") else name
    ended, output, problem = run_script(target, flags, folder)
    assert ended == 0, output + problem
    return output


@pytest.fixture(scope="module")
def workplace(module_folder):
    run(f"train_with_distortions.py --experiment_name tiny {TINY}", module_folder)
    return module_folder


def test_the_median_round_is_told_and_the_first_is_not_counted():
    waits = iter((0.2, 0.01, 0.02, 0.1))
    seconds = medians({"sleep": lambda: time.sleep(next(waits)), "nothing": lambda: None}, rounds=3)
    assert 0.02 <= seconds["sleep"] < 0.09 and seconds["nothing"] < 0.01


def test_inference_is_timed_on_small_images_and_photographs(workplace):
    flags = "--images 40 --photographs 2 --rounds 1 --output out"
    output = run(f"-m benchmarks.inference experiments/tiny {flags}", workplace)
    rows = [
        line.split("|")[1:4]
        for line in output.splitlines()
        if line.startswith("| 16×16") or "480×320 |" in line
    ]
    assert [int(row[1]) for row in rows] == [1, len(tile_corners(320, 480, 16))]
    rates = json.loads((workplace / "out/inference.json").read_text())["images_per_second"]
    for (_, _, share), of_size in zip(rows, rates.values()):
        assert share.strip() == f"{of_size['predict'] / of_size['network']:.0%}"


def test_the_bare_network_answers_the_same_tiles_as_predict(workplace):
    tiny, images = load_run(workplace / "experiments/tiny", device="cpu"), photograph(0)[None]
    single = tiny.predict(tiles_of(images, 16)).qualities.mean()
    assert np.isclose(tiny.predict(images).qualities[0], single, atol=1e-4)


def test_the_loop_is_held_against_its_networks_work(tmp_path):
    flags = "--train_samples 8 --val_samples 4 --distortions_per_image 2 --n_clusters 3 --image_size 16 --no-amp"
    output = run(
        f'-m benchmarks.training_loop --epochs 4 --flags="{flags} --refit_interval 3" --output out',
        tmp_path,
    )
    assert "| a refit's fit |" in output and "| distorting |" in output
    told = json.loads((tmp_path / "out/training.json").read_text())
    assert len(told["real_seconds"]) == 4 and min(told["bare_seconds"]) > 0
    kept, with_statistics = (float(row[1].strip("%")) for row in told["tables"][0][1:])
    assert kept == pytest.approx(
        100 * sum(told["bare_seconds"][1:]) / sum(told["real_seconds"][1:]), abs=0.1
    )
    assert kept < with_statistics


def test_a_bare_epoch_has_the_steps_and_forwards_of_a_real_one(tmp_path, monkeypatch):
    """Images that the network sees in a pass of each kind: in training mode, and in evaluation."""
    real, bare, seen = [], [], []
    network = QualityNet.forward
    monkeypatch.setattr(
        QualityNet,
        "forward",
        lambda self, x: (seen.append((self.training, len(x))), network(self, x))[1],
    )
    log_epoch = script.log_epoch

    def log(args, epoch, refit, *values):
        line = log_epoch(args, epoch, refit, *values)
        real.append(sorted(seen))
        seen.clear()
        whole = BareEpoch(build(vars(args) | {"types": DISTORTION_TYPES})[0], args, 8 * 3)
        whole.run(refit)
        whole.measure_statistics()
        bare.append(sorted(seen))
        seen.clear()
        return line

    flags = [
        *TINY.split(),
        "--experiment_name=bare",
        "--epochs=3",
        "--refit_interval=2",
        "--batch_size=10",
    ]
    run_in_place(
        flags,
        {"train_with_distortions.log_epoch": log, "train_with_distortions.finish": lambda *a: {}},
    )
    assert len(real) == 3 and real == bare


def test_ways_of_a_step_are_timed_beside_each_other(tmp_path):
    output = run(
        "-m benchmarks.step --image_size 16 --batch_size 4 --steps 1 --rounds 1 --no-compile --output out",
        tmp_path,
    )
    rates = json.loads((tmp_path / "out/step.json").read_text())["images_per_second"]
    assert len(rates) == (4 if has_bfloat16(torch.device("cpu")) else 2) and all(
        f"| {name} | {rate / min(rates.values()):.2f} |" in output for name, rate in rates.items()
    )


def test_the_optimizers_matrices_take_no_longer_than_a_few_of_float32s_products():
    matrix = torch.randn(128, 1152)

    def products():
        for _ in range(ITERATIONS):
            (matrix @ matrix.T) @ matrix

    seconds = medians({"step": lambda: orthogonalize(matrix), "products": products}, rounds=9)
    assert (
        seconds["step"] < 5 * seconds["products"]
    )  # bfloat16 where the CPU has none takes over ten times as long


def test_photographs_have_their_size():
    assert photograph(3).shape == (3, 320, 480) and photograph(3).dtype == torch.uint8


SCRIPTS = (
    "distorted_dataset",
    "train_with_distortions",
    "test_with_viz",
    "display_viz_english",
    "summarize_runs",
)


def test_help_waits_for_no_slow_import():
    names = ", ".join(SCRIPTS)
    slow = "sklearn", "scipy.stats", "scipy.optimize", "matplotlib", "torchvision", "IPython"
    code = f"import sys, {names}; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done


def test_training_runs_in_the_way_that_is_said_so(monkeypatch):
    for native, trained in ((True, "bfloat16, channels last"), (False, "float32, channels last")):
        monkeypatch.setattr(step, "has_bfloat16", lambda device: native)
        *others, last = step.ways_on(torch.device("cpu"), compiled=False)
        assert last == f"{trained} (training's way)" and len(others) == (3 if native else 1)
        ways = step.ways_on(torch.device("cpu"), compiled=True)
        assert ways[f"{trained}, compiled"] == ways[last] | {"compiled": True}
