"""What a run is: what config.json says, which sizes are refused, and what a recipe reaches."""

import argparse
import json
import shutil
import subprocess
from dataclasses import asdict, fields

import pytest
import torch

import ablations.networks  # noqa: F401  it adds to NETWORKS
import train_with_distortions as script
from distorted_dataset import DistortedImageDataset
from references.sizes import NativeCrops
from training import config as config_module
from training.config import FREE_FLAGS, Recipe, check_recipe, check_sizes, describe_run, git_commit
from training.loop import OPTIMIZERS
from training.losses import CLUSTER_LOSSES, QUALITY_LOSSES

CPU = torch.device("cpu")
ARGS = script.parse_args(
    "--experiment_name any --references photos --image_size 16 --train_samples 4 "
    "--val_samples 2 --distortions_per_image 3 --device cpu".split()
)
# Of each part that a recipe changes, another value than the default.
CHANGED = Recipe(
    flip=False,
    cutmix=False,
    ema_share=0,
    optimizer="sgd",
    cosine_stem=False,
    quality_loss="squared",
    cluster_loss="none",
    covariance="diag",
    match_refits=False,
    stages=3,
    joined_stages=2,
    network="two_scales",
    rank_loss_weight=0.2,
    refinement=0.5,
    smallest_scale=0.5,
)


def load(recipe):
    """Return the training and the validation images of a run."""
    train, val, *_ = script.load_data(ARGS, recipe, DistortedImageDataset)
    return train, val


def describe(recipe=CHANGED):
    """Return a run's configuration."""
    return describe_run(ARGS, recipe, "photos", NativeCrops(), *load(recipe), device=CPU)


def test_every_part_of_the_recipe_is_changed():
    """So that the tests below are of every part."""
    default = Recipe()

    unchanged = [
        field.name
        for field in fields(Recipe)
        if getattr(CHANGED, field.name) == getattr(default, field.name)
    ]

    assert unchanged == []


def test_the_default_recipe_names_what_there_is():
    recipe = Recipe()

    assert recipe.optimizer in OPTIMIZERS
    assert recipe.quality_loss in QUALITY_LOSSES
    assert recipe.cluster_loss in CLUSTER_LOSSES


def test_a_configuration_holds_the_recipe():
    assert describe()["recipe"] == asdict(CHANGED)


def test_a_configuration_holds_the_commit(monkeypatch):
    monkeypatch.setattr(config_module, "git_commit", lambda: "0123")

    assert describe()["git_commit"] == "0123"


def test_a_configuration_is_plain_json():
    """It is read again as it was written."""
    config = describe()

    assert json.loads(json.dumps(config)) == config


def test_a_configuration_leaves_out_what_may_differ():
    """A run that is resumed may be given other values of these flags."""
    assert not {"folder", *FREE_FLAGS} & describe().keys()


def test_a_recipe_reaches_the_training_images():
    train, _ = load(Recipe(flip=False, cutmix=False))

    assert (train.labels.orientation == 0).all()
    assert (train.labels.cutmix_width == 0).all()


def test_training_images_are_flipped_and_mixed_by_default():
    train, _ = load(Recipe())

    assert (train.labels.orientation > 0).any()
    assert (train.labels.cutmix_width > 0).any()


def test_validation_images_are_neither_flipped_nor_mixed():
    _, val = load(Recipe())

    assert (val.labels.orientation == 0).all()
    assert (val.labels.cutmix_width == 0).all()


def test_a_recipe_reaches_the_networks(tmp_path):
    args = argparse.Namespace(**{**vars(ARGS), "folder": tmp_path})

    model, mixture = script.build_networks(args, describe(), CPU)

    stem = model.backbone.conv1.weight.detach().flatten(1)
    assert not torch.equal(stem[27:54], -stem[:27])  # no cosines, each with its negative
    assert mixture.covariance == "diag"
    assert not mixture.match_refits


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Return a git repository with the module in it, as the project's is."""
    if shutil.which("git") is None:
        pytest.skip("there is no git")
    module = tmp_path / "training" / "config.py"
    module.parent.mkdir()
    module.write_text("begun")
    monkeypatch.setattr(config_module, "__file__", str(module))
    identity = ("-c", "user.name=any", "-c", "user.email=any@example.org")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "Begin")):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


def test_the_commit_is_named_whole(repository):
    command = ["git", "-C", str(repository), "rev-parse", "HEAD"]
    expected = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert git_commit() == expected
    assert len(expected) == 40


def test_a_changed_file_is_marked_in_the_commit(repository):
    clean = git_commit()

    (repository / "training" / "config.py").write_text("changed")

    assert git_commit() == f"{clean}+changes"


def test_a_folder_without_git_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(config_module, "__file__", str(tmp_path / "training" / "config.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    assert git_commit() is None


def test_a_machine_without_git_trains_too(monkeypatch):
    def missing(*args, **kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)

    assert git_commit() is None


def write_config(folder, **values):
    (folder / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize("name", asdict(CHANGED))
def test_another_recipe_is_refused(tmp_path, name):
    write_config(tmp_path, recipe={**asdict(Recipe()), name: getattr(CHANGED, name)})

    with pytest.raises(ValueError, match=f"was begun with {name}={getattr(CHANGED, name)!r} in"):
        check_recipe(tmp_path, {"recipe": asdict(Recipe())})


def test_the_same_recipe_is_resumed(tmp_path):
    write_config(tmp_path, recipe=asdict(CHANGED))

    check_recipe(tmp_path, {"recipe": asdict(CHANGED)})


def test_a_run_without_a_recipe_had_the_default(tmp_path):
    """Runs of checkpoint format 3 say nothing of it."""
    write_config(tmp_path, lr=1e-3)

    check_recipe(tmp_path, {"recipe": asdict(Recipe())})
    with pytest.raises(ValueError, match="was begun with flip=True"):
        check_recipe(tmp_path, {"recipe": asdict(CHANGED)})


@pytest.mark.parametrize(
    "changes, images, processes, message",
    (
        ({"n_clusters": 9}, 8, 1, "--n_clusters 9 needs at least 9 training images, got 8"),
        ({"gmm_samples": 5}, 99, 1, "--n_clusters 8 needs at least 8 training images, got 5"),
        ({}, 2, 3, "3 processes share 2 training and 9 validation images; start fewer"),
        ({"batch_size": 16}, 99, 3, "3 processes share each batch, so --batch_size 16 must be"),
    ),
)
def test_sizes_that_do_not_fit_are_refused(monkeypatch, changes, images, processes, message):
    config = {"gmm_samples": 100, "n_clusters": 8, "batch_size": 24, **changes}
    monkeypatch.setattr(config_module, "get_world_size", lambda: processes)

    with pytest.raises(ValueError, match=message):
        check_sizes(config, images, val_images=9)


@pytest.mark.parametrize("n_clusters", (8, "auto"))
def test_sizes_that_fit_pass(monkeypatch, n_clusters):
    config = {"gmm_samples": 100, "n_clusters": n_clusters, "batch_size": 24}
    monkeypatch.setattr(config_module, "get_world_size", lambda: 3)

    check_sizes(config, train_images=8, val_images=3)


@pytest.mark.parametrize(
    ("flags", "crops"),
    (
        ("", NativeCrops(512, 4)),
        ("--crops_per_reference 7 --working_size 200", NativeCrops(200, 7)),
        ("--crop whole", None),
        ("--crop whole --crops_per_reference 1", None),
    ),
)
def test_flags_say_how_references_are_cropped(flags, crops):
    args = script.parse_args(["--experiment_name", "any", "--image_size", "16", *flags.split()])

    assert script.resolve_crops(args, "photos") == crops


def test_crops_of_whole_scenes_are_refused():
    flags = "--experiment_name any --crop whole --crops_per_reference 2"
    args = script.parse_args(flags.split())

    with pytest.raises(ValueError, match="--crops_per_reference 2 is for --crop native"):
        script.resolve_crops(args, "photos")
