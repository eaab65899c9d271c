"""Whole photographs for measurements: which are chosen, and how they are read."""

from types import SimpleNamespace

import pytest

from ablations.photographs import choose_photographs, load_photograph
from references.sources import load_training_references
from tests.helpers import write_images
from utils.errors import UserError

CONFIG = {"crop": "whole", "image_size": 16, "data_seed": 0, "references": "elsewhere"}


def run_of(references="elsewhere", digests=(), **changes):
    """Stand in for a run that was trained on these references."""
    config = {**CONFIG, "references": str(references), **changes}
    return SimpleNamespace(config=config, reference_digests=digests)


def names(runs, folder, count=18):
    return sorted(path.name for path in choose_photographs(runs, str(folder), count))


def test_a_test_part_is_used_where_there_is_one(tmp_path):
    write_images(tmp_path / "train", 3, start=10)
    write_images(tmp_path / "test", 4)

    assert names([run_of()], tmp_path) == ["000.png", "001.png", "002.png", "003.png"]
    assert len(names([run_of()], tmp_path, count=2)) == 2


def test_a_folder_that_no_run_has_seen_is_used_whole(tmp_path):
    write_images(tmp_path, 3)

    assert names([run_of(), run_of()], tmp_path) == ["000.png", "001.png", "002.png"]


@pytest.mark.parametrize(
    ("has_moved", "added"), ((False, 0), (True, 0), (True, 10)), ids=("same", "moved", "extended")
)
def test_images_that_a_run_was_trained_on_are_left_out(tmp_path, has_moved, added):
    """Of a folder without parts, which a run knows by its pixels too."""
    write_images(tmp_path, 20)
    train, val = load_training_references(str(tmp_path), 12, 4, 16, "none", 0)
    digests = (*train.digests, *val.digests)
    run = run_of("elsewhere" if has_moved else tmp_path, digests)
    write_images(tmp_path, added, start=100)

    chosen = names([run], tmp_path)

    assert 0 < len(chosen) <= 4 + added
    assert not set(chosen) & {*train.names, *val.names}


def test_a_folder_of_seen_images_alone_is_refused(tmp_path):
    write_images(tmp_path / "train", 6)
    write_images(tmp_path / "test", 6)  # the same images
    train, val = load_training_references(str(tmp_path), 4, 2, 16, "none", 0)

    with pytest.raises(UserError, match="expected photographs that no run has seen"):
        names([run_of(tmp_path, (*train.digests, *val.digests))], tmp_path)


def test_runs_that_know_different_images_are_refused(tmp_path):
    write_images(tmp_path, 20)

    with pytest.raises(UserError, match="only some of the runs were trained on"):
        choose_photographs([run_of(), run_of(tmp_path)], str(tmp_path), 18)


def test_the_bundled_photographs_are_no_folder():
    with pytest.raises(UserError, match="--references photos: expected a folder"):
        choose_photographs([run_of()], "photos", 18)


def test_a_photograph_is_shrunk_whole_and_never_enlarged(tmp_path):
    write_images(tmp_path, 1, size=(90, 60))

    assert load_photograph(tmp_path / "000.png", 30).shape == (30, 45, 3)
    assert load_photograph(tmp_path / "000.png", 512).shape == (60, 90, 3)


def test_a_damaged_photograph_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")

    with pytest.raises(UserError, match="broken.png cannot be read .*; remove it"):
        load_photograph(tmp_path / "broken.png", 512)


def test_a_photograph_that_is_too_small_is_named(tmp_path):
    write_images(tmp_path, 1, size=(90, 7))

    with pytest.raises(UserError, match="000.png is 90×7 pixels; expected sides of 8 or more"):
        load_photograph(tmp_path / "000.png", 512)
