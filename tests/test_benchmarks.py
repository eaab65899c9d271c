"""The benchmarks as users run them, at a tiny size, and what their rows are made of."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from arms import ARMS, GROUPS  # noqa: E402
from classical import brisque_features  # noqa: E402
from cluster_losses import CLUSTER_LOSSES, tempered  # noqa: E402
from judge import best_lift, difference, paired_difference, types_with_own_cluster  # noqa: E402
from old_approach import old_quality  # noqa: E402

from models.mixture import Mixture  # noqa: E402


def benchmark(command, folder, status=0):
    name, *flags = command.split()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(folder / ".mpl")}
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / name, *flags], cwd=folder, env=environment,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quick")
    benchmark("recipe.py --quick --jobs 2 --classical 200 --output results", folder)
    return folder


def test_quick_trains_each_arm_with_each_seed_and_compares_them(quick):
    numbers = json.loads((quick / "results" / "recipe.json").read_text())
    assert list(numbers["arms"]) == ["redrawn_plain", "both", "brisque_svr", "niqe_like"]
    plain, both = numbers["arms"]["redrawn_plain"], numbers["arms"]["both"]
    gained = [a["srcc_without_pristine"] - b["srcc_without_pristine"] for a, b in zip(plain["runs"], both["runs"])]
    assert len(gained) == 2 and both["difference"] is None
    assert plain["difference"]["mean"] == pytest.approx(np.mean(gained))
    low, high = plain["difference"]["interval"]
    assert low <= plain["difference"]["mean"] <= high
    table = (quick / "results" / "recipe.md").read_text().splitlines()
    assert len(table) == 14 and {line.count("|") for line in table[:6]} == {13}
    assert (quick / "results" / "recipe.png").stat().st_size > 10_000


def test_the_same_command_again_trains_nothing(quick):
    before = {path: path.stat().st_mtime for path in quick.glob("experiments/*/last.pt")}
    benchmark("recipe.py --quick --output results", quick)
    assert len(before) == 4 and before == {path: path.stat().st_mtime for path in quick.glob("experiments/*/last.pt")}


def test_runs_of_other_flags_are_not_taken_for_these(quick):
    _, problem = benchmark("recipe.py --quick --flags --backbone=resnet34 --output results", quick, status=1)
    assert "was trained with other flags or another recipe; give another --name" in problem


def test_unknown_distortions_are_judged(quick):
    output, _ = benchmark("unknown.py experiments/recipe_both_seed0 experiments/recipe_both_seed1", quick)
    assert [line.split("`")[1] for line in output.splitlines()[2:]] == [
        "rain",
        "fog",
        "lens_distortion",
        "chromatic_aberration",
    ]


def test_the_old_approach_is_judged_on_both_test_sets(quick):
    run = "experiments/recipe_both_seed0"
    output, _ = benchmark(f"old_approach.py --old {run} --ours {run}", quick)
    rows = [line.split("|")[2:4] for line in output.splitlines()[2:]]
    metrics = json.loads((quick / run / "visualizations" / "metrics.json").read_text())
    assert rows[0] == rows[1] and float(rows[0][1]) == pytest.approx(metrics["srcc"], abs=6e-4)


def test_a_list_of_all_arms(tmp_path):
    output, _ = benchmark("recipe.py --list", tmp_path)
    assert all(name in output for name in (*ARMS, *GROUPS))


def test_brisques_features_follow_the_blur(crops):
    """Blur takes variance from the normalised luminance, at full size and at half size."""
    images = crops.images[:20]
    blurred = torch.nn.functional.avg_pool2d(images.float(), 3, 1, 1).round().to(torch.uint8)
    sharp, soft = brisque_features(images), brisque_features(blurred)
    assert sharp.shape == (20, 36) and np.isfinite(sharp).all()
    assert (soft[:, [1, 19]] < sharp[:, [1, 19]]).all()


def test_old_labels_lie_in_their_range_and_know_brightness(crops):
    quality = old_quality(crops.images)
    assert ((quality >= 0) & (quality <= 100)).all() and quality.std() > 3
    assert (old_quality(crops.images // 4) < quality).float().mean() > 0.9


@pytest.mark.parametrize("name", CLUSTER_LOSSES)
def test_a_cluster_loss_brings_embeddings_closer_to_their_components(name):
    rng = np.random.default_rng(0)
    mixture = Mixture(3, 4)
    mixture.refit(rng.normal(size=(300, 4)) + 6 * np.eye(4)[rng.integers(3, size=300)], seed=0)
    embeddings = torch.tensor(rng.normal(size=(64, 4)) + 3, dtype=torch.float32, requires_grad=True)
    CLUSTER_LOSSES[name][1](mixture, embeddings).backward()
    moved = (embeddings - 0.1 * embeddings.grad / embeddings.grad.norm()).detach()
    before, after = (tempered(mixture, places.detach()) for places in (embeddings, moved))
    nearest = before.argmax(1, keepdim=True)
    assert after.gather(1, nearest).mean() > before.gather(1, nearest).mean()


def test_types_that_share_a_cluster_have_none_of_their_own():
    types = np.array(["blur"] * 4 + ["motion"] * 3 + ["noise"] * 3)
    clusters = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1])
    assert types_with_own_cluster(clusters, types) == ["blur", "noise"]
    assert best_lift(clusters, types) == pytest.approx({"blur": 10 / 7, "motion": 10 / 7, "noise": 10 / 3})


def test_a_paired_difference_of_equals_is_nothing_and_of_better_is_more():
    rng = np.random.default_rng(0)
    true, references = rng.uniform(size=300), np.repeat(np.arange(100), 3)
    good, bad = true + rng.normal(0, 0.1, 300), true + rng.normal(0, 0.4, 300)
    distorted = np.ones(300, bool)
    rows = {
        name: {"tested": [(true, predicted, distorted, references)]} for name, predicted in (("a", good), ("b", bad))
    }
    assert paired_difference(rows["a"], rows["a"]) == {"mean": 0, "interval": [0, 0]}
    better = paired_difference(rows["a"], rows["b"])
    assert 0 < better["interval"][0] < better["mean"] < better["interval"][1]
    assert difference(true, good, bad, []) == pytest.approx(better["mean"])
