"""Where references come from, and how they are split."""

import errno
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from references import sources
from references.folders import list_files
from references.photos import PHOTOS, SMALLEST_PHOTO, load_photo
from references.sizes import NativeCrops, largest_side
from references.sources import load_test_references, load_training_references, resolve_source
from tests.helpers import write_images
from utils.errors import UserError

SEEDS = st.integers(0, 2**62)


def load_splits(source, train, val, test, *, data_seed=0, seed=0):
    """Return References to train on, to validate on and to test on, of 32×32 pixels."""
    train_references, val_references = load_training_references(
        str(source), train, val, image_size=32, data_root="none", data_seed=data_seed
    )
    test_references, _ = load_test_references(
        str(source), test, image_size=32, data_root="none", data_seed=data_seed, seed=seed
    )
    return train_references, val_references, test_references


def load_for_training(source, train, val, side=32):
    return load_training_references(
        str(source), train, val, image_size=side, data_root="none", data_seed=0
    )


@pytest.fixture(scope="module")
def unsplit(module_folder):
    """Write 40 images into a folder without splits of its own."""
    write_images(module_folder / "some", 20)
    write_images(module_folder / "others", 20, start=20)
    return module_folder


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    train=st.integers(1, 20),
    val=st.integers(1, 12),
    test=st.integers(1, 8),
    data_seed=SEEDS,
    seed=SEEDS,
)
def test_no_reference_is_in_two_splits(unsplit, train, val, test, data_seed, seed):
    splits = load_splits(unsplit, train, val, test, data_seed=data_seed, seed=seed)

    train_digests, val_digests, test_digests = (set(split.digests) for split in splits)
    assert len(train_digests) == train
    assert len(val_digests) == val
    assert len(test_digests) == test
    assert not train_digests & val_digests
    assert not train_digests & test_digests
    assert not val_digests & test_digests


@settings(deadline=None, max_examples=10)
@given(train=st.integers(1, 30), val=st.integers(1, 30), data_seed=SEEDS, seed=SEEDS)
def test_no_bundled_photograph_is_in_two_splits(train, val, data_seed, seed):
    splits = load_splits("photos", train, val, 30, data_seed=data_seed, seed=seed)

    of_train, of_val, of_test = (set(split.photographs.tolist()) for split in splits)
    assert not of_train & of_val
    assert not of_train & of_test
    assert not of_val & of_test


def test_the_test_split_does_not_move_with_the_seed(unsplit):
    """The seed chooses among its 8 images, and never another."""
    names = set()
    for seed in range(5):
        _, _, test = load_splits(unsplit, 5, 5, 8, seed=seed)
        names.update(test.names)

    assert len(names) == 8


@pytest.mark.parametrize("held_out", ("test", "val"))
def test_folders_named_by_a_split_are_that_split(tmp_path, held_out):
    """They are train/ beside test/ or val/."""
    write_images(tmp_path / "train" / "deep", 6)
    write_images(tmp_path / held_out, 4, start=6)

    train, val, test = load_splits(tmp_path, 4, 2, 10)

    assert all(name.startswith("train") for name in train.names + val.names)
    assert len(test) == 4
    assert all(name.startswith(held_out) for name in test.names)


def test_validation_ignores_the_number_to_train_on(unsplit):
    _, few_val = load_for_training(unsplit, 3, 5)
    _, many_val = load_for_training(unsplit, 20, 5)

    assert few_val.names == many_val.names


def test_copies_of_training_images_are_not_tested(tmp_path):
    write_images(tmp_path / "train", 6)
    write_images(tmp_path / "test", 8)  # the first six are copies
    train, val = load_for_training(tmp_path, 4, 2)

    test, dropped = load_test_references(
        str(tmp_path),
        count=8,
        image_size=32,
        data_root="none",
        data_seed=0,
        seed=0,
        exclude=train.digests + val.digests,
    )

    assert dropped == 6
    assert set(test.names) == {"test/006.png", "test/007.png"}


def test_too_many_samples_are_refused_with_the_number(tmp_path):
    write_images(tmp_path / "train", 6)
    write_images(tmp_path / "test", 1)

    message = "--train_samples 10 and --val_samples 2 need 12 references, but .* has 6"
    with pytest.raises(ValueError, match=message):
        load_for_training(tmp_path, 10, 2)


def test_a_test_folder_needs_a_train_folder(tmp_path):
    write_images(tmp_path / "test", 4)

    with pytest.raises(ValueError, match="has test/ but no train/"):
        load_for_training(tmp_path, 1, 1)


def test_a_folder_of_too_small_images_says_so(tmp_path, capsys):
    write_images(tmp_path, 4)

    with pytest.raises(ValueError, match="has no image that can be used at 64×64 pixels"):
        load_for_training(tmp_path, 1, 1, side=64)

    assert "40×36 is smaller than 64×64" in capsys.readouterr().out


def test_the_first_image_that_opens_decides_the_side(tmp_path):
    write_images(tmp_path, 4)
    for name in ("000", "001", "002", "003"):
        (tmp_path / f"{name}_broken.png").write_bytes(b"no image")

    assert largest_side(str(tmp_path), 128) == 36
    assert largest_side(str(tmp_path), 16) == 16


def test_a_folder_of_one_image_is_refused(tmp_path):
    write_images(tmp_path, 1)

    with pytest.raises(ValueError, match="holds a single image"):
        load_for_training(tmp_path, 1, 1)


def test_one_file_is_no_folder_to_train_on(tmp_path):
    write_images(tmp_path, 5)

    with pytest.raises(UserError, match="expected a folder of images, not this file"):
        load_for_training(tmp_path / "000.png", 1, 2)


def test_unusable_test_images_are_not_said_to_be_trained_on(tmp_path):
    write_images(tmp_path, 5)

    with pytest.raises(UserError, match="no image that can be used at 64×64 pixels"):
        load_test_references(str(tmp_path), 5, 64, "none", 0, 0, part="all")


def test_photos_give_as_many_crops_as_asked_for():
    train, val = load_for_training("photos", 700, 3, side=16)

    assert len(train) == 700
    assert len(set(train.digests)) > 650
    assert len(val) == 3


def test_unusable_files_are_named_and_counted(tmp_path, capsys):
    write_images(tmp_path / "train", 5)
    write_images(tmp_path / "test", 1)
    (tmp_path / "train" / "empty.png").write_bytes(b"")
    whole = (tmp_path / "train" / "001.png").read_bytes()
    (tmp_path / "train" / "short.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (20, 99)).save(tmp_path / "train" / "small.png")

    with pytest.raises(ValueError, match="has 5 for training"):
        load_for_training(tmp_path, 9, 1)

    output = capsys.readouterr().out
    for name in ("empty.png", "short.png", "small.png (20×99 is smaller than 32×32)"):
        assert name in output
    assert "references: folder" in output
    assert ", 9 files, 5 used (0 % grey); split: train/ to train and validate, test/ to" in output
    assert "1 .png (20×99 is smaller than 32×32)" in output


def test_only_so_many_unusable_files_are_named(tmp_path, capsys):
    write_images(tmp_path / "train", 2)
    write_images(tmp_path / "test", 1)
    for i in range(sources.MAX_NAMED + 5):
        (tmp_path / "train" / f"broken_{i}.png").write_bytes(b"no image")

    with pytest.raises(ValueError, match="has 2 for training"):
        load_for_training(tmp_path, 9, 1)

    output = capsys.readouterr().out
    assert output.count("skipped train/broken_") == sources.MAX_NAMED
    assert f"skipped: {sources.MAX_NAMED + 5} .png (not a PNG file, nor another image)" in output


def test_copies_are_taken_once_and_counted(tmp_path, capsys):
    write_images(tmp_path / "train", 3)
    write_images(tmp_path / "train" / "copies", 3)
    write_images(tmp_path / "test", 1)

    with pytest.raises(ValueError, match="has 3 for training"):
        load_for_training(tmp_path, 9, 1)

    assert "; skipped: 3 copies of others\n" in capsys.readouterr().out


def test_images_are_found_by_suffixes_in_any_case(tmp_path):
    write_images(tmp_path, 2)
    for suffix in ("png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff"):
        Image.open(tmp_path / "000.png").save(tmp_path / f"lower.{suffix}")
        Image.open(tmp_path / "001.png").save(tmp_path / f"upper.{suffix.upper()}")

    assert list_files(tmp_path).names == tuple(sorted(os.listdir(tmp_path)))


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")

    with pytest.raises(ValueError, match="holds no image"):
        load_for_training(tmp_path, 1, 1)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_for_training(tmp_path / "nowhere", 1, 1)


def test_a_folder_that_cannot_be_opened_is_named(tmp_path, monkeypatch, capsys):
    write_images(tmp_path / "open", 10)
    (tmp_path / "shut").mkdir()
    scandir = os.scandir

    def guarded_scandir(path):
        if Path(path).name == "shut":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded_scandir)
    load_for_training(tmp_path, 5, 3)

    assert capsys.readouterr().out.startswith("skipped shut (Permission denied)\nreferences: ")


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_auto_falls_back_to_photos_with_a_warning(tmp_path, no_network):
    source, warning = resolve_source("auto", str(tmp_path))

    assert source == "photos"
    assert "could not be downloaded" in warning
    assert "demonstration" in warning
    assert socket.getdefaulttimeout() is None


def test_cifar10_without_a_network_is_refused(tmp_path, no_network):
    with pytest.raises(ValueError, match="CIFAR-10 is not under .* could not be downloaded"):
        load_training_references("cifar10", 1, 1, 32, str(tmp_path), 0)


@pytest.fixture
def cifar10(monkeypatch):
    """Put noise in place of CIFAR-10: {split: (30, 32, 32, 3) uint8}."""
    arrays = {}
    for i, split in enumerate(("train", "test")):
        generator = np.random.default_rng(i)
        arrays[split] = generator.integers(0, 256, (30, 32, 32, 3), np.uint8)
    monkeypatch.setattr(sources, "_load_cifar10", lambda data_root, split: arrays[split])
    return arrays


def test_auto_is_cifar10_where_there_is_one(cifar10):
    assert resolve_source("auto", "data") == ("cifar10", None)


def test_cifar10s_splits_are_its_own(cifar10):
    train, val, test = load_splits("cifar10", 20, 10, 30)

    def to_set(images):
        return {image.tobytes() for image in np.asarray(images)}

    assert to_set(test.images) == to_set(cifar10["test"])
    assert to_set(torch.cat([train.images, val.images])) == to_set(cifar10["train"])


def test_cifar10_is_not_enlarged(cifar10):
    with pytest.raises(ValueError, match="--image_size 64 is larger"):
        load_for_training("cifar10", 1, 1, side=64)


def test_crops_larger_than_a_photograph_are_refused():
    with pytest.raises(ValueError, match="--image_size 301 is larger than the bundled"):
        load_for_training("photos", 1, 1, side=SMALLEST_PHOTO + 1)


def test_bundled_photographs_are_in_colour():
    photos = [load_photo(i) for i in range(len(PHOTOS))]

    assert len(photos) == 7
    assert all(photo.mode == "RGB" for photo in photos)
    assert min(min(photo.size) for photo in photos) == SMALLEST_PHOTO


def test_each_split_has_its_number_of_photographs():
    train, val, test = load_splits("photos", 30, 30, 30)

    assert isinstance(train.images, torch.Tensor)
    assert train.images.shape == (30, 32, 32, 3)
    assert [len(set(split.photographs)) for split in (train, val, test)] == [4, 1, 2]


@pytest.mark.parametrize("crops", (None, NativeCrops(per_reference=4)))
def test_the_numbers_of_the_line_add_up(tmp_path, capsys, crops):
    """Each file is used, not in this part, skipped or not needed."""
    write_images(tmp_path / "train", 9)
    write_images(tmp_path / "test", 3, start=9)
    (tmp_path / "train" / "notes.txt").write_text("no image")

    load_training_references(str(tmp_path), 4, 2, 32, "none", 0, crops=crops)

    line = capsys.readouterr().out
    used = "6 used (0 % grey)" if crops is None else "6 used, 4 crops of each (0 % grey)"
    assert f", 13 files, {used}; split: " in line
    assert "; not in this part: 3; skipped: 1 .txt (no image); not needed: 3" in line


@pytest.mark.parametrize("count, words", ((1, "1 crop used"), (3, "3 crops used")))
def test_one_crop_is_no_crops(capsys, count, words):
    load_test_references("photos", count, 32, "none", 0, 0, crops=NativeCrops())

    assert f"(a demonstration), {words} (" in capsys.readouterr().out
