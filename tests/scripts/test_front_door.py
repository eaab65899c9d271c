"""Runs on people's own folders: moved, renamed, foreign, grey, of one image."""

import shutil

import numpy as np
import pytest
from PIL import Image

from tests.helpers import write_images
from tests.scripts.running import log_of, metrics_of, script, test_run

pytestmark = pytest.mark.slow

FLAGS = (
    "--image_size 16 --crop whole --train_samples 12 --val_samples 6 --distortions_per_image 2 "
    "--epochs 1 --batch_size 36 --refit_interval 1 --n_clusters 2 --device cpu"
)


def train_on(folder, name, references, extra=""):
    """Train a tiny run on a folder, and return what it prints."""
    command = f"train_with_distortions.py --experiment_name {name} {FLAGS} --references"
    output, _ = script(f"{command} {references} {extra}", folder)
    return output


@pytest.fixture(scope="module")
def place(module_folder):
    """Return a folder with a run called 'own' on the folder 'images' beside it."""
    write_images(module_folder / "images", 40)
    train_on(module_folder, "own", "images")
    return module_folder


@pytest.fixture
def copied(place, tmp_path):
    """Return a copy of it that a test may change."""
    shutil.copytree(place, tmp_path / "place")
    return tmp_path / "place"


def resume(folder, extra="", status=0):
    command = f"train_with_distortions.py --experiment_name own --resume {extra}"
    return script(command, folder, status=status)


def make_unfinished(folder):
    """Let the run end after its first epoch, so that resuming trains the second one."""
    shutil.rmtree(folder / "experiments" / "own")
    train_on(folder, "own", "images", "--save_interval 0 --epochs 2")
    run = folder / "experiments" / "own"
    (run / "last.prev.pt").replace(run / "last.pt")


def test_the_start_line_says_what_was_taken(place, tmp_path):
    write_images(tmp_path / "phone", 25)
    for name in ("a.mov", "b.mov", "notes.txt"):
        (tmp_path / "phone" / name).write_text("no image")

    output = train_on(tmp_path, "phone", "phone")

    line = next(line for line in output.splitlines() if line.startswith("references: "))
    for words in (str(tmp_path / "phone"), "28 files", "18 used (0 % grey)", "20 % are held out"):
        assert words in line
    for words in ("2 .mov", "1 .txt", "not needed: 2"):
        assert words in line


def test_a_run_goes_on_with_references_that_moved(copied, place):
    make_unfinished(copied)
    expected = log_of(copied, "own")
    (copied / "images").rename(copied / "My pictures")
    _, problem = resume(copied, status=1)
    assert "no such folder" in problem
    assert "--resume --references NEW_FOLDER" in problem

    # A path with a space cannot be one of this test's words, so a link stands for it.
    (copied / "new").symlink_to("My pictures")
    resume(copied, "--references new")

    assert log_of(copied, "own") == expected
    config = (copied / "experiments" / "own" / "config.json").read_text()
    assert str(copied / "My pictures") in config


def test_other_images_in_the_new_place_are_refused(copied):
    write_images(copied / "others", 40, start=500)

    _, problem = resume(copied, "--references others", status=1)

    assert f"the references in {copied / 'others'} are not those that" in problem


def test_testing_names_the_way_out_where_references_moved(copied):
    train_on(copied, "own", "images", "--overwrite")  # the copied run names the original folder
    (copied / "images").rename(copied / "moved")

    flags = "--experiment experiments/own --skip_tsne"
    _, problem = script(f"test_with_viz.py {flags}", copied, status=1)

    assert f"was trained on {copied / 'images'}, which is not there any more" in problem
    test_run(copied, "own", "--references moved --skip_tsne")
    assert metrics_of(copied, "own")["test_references"] == 8


def test_a_foreign_folder_is_tested_whole(copied):
    write_images(copied / "foreign", 50, start=100)

    output, _ = test_run(copied, "own", "--references foreign --skip_tsne")

    assert metrics_of(copied, "own")["test_references"] == 50
    assert "split: all of it" in output


def test_a_folder_of_one_image_is_tested(copied):
    write_images(copied / "one" / "test", 1, start=100)

    test_run(copied, "own", "--references one --skip_tsne")

    assert metrics_of(copied, "own")["test_references"] == 1


def test_an_own_folder_called_photos_is_not_the_bundled_one(copied):
    (copied / "images").rename(copied / "photos")
    command = f"train_with_distortions.py --experiment_name p {FLAGS} --references photos"

    _, problem = script(command, copied, status=1)

    assert "give ./photos for the folder, or builtin:photos" in problem
    assert not (copied / "experiments" / "p").exists()
    assert f"folder {copied / 'photos'}" in train_on(copied, "p", "./photos")
    assert "bundled photographs" in train_on(copied, "b", "builtin:photos")


def test_grey_references_are_told_and_get_other_types(copied):
    (copied / "grey").mkdir()
    for i in range(30):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 20), dtype=np.uint8)
        Image.fromarray(pixels).save(copied / "grey" / f"{i}.png")

    output = train_on(copied, "grey", "grey")

    assert "(100 % grey)" in output
    assert "training: too little to see, so others are dealt: color_saturation 12 of 12" in output


def test_one_file_is_shown_with_every_distortion(copied):
    output, _ = script("distorted_dataset.py --references images/003.png", copied)

    assert "reference 003.png" in output
