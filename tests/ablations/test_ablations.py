"""The benchmarks as users run them, at a tiny size, and what their rows are made of."""

import json
import pkgutil
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

import train_with_distortions
from ablations import run, tables
from ablations.arms import ARMS, GROUPS, diagonal_fit
from ablations.ceiling import color_differences
from ablations.classical import brisque_features
from ablations.cluster_losses import CLUSTER_LOSSES, tempered
from ablations.judge import (
    auroc,
    best_lifts,
    late_refits,
    paired_difference,
    types_with_own_cluster,
)
from ablations.old_labels import OldDataset, old_quality
from ablations.tested import read_columns
from distortions.registry import DISTORTION_TYPES
from models.mixture import REG_COVAR, Mixture
from tests.helpers import run_afresh, run_script

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent


def benchmark(command, folder, status=0):
    name, *flags = shlex.split(command)
    ended, output, problem = run_script(
        f"ablations.{name.removesuffix('.py').replace('recipe', 'run')}", flags, folder
    )
    assert ended == status, output + problem
    return output, problem


PRELOADED = f"""
import os, sys
sys.path[1:1] = {str(ROOT)!r}, {str(ROOT / "benchmarks")!r}
from preloaded import preloaded

def tell():
    print({{"torchvision.models", "train_with_distortions", "sklearn.mixture", "plots"}} <= sys.modules.keys())
    import plots
    print(plots.__file__)

if __name__ == "__main__":
    before = dict(os.environ)
    child = preloaded().Process(target=tell)
    assert os.environ == before
    child.start()
    child.join()
"""


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="no fork server")
def test_preloaded_processes_have_their_imports_behind_them_from_the_project(tmp_path):
    """Not from files of the same names in the folder where the user is; and the environment stays as it was."""
    (tmp_path / "plots.py").write_text("")
    path = tmp_path / "scripts" / "tell.py"
    path.parent.mkdir()
    path.write_text(PRELOADED)
    assert run_afresh(path, [], tmp_path) == (0, f"True\n{ROOT / 'plots.py'}\n", "")


@pytest.fixture(scope="module")
def quick(module_folder):
    folder = module_folder / "quick"
    folder.mkdir()
    benchmark("recipe.py --quick --jobs 2 --classical 200 --output results", folder)
    return folder


def test_quick_trains_each_arm_with_each_seed_and_compares_them(quick):
    numbers = json.loads((quick / "results" / "quick.json").read_text())
    assert numbers["seeds"] == [0, 1] and numbers["test_references"] == 24
    assert list(numbers["arms"]) == ["redrawn_plain", "both", "brisque_svr", "niqe_like"]
    plain, both = numbers["arms"]["redrawn_plain"], numbers["arms"]["both"]
    gained = [
        a["srcc_without_pristine"] - b["srcc_without_pristine"]
        for a, b in zip(plain["runs"], both["runs"])
    ]
    assert len(gained) == 2 and both["difference"] is None
    assert plain["difference"]["each"] == pytest.approx(gained)
    table = (quick / "results" / "quick.md").read_text().splitlines()
    assert [line.split("|")[1].strip(" `") for line in table[2:6]] == list(numbers["arms"])
    assert len({line.count("|") for line in table[:6]}) == 1
    clusters = table[table.index("") + 1 :]
    assert [line.split("|")[1].strip(" `") for line in clusters[:4]] == [
        "clusters of",
        "---",
        "redrawn_plain",
        "both",
    ]
    assert (quick / "results" / "quick.png").stat().st_size > 10_000


def test_refits_are_watched(quick):
    lines = (quick / "experiments/quick_both_seed0/refits.jsonl").read_text().splitlines()
    refits = [json.loads(line) for line in lines]
    assert [line["epoch"] for line in refits] == [
        1,
        2,
        2,
    ]  # in training, then those of last.pt and best.pt
    assert (
        refits[0]["kept"] is None
        and refits[0]["log_likelihood"] == refits[0]["fresh_log_likelihood"]
    )
    assert all(
        line["kept"] >= 0.9 for line in refits[1:]
    )  # fits to hardly other embeddings, from the fit before


def test_a_refit_to_the_same_embeddings_keeps_all_and_is_as_likely_as_a_fresh_one(tmp_path):
    rng = np.random.default_rng(0)
    mixture, watched = Mixture(3, 4), run.watched_refit(tmp_path)
    for shift in (0, 0, 20):  # the last to embeddings that lie elsewhere
        watched(
            mixture, rng.normal(size=(300, 4)) + 6 * np.eye(4)[rng.permutation(300) % 3] + shift, 0
        )
    lines = [json.loads(line) for line in (tmp_path / "refits.jsonl").read_text().splitlines()]
    assert lines[0]["kept"] is None and lines[1]["kept"] == 1 and lines[2]["kept"] < 0.7
    assert all(
        line["log_likelihood"] == pytest.approx(line["fresh_log_likelihood"], abs=0.01)
        for line in lines
    )


def test_changes_at_refits_are_compared_in_the_same_epochs(tmp_path):
    for seed, scores in enumerate(((0.5, 0.6, 0.4), (0.1, 0.2, 0.9))):
        rows = [json.dumps({"epoch": epoch, "srcc": score}) for epoch, score in enumerate(scores)]
        (tmp_path / str(seed)).mkdir()
        (tmp_path / str(seed) / "log.jsonl").write_text("\n".join([*rows, ""]))
    assert tables.extra_changes(
        [{2: 0.0}, {1: 0.3}], [tmp_path / "0", tmp_path / "1"]
    ) == pytest.approx([0.2, 0.2])


def test_the_fewest_active_clusters_of_all_seeds_and_epochs_are_told(tmp_path):
    for seed, active in enumerate(((8, 6), (7, 8))):
        rows = [
            json.dumps({"epoch": 0}),
            *(json.dumps({"epoch": 1, "active_clusters": found}) for found in active),
        ]
        (tmp_path / str(seed)).mkdir()
        (tmp_path / str(seed) / "log.jsonl").write_text("\n".join([*rows, ""]))
    assert tables.fewest_active([tmp_path / "0", tmp_path / "1"]) == 6


def test_refits_of_the_second_half_are_counted_once(tmp_path):
    lines = [(4, 0.5, -1.0), (5, None, 0.0), (6, 0.75, 0.5), (6, 0.875, 0.25), (8, 1.0, 0.0)]
    keys = "epoch", "kept", "log_likelihood"
    rows = [json.dumps({**dict(zip(keys, line)), "fresh_log_likelihood": 0.0}) for line in lines]
    (tmp_path / "refits.jsonl").write_text(
        "\n".join([*rows, '{"epoch": 9, "ke'])
    )  # killed while it wrote
    assert late_refits(tmp_path, epochs=10) == ([0.875, 1.0], [0.25, 0.0])
    assert late_refits(tmp_path / "none", epochs=10) == ([], [])


def test_the_same_command_again_trains_and_tests_nothing(quick):
    def times():
        return {
            path: path.stat().st_mtime
            for path in quick.glob("experiments/*/visualizations/metrics.json")
        }

    before = times()
    benchmark("recipe.py --quick --output results", quick)
    assert len(before) == 4 and before == times()


def test_runs_of_other_flags_are_not_taken_for_these(quick):
    _, problem = benchmark("recipe.py --quick --flags=--no-amp --output results", quick, status=1)
    assert "was trained with other flags, or by another script; give another --name" in problem
    assert "Traceback" not in problem


@pytest.mark.parametrize("flags, message", (
    ("--name a/b", "leave out slashes"),
    ("--against main", "--against 'main' is no arm"),
    ("--flags=--seed=5", "recipe.py sets --seed itself, by --seeds"),
    ("--arms both nothing", "'nothing' is no arm or group of arms"),
))  # fmt: skip
def test_flags_that_would_mislead_are_refused(capsys, flags, message):
    with pytest.raises(SystemExit):
        run.parse_args(flags.split())
    assert message in capsys.readouterr().err


def test_a_run_that_was_tested_otherwise_is_not_done_and_tested_again(quick, monkeypatch):
    monkeypatch.chdir(quick)
    args, path = (
        run.parse_args(["--quick"]),
        Path("experiments/quick_both_seed0/visualizations/metrics.json"),
    )
    before = path.read_text()
    assert run.is_done(args, "both", 0)
    for change in ({"checkpoint": "last"}, {"test": {**json.loads(before)["test"], "samples": 23}}):
        path.write_text(json.dumps({**json.loads(before), **change}))
        assert not run.is_done(args, "both", 0)
    path.write_text(json.dumps({**json.loads(before), "checkpoint": "last"}))
    benchmark("recipe.py --quick --output results", quick)
    assert json.loads(path.read_text()) == json.loads(before)


def test_arms_with_other_training_images_have_the_same_test():
    args = run.parse_args(["--references", "photos"])
    both, more = (run.described(args, arm, 0) for arm in ("both", "per_image_8"))
    assert both["test"] == more["test"] and both["flags"] != more["flags"]


@pytest.fixture(scope="module")
def patched(module_folder):
    folder = module_folder / "patched"
    folder.mkdir()
    tiny = "--train_samples=16 --val_samples=4 --distortions_per_image=3 --n_clusters=3"
    benchmark(f"recipe.py --arms old_approach per_image_2 without_contrast --seeds 0 --epochs 1 --jobs 2 "
              f"--references photos --test_samples 6 --name tiny --output results --flags='{tiny}'", folder)  # fmt: skip
    return folder


def test_a_type_that_was_left_out_has_its_row(patched):
    table = (patched / "results/tiny.md").read_text().splitlines()
    row = next(line for line in table if line.startswith("| `contrast`"))
    assert 0 <= float(row.split("|")[2]) <= 1


def test_all_arms_of_the_same_types_have_the_same_test(patched):
    digests = {}
    for path in patched.glob("experiments/*/visualizations/metrics.json"):
        digests[path.parent.parent.name] = json.loads(path.read_text())["digest"]
    assert digests.pop("tiny_without_contrast_seed0") not in digests.values()
    assert len(digests) == 2 and len(set(digests.values())) == 1


@pytest.mark.parametrize("arm", ARMS.values())
def test_an_arms_flags_and_names_exist(arm):
    flags = arm.flags.format(half=1, double=2).split()
    train_with_distortions.parse_args(["--experiment_name", "any", *flags])
    for target in arm.patches:
        assert pkgutil.resolve_name(target) is not None


def test_a_run_that_fails_is_named_with_its_log(tmp_path):
    command = "recipe.py --quick --flags=--n_clusters=500 --output results"
    _, problem = benchmark(command, tmp_path, status=1)
    assert (
        "seed 0: --n_clusters 500 needs at least 500 training images" in problem
        and "recipe.log" in problem
    )


def test_unknown_distortions_are_judged(quick):
    output, _ = benchmark(
        "unknown.py experiments/quick_both_seed0 experiments/quick_both_seed1", quick
    )
    names = [line.split("`")[1] for line in output.splitlines()[2:]]
    assert names == ["rain", "fog", "lens_distortion", "chromatic_aberration"]


def test_the_old_approach_is_judged_on_both_test_sets(patched):
    runs = [f"experiments/tiny_{arm}_seed0" for arm in ("old_approach", "per_image_2")]
    output, _ = benchmark("old_approach.py --old {} --ours {}".format(*runs), patched)
    rows = [list(map(float, line.split("|")[2:4])) for line in output.splitlines()[2:]]
    for run, (_, on_ours) in zip(runs, rows):
        metrics = json.loads((patched / run / "visualizations" / "metrics.json").read_text())
        assert on_ours == pytest.approx(metrics["without_pristine"]["srcc"], abs=6e-4)
    assert rows[0] != rows[1]


def test_what_is_lost_is_shown_by_type_and_level(quick):
    output, _ = benchmark("ceiling.py experiments/quick_both_seed0", quick)
    shares = [
        line.split("|")[2:-1]
        for line in output.splitlines()
        if line.startswith("| jpeg_compression |")
    ][1]
    assert sum(map(float, shares)) == pytest.approx(100, abs=3)
    assert "color_saturation, less" in output and "ΔE" in output
    differences = color_differences(quick / "experiments/quick_both_seed0")
    (types,) = read_columns(quick / "experiments/quick_both_seed0", "type")
    assert (differences[types == "pristine"] == 0).all() and (
        differences[types == "brightness"] > 3
    ).all()
    _, problem = benchmark("ceiling.py experiments/quick_redrawn_plain_seed0", quick, status=1)
    assert "has no type head" in problem


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


def test_the_old_datasets_images_are_pristine_and_carry_the_references_labels(crops):
    dataset = OldDataset(crops, DISTORTION_TYPES, 5, flip=True, cutmix=True)
    labels = dataset.labels
    assert (
        (labels.type == len(dataset.types)).all()
        and (labels.steps == -1).all()
        and (labels.cutmix_width == 0).all()
    )
    assert torch.allclose(
        old_quality(dataset.images(torch.arange(60))), labels.quality[:60], atol=1e-3
    )


def test_images_that_are_all_less_likely_are_all_told_apart():
    assert (
        auroc([3, 4, 5], [0, 1, 2]) == 1
        and auroc([0, 1, 2], [3, 4, 5]) == 0
        and auroc([1, 1], [1, 1]) == 0.5
    )


def test_types_that_share_a_cluster_have_none_of_their_own():
    types = np.array(["blur"] * 4 + ["motion"] * 3 + ["noise"] * 3)
    clusters = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1])
    assert types_with_own_cluster(clusters, types) == ["blur", "noise"]
    assert best_lifts(clusters, types) == pytest.approx(
        {"blur": 10 / 7, "motion": 10 / 7, "noise": 10 / 3}
    )


def test_a_cluster_of_hardly_any_images_lifts_no_type():
    types = np.array(["blur", "noise"] * 100)
    clusters = np.zeros(200, int)
    clusters[:1] = 1
    assert best_lifts(clusters, types)["blur"] == pytest.approx(1, abs=0.01)


@pytest.fixture
def rows():
    """Two arms of three seeds on the same 100 photographs, one better than the other."""
    rng = np.random.default_rng(0)
    true, photographs = rng.uniform(size=300), np.repeat(np.arange(100), 3)
    shared = {"true": true, "types": np.full(300, "blur"), "photographs": photographs}
    return [{"tested": [shared | {"predicted": true + rng.normal(0, spread, 300)} for _ in range(3)]}
            for spread in (0.1, 0.4)]  # fmt: skip


def test_a_paired_difference_of_equals_is_nothing_and_of_better_is_more(rows):
    assert paired_difference(rows[0], rows[0]) == {"each": [0, 0, 0], "interval": [0, 0]}
    better = paired_difference(*rows)
    assert 0 < better["interval"][0] < np.mean(better["each"]) < better["interval"][1]


def test_seeds_that_agree_do_not_narrow_the_interval(rows):
    one = [{"tested": row["tested"][:1]} for row in rows]
    three = [{"tested": row["tested"][:1] * 3} for row in rows]
    width = [np.ptp(paired_difference(*pair)["interval"]) for pair in (one, three)]
    assert 0 < width[1] == pytest.approx(width[0], rel=0.25)


def test_one_photograph_gives_no_interval(rows):
    alone = [{"tested": [row["tested"][0] | {"photographs": np.zeros(300)}]} for row in rows]
    assert np.isnan(paired_difference(*alone)["interval"]).all()


def test_the_diagonal_fit_is_sklearns_in_the_shape_of_full_covariances(monkeypatch):
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(300, 4)) + 6 * np.eye(4)[rng.integers(3, size=300)]
    monkeypatch.setattr(Mixture, "_maximize", diagonal_fit)
    mixture = Mixture(3, 4)
    for _ in range(2):  # fresh, then from the previous fit
        mixture.refit(embeddings, seed=0)
    z = (embeddings - embeddings.mean(0)) / embeddings.std(0)
    oracle = GaussianMixture(
        3, covariance_type="diag", reg_covar=REG_COVAR, n_init=5, random_state=0
    ).fit(z)
    ours = mixture.log_joint(torch.from_numpy(embeddings)).logsumexp(1).numpy()
    assert np.allclose(ours, oracle.score_samples(z), atol=0.01) and mixture.label_stability == 1
