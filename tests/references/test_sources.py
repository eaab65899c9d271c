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
from references.sources import fit, load_test_references, load_training_references, resolve_source
from utils.images import to_rgb


def write_images(folder, count, size=(40, 36), start=0):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(start, start + count):
        pixels = np.random.default_rng(i).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")


def train_val_test(source, train, val, test, data_seed=0, seed=0, size=32):
    parts = load_training_references(str(source), train, val, size, "none", data_seed)
    return *parts, load_test_references(str(source), test, size, "none", data_seed, seed)[0]


@pytest.fixture(scope="module")
def unsplit(module_folder):
    write_images(module_folder / "some", 20)
    write_images(module_folder / "others", 20, start=20)
    return module_folder


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(1, 20),
    st.integers(1, 12),
    st.integers(1, 8),
    st.integers(0, 2**62),
    st.integers(0, 2**62),
)
def test_no_reference_stands_on_two_sides(unsplit, train, val, test, data_seed, seed):
    parts = train_val_test(unsplit, train, val, test, data_seed, seed)
    digests = [set(part.digests) for part in parts]
    assert [len(d) for d in digests] == [train, val, test]
    assert not (digests[0] & digests[1] or digests[0] & digests[2] or digests[1] & digests[2])


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**62), st.integers(0, 2**62))
def test_no_bundled_photograph_stands_on_two_sides(train, val, data_seed, seed):
    parts = [
        set(part.photographs.tolist())
        for part in train_val_test("photos", train, val, 30, data_seed, seed)
    ]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


def test_the_test_split_does_not_move_with_the_draw_seed(unsplit):
    names = {
        name for seed in range(5) for name in train_val_test(unsplit, 5, 5, 8, 0, seed)[2].names
    }
    assert len(names) == 8


@pytest.mark.parametrize("held_out", ("test", "val"))
def test_folders_named_train_and_test_or_val_are_the_parts(tmp_path, held_out):
    write_images(tmp_path / "train" / "deep", 6)
    write_images(tmp_path / held_out, 4, start=6)
    train, val, test = train_val_test(tmp_path, 4, 2, 10)
    assert all(name.startswith("train") for name in train.names + val.names)
    assert len(test) == 4 and all(name.startswith(held_out) for name in test.names)


def test_validation_does_not_change_with_the_number_of_training_references(unsplit):
    assert train_val_test(unsplit, 3, 5, 1)[1].names == train_val_test(unsplit, 20, 5, 1)[1].names


def test_copies_of_a_training_image_are_left_out_of_the_test(tmp_path):
    write_images(tmp_path / "train", 6)
    write_images(tmp_path / "test", 8)  # the first six are copies
    train, val = load_training_references(str(tmp_path), 4, 2, 32, "none", 0)
    test, dropped = load_test_references(
        str(tmp_path), 8, 32, "none", 0, 0, train.digests + val.digests
    )
    assert dropped == 6 and set(test.names) == {"test/006.png", "test/007.png"}


def test_too_many_samples_are_refused_with_the_number_there_is(tmp_path):
    write_images(tmp_path / "train", 6)
    write_images(tmp_path / "test", 1)
    with pytest.raises(
        ValueError, match="--train_samples 10 and --val_samples 2 need 12 references, but .* has 6"
    ):
        load_training_references(str(tmp_path), 10, 2, 32, "none", 0)


def test_a_test_folder_without_a_train_folder_is_refused(tmp_path):
    write_images(tmp_path / "test", 4)
    with pytest.raises(ValueError, match="has test/ but no train/"):
        load_training_references(str(tmp_path), 1, 1, 32, "none", 0)


def test_a_folder_of_images_that_are_all_too_small_says_so(tmp_path, capsys):
    write_images(tmp_path, 4)
    with pytest.raises(ValueError, match="has no image that can be used at 64×64 pixels"):
        load_training_references(str(tmp_path), 1, 1, 64, "none", 0)
    assert "40×36 is smaller than 64×64" in capsys.readouterr().out
    for name in ("000", "001", "002", "003"):
        (tmp_path / f"{name}_broken.png").write_bytes(b"no image")
    assert sources.largest_side(str(tmp_path), 128) == 36


def test_a_folder_of_one_image_is_refused(tmp_path):
    write_images(tmp_path, 1)
    with pytest.raises(ValueError, match="holds a single image"):
        sources.largest_side(str(tmp_path), 128)


def test_photos_give_as_many_crops_as_asked_for():
    train, val = load_training_references("photos", 700, 3, 16, "none", 0)
    assert len(train) == 700 and len(set(train.digests)) > 650 and len(val) == 3


def test_broken_files_are_named_and_counted(tmp_path, capsys):
    write_images(tmp_path / "train", 5)
    write_images(tmp_path / "test", 1)
    (tmp_path / "train" / "empty.png").write_bytes(b"")
    whole = (tmp_path / "train" / "001.png").read_bytes()
    (tmp_path / "train" / "short.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (20, 99)).save(tmp_path / "train" / "small.png")
    with pytest.raises(ValueError, match="has 5 for training"):
        load_training_references(str(tmp_path), 9, 1, 32, "none", 0)
    output = capsys.readouterr().out
    assert all(
        name in output
        for name in ("empty.png", "short.png", "small.png (20×99 is smaller than 32×32)")
    )
    assert "3 unusable images and 0 copies of others skipped" in output


def test_a_folder_with_nothing_usable_or_no_folder_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match="holds no image"):
        load_training_references(str(tmp_path), 1, 1, 32, "none", 0)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_training_references(str(tmp_path / "nowhere"), 1, 1, 32, "none", 0)


@pytest.mark.parametrize("suffix", ("png", "jpg", "webp", "bmp", "tiff"))
def test_every_format_is_read(tmp_path, suffix):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        for i in range(2):
            Image.new("RGB", (32, 32), (200, 30 * i, 90)).save(
                tmp_path / part / f"{i}.{suffix.upper()}"
            )
    train, _ = load_training_references(str(tmp_path), 1, 1, 32, "none", 0)
    assert abs(train.images[0, 0].float().mean() - 200) < 4


@pytest.mark.parametrize("mode, value, expected", (
    ("L", 90, (90, 90, 90)),
    ("1", 1, (255, 255, 255)),
    ("LA", (90, 255), (90, 90, 90)),
    ("RGBA", (200, 10, 20, 0), (255, 255, 255)),
    ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
    ("I;16", 257 * 90, (90, 90, 90)),
))  # fmt: skip
def test_every_mode_becomes_rgb(mode, value, expected):
    image = to_rgb(Image.new(mode, (8, 8), value))
    assert image.mode == "RGB" and image.getpixel((3, 3)) == expected


@pytest.mark.parametrize("mode", ("I", "F"))
def test_pixels_of_unknown_range_are_refused(mode):
    with pytest.raises(ValueError, match=f"32 bits .mode {mode}. have no known range"):
        to_rgb(Image.new(mode, (8, 8), 40))


def test_a_16_bit_png_is_read(tmp_path):
    Image.fromarray(np.full((8, 8), 257 * 90, np.uint16)).save(tmp_path / "deep.png")
    assert to_rgb(Image.open(tmp_path / "deep.png")).getpixel((0, 0)) == (90, 90, 90)


def test_16_bits_are_rounded_to_8():
    values = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    expected = np.round(values / 257)
    assert np.array_equal(np.asarray(to_rgb(Image.fromarray(values)))[:, :, 0], expected)


def test_palettes_become_rgb_and_their_transparency_white():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert to_rgb(image).getpixel((0, 0)) == (10, 20, 30)
    image.info["transparency"] = 1
    assert to_rgb(image).getpixel((0, 0)) == (255, 255, 255)


def test_exif_orientation_is_applied(tmp_path):
    image, exif = Image.new("RGB", (10, 20), "red"), Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert to_rgb(Image.open(tmp_path / "turned.jpg")).size == (20, 10)


def test_an_image_of_the_right_size_is_not_touched():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    assert np.array_equal(fit(Image.fromarray(pixels), 32), pixels[:, 8:40])


def test_a_photograph_is_shrunk_before_it_is_cropped():
    photo = Image.new("RGB", (320, 160), "black")
    photo.paste("white", (80, 0, 240, 160))  # the centre square
    assert fit(photo, 32).mean() > 250


def test_auto_falls_back_to_photos_with_a_warning(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    source, warning = resolve_source("auto", str(tmp_path))
    assert (
        source == "photos" and "could not be downloaded" in warning and "demonstration" in warning
    )
    assert socket.getdefaulttimeout() is None
    with pytest.raises(ValueError, match="CIFAR-10 is not under .* could not be downloaded"):
        load_training_references("cifar10", 1, 1, 32, str(tmp_path), 0)


def test_cifar10_parts_and_sizes(monkeypatch):
    arrays = {
        part: np.random.default_rng(i).integers(0, 256, (30, 32, 32, 3), np.uint8)
        for i, part in enumerate(("train", "test"))
    }
    monkeypatch.setattr(sources, "_load_cifar10", lambda root, part: arrays[part])
    assert resolve_source("auto", "data") == ("cifar10", None)
    train, val, test = train_val_test("cifar10", 20, 10, 30)
    assert {tuple(image.flatten()) for image in test.images.permute(0, 2, 3, 1).numpy()} == {
        tuple(a.flatten()) for a in arrays["test"]
    }
    assert len(train) == 20 and len(val) == 10
    with pytest.raises(ValueError, match="--image_size 64 is larger"):
        load_training_references("cifar10", 1, 1, 64, "data", 0)


def test_the_bundled_photographs_are_colour_photographs_of_different_scenes():
    sizes = [sources.load_photo(i) for i in range(len(sources.PHOTOS))]
    assert all(photo.mode == "RGB" for photo in sizes)
    assert min(min(photo.size) for photo in sizes) == sources.SMALLEST_PHOTO
    assert len(sizes) == sum(sources.PHOTO_COUNTS.values())
    assert isinstance(
        load_training_references("photos", 1, 1, 32, "none", 0)[0].images, torch.Tensor
    )


def test_a_folder_that_cannot_be_opened_is_told(tmp_path, monkeypatch, capsys):
    write_images(tmp_path / "open", 10)
    (tmp_path / "shut").mkdir()
    scandir = os.scandir

    def guarded(path):
        if Path(path).name == "shut":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    load_training_references(str(tmp_path), 5, 3, 32, "none", 0)
    assert capsys.readouterr().out == "skipped shut (Permission denied)\n"
