"""Numbers of ablations and differences between them, from arrays and small files."""

import json

import numpy as np
import pytest
import torch

from ablations import tables
from ablations.aggregate import (
    best_lifts,
    measure_refits,
    paired_difference,
    types_with_own_cluster,
)
from ablations.classical import natural_scene_statistics
from ablations.jobs import recording_refit
from ablations.unknown import auroc
from models.mixture import Mixture
from utils.images import to_nchw


def write_log(folder, scores, refits=()):
    lines = []
    for epoch, score in enumerate(scores):
        lines.append(json.dumps({"epoch": epoch, "srcc": score, "refit": epoch in refits}) + "\n")
    (folder / "log.jsonl").write_text("".join(lines))


@pytest.mark.parametrize(
    "known, unknown, expected",
    [([3, 4, 5], [0, 1, 2], 1), ([0, 1, 2], [3, 4, 5], 0), ([1, 1], [1, 1], 0.5)],
)
def test_auroc_is_the_chance_to_be_below(known, unknown, expected):
    assert auroc(known, unknown) == expected


def test_types_that_share_a_cluster_do_not_own_it():
    types = np.array(["blur"] * 4 + ["motion"] * 3 + ["noise"] * 3)
    clusters = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1])

    assert types_with_own_cluster(clusters, types) == ["blur", "noise"]


def test_a_lift_is_the_best_share_over_the_base_rate():
    types = np.array(["blur"] * 4 + ["motion"] * 3 + ["noise"] * 3)
    clusters = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1])

    expected = {"blur": 10 / 7, "motion": 10 / 7, "noise": 10 / 3}
    assert best_lifts(clusters, types) == pytest.approx(expected)


def test_a_cluster_of_hardly_any_images_lifts_no_type():
    types = np.array(["blur", "noise"] * 100)
    clusters = np.zeros(200, int)
    clusters[:1] = 1

    assert best_lifts(clusters, types)["blur"] == pytest.approx(1, abs=0.01)


@pytest.fixture
def rows():
    """Two ablations of three seeds on the same 100 photographs, the first the better one."""
    random = np.random.default_rng(0)
    true = random.uniform(size=300)
    photographs = np.repeat(np.arange(100), 3)
    shared = {"true": true, "types": np.full(300, "blur"), "photographs": photographs}
    rows = []
    for error in (0.1, 0.4):
        predictions = [true + random.normal(0, error, 300) for _ in range(3)]
        rows.append({"tested": [{**shared, "predicted": predicted} for predicted in predictions]})
    return rows


def test_equal_ablations_do_not_differ(rows):
    difference = paired_difference(rows[0], rows[0])

    assert difference == {"each": [0, 0, 0], "interval": [0, 0]}


def test_a_better_ablation_is_above_zero(rows):
    difference = paired_difference(*rows)

    low, high = difference["interval"]
    assert 0 < low < np.mean(difference["each"]) < high


def test_seeds_that_agree_do_not_narrow_the_interval(rows):
    one = [{"tested": row["tested"][:1]} for row in rows]
    three = [{"tested": row["tested"][:1] * 3} for row in rows]

    width_of_one = np.ptp(paired_difference(*one)["interval"])
    width_of_three = np.ptp(paired_difference(*three)["interval"])

    assert width_of_one > 0
    assert width_of_three == pytest.approx(width_of_one, rel=0.25)


def test_one_photograph_gives_no_interval(rows):
    alone = [{"tested": [{**row["tested"][0], "photographs": np.zeros(300)}]} for row in rows]

    assert np.isnan(paired_difference(*alone)["interval"]).all()


def test_refits_of_the_second_half_count_once(tmp_path):
    lines = [(4, 0.5, -1.0), (5, None, 0.0), (6, 0.75, 0.5), (6, 0.875, 0.25), (8, 1.0, 0.0)]
    keys = ("epoch", "kept", "log_likelihood")
    rows = [{**dict(zip(keys, line)), "fresh_log_likelihood": 0.0} for line in lines]
    cut_short = '{"epoch": 9, "ke'  # killed while it wrote
    text = "".join(json.dumps(row) + "\n" for row in rows) + cut_short
    (tmp_path / "refits.jsonl").write_text(text)
    write_log(tmp_path, [])

    measures = measure_refits(tmp_path, epochs=10)

    assert measures["late_kept"] == [0.875, 1.0]
    assert measures["late_gaps"] == [0.25, 0.0]


def test_a_run_without_refits_has_nothing_kept(tmp_path):
    write_log(tmp_path, [0.5, 0.6])

    measures = measure_refits(tmp_path, epochs=10)

    assert measures["late_kept"] == measures["late_gaps"] == measures["refit_epochs"] == []
    assert measures["fewest_active"] is None


def test_the_fewest_active_clusters_are_found(tmp_path):
    lines = [{"epoch": 0, "srcc": 0.0, "refit": False}]
    for epoch, active in enumerate((8, 6, 7), start=1):
        lines.append({"epoch": epoch, "srcc": 0.0, "refit": True, "active_clusters": active})
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    assert measure_refits(tmp_path, epochs=4)["fewest_active"] == 6


def test_changes_at_refits_are_compared_by_epoch(tmp_path):
    others = []
    for seed, scores in enumerate(((0.5, 0.6, 0.4), (0.1, 0.2, 0.9))):
        folder = tmp_path / str(seed)
        folder.mkdir()
        write_log(folder, scores)
        others.append(measure_refits(folder, epochs=3))
    runs = [
        {"srcc_changes": [0.1, 0.0], "refit_epochs": [2]},
        {"srcc_changes": [0.3, 0.1], "refit_epochs": [1]},
    ]

    assert tables.extra_changes(runs, others) == pytest.approx([0.2, 0.2])


@pytest.fixture
def recorded_refits(tmp_path):
    """The lines of three refits: twice to embeddings in one place, then elsewhere."""
    random = np.random.default_rng(0)
    mixture = Mixture(3, 4)
    refit = recording_refit(tmp_path)
    for shift in (0, 0, 20):
        places = 6 * np.eye(4)[random.permutation(300) % 3] + shift
        refit(mixture, random.normal(size=(300, 4)) + places, 0)
    return [json.loads(line) for line in (tmp_path / "refits.jsonl").read_text().splitlines()]


def test_kept_images_are_recorded(recorded_refits):
    first, same_place, elsewhere = [line["kept"] for line in recorded_refits]

    assert first is None
    assert same_place == 1
    assert elsewhere < 0.7


def test_a_refit_is_as_likely_as_one_from_scratch(recorded_refits):
    for line in recorded_refits:
        assert line["log_likelihood"] == pytest.approx(line["fresh_log_likelihood"], abs=0.01)


def test_scene_statistics_follow_the_blur(crops):
    """Blur takes variance from the normalised luminance, at full size and at half size."""
    images = to_nchw(crops.images[:20])
    blurred = torch.nn.functional.avg_pool2d(images.float(), 3, 1, 1).round().to(torch.uint8)

    sharp = natural_scene_statistics(images)
    soft = natural_scene_statistics(blurred)

    assert sharp.shape == (20, 36)
    assert np.isfinite(sharp).all()
    assert (soft[:, [1, 19]] < sharp[:, [1, 19]]).all()
