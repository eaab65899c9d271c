"""What is read of a run's log and of its predictions."""

import json

import numpy as np
import pytest

from evaluation.results import changes_at_refits, read_columns, read_metrics, srcc_changes

LOG = (
    {"epoch": 0, "srcc": None, "refit": False},
    {"epoch": 1, "srcc": 0.5, "refit": False},
    {"epoch": 2, "srcc": 0.75, "refit": True},
    {"epoch": 3, "srcc": 0.625, "refit": True},
)


@pytest.fixture
def folder(tmp_path):
    """A run's folder with a log."""
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
    return tmp_path


def test_changes_are_from_the_epoch_before(folder):
    """Nothing is known of a change from an epoch without SRCC."""
    changes = srcc_changes(folder)

    assert changes == pytest.approx({1: np.nan, 2: 0.25, 3: -0.125}, nan_ok=True)


def test_changes_at_refits_are_of_refits_alone(folder):
    assert changes_at_refits(folder) == {2: 0.25, 3: -0.125}


def test_columns_are_numbers_where_they_can_be(tmp_path):
    path = tmp_path / "visualizations" / "predictions.csv"
    path.parent.mkdir()
    path.write_text('image,type,quality\n0,"rain, fog",50.5\n1,pristine,100\n', encoding="utf-8")

    qualities, types = read_columns(tmp_path, "quality", "type")

    assert qualities.tolist() == [50.5, 100]
    assert types.tolist() == ["rain, fog", "pristine"]


def test_a_run_without_metrics_says_how_to_test_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run: python \S*test_with_viz.py --experiment"):
        read_metrics(tmp_path)
