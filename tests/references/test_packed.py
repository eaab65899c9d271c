"""A packed folder gives the references that its files give, and survives kills and damage."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from distorted_dataset import DistortedImageDataset
from references.packed import PackedFile, PackedImages, pack
from references.sources import load_test_references, load_training_references
from tests.helpers import ROOT, run_script, write_images
from utils.errors import UserError

SIDE = 8
NAMES = tuple(f"{i:02d}.png" for i in range(40))
SEEDS = st.integers(0, 2**62)
forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def read(name):
    """Return pixels that follow from the name; two of the files cannot be used."""
    number = int(name[:2])
    if number in (3, 30):
        return None, "broken"
    return np.full((SIDE, SIDE, 3), number, np.uint8), None


def usable(names):
    return [name for name in names if read(name)[1] is None]


def pack_names(cache_dir, names=NAMES, read=read):
    return pack(cache_dir, cache_dir, names=names, side=SIDE, read=read)


def is_complete(packed, names=NAMES):
    """Tell whether a packed folder has the pixels of all usable names."""
    names = usable(names)
    expected = np.stack([read(name)[0] for name in names])
    return np.array_equal(packed.images(names)[torch.arange(len(names))], expected)


def cut(path, size):
    """Take the last `size` bytes from a file."""
    os.truncate(path, path.stat().st_size - size)


def load_train_val(folder, train, val, side=32, data_seed=0, cache_dir=None):
    return load_training_references(
        str(folder),
        train_samples=train,
        val_samples=val,
        image_size=side,
        data_root="none",
        data_seed=data_seed,
        cache_dir=cache_dir,
    )


def load_test(folder, count, side=32, data_seed=0, seed=0, exclude=(), cache_dir=None):
    return load_test_references(
        str(folder),
        count=count,
        image_size=side,
        data_root="none",
        data_seed=data_seed,
        seed=seed,
        exclude=exclude,
        cache_dir=cache_dir,
    )


@pytest.fixture(scope="module")
def folder(module_folder):
    """30 images, copies of six of them, a broken one and a small one."""
    write_images(module_folder / "some", 30)
    write_images(module_folder / "copies", 6)
    (module_folder / "broken.png").write_bytes(b"no image")
    Image.new("RGB", (20, 99)).save(module_folder / "small.png")
    return module_folder


def describe(references):
    return references.names, references.digests, DistortedImageDataset(references).digest()


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(1, 10), st.integers(1, 10), SEEDS, SEEDS)
def test_a_cache_changes_no_reference(folder, train_count, val_count, data_seed, seed):
    found = []

    for cache_dir in (None, folder / "cache"):
        train, val = load_train_val(
            folder, train_count, val_count, data_seed=data_seed, cache_dir=cache_dir
        )
        test, left_out = load_test(
            folder,
            6,
            data_seed=data_seed,
            seed=seed,
            exclude=train.digests + val.digests,
            cache_dir=cache_dir,
        )
        found.append([describe(train), describe(val), describe(test), left_out])

    assert found[0] == found[1]


def test_a_cache_changes_no_message(folder, tmp_path, capsys):
    lines = []

    for cache_dir in (None, tmp_path):
        with pytest.raises(UserError, match="has .* for training"):
            load_train_val(folder, 99, 1, cache_dir=cache_dir)
        lines.append(capsys.readouterr().out.splitlines())

    without_cache, with_cache = lines
    assert without_cache == [
        "skipped small.png (20×99 is smaller than 32×32)",
        f"folder {folder.name}: 1 unusable images and 3 copies of others skipped",
    ]
    packed_line = "packed 36 images"
    assert [line for line in with_cache if not line.startswith(packed_line)] == without_cache


@pytest.mark.slow
def test_a_run_with_a_cache_has_the_same_digests(tmp_path):
    write_images(tmp_path / "images", 30, size=(16, 16))
    train_flags = (
        "--experiment_name packed --references images --cache_dir cache --train_samples 12 "
        "--val_samples 6 --distortions_per_image 5 --epochs 1 --batch_size 64 --refit_interval 1 "
        "--n_clusters 4 --image_size 16 --device cpu"
    )
    test_flags = "--experiment experiments/packed --test_samples 5 --skip_tsne --cache_dir cache"
    train, val = load_train_val(tmp_path / "images", 12, 6, side=16)
    test, _ = load_test(tmp_path / "images", 5, side=16)
    train_dataset = DistortedImageDataset(train, flip=True, cutmix=True)
    val_dataset = DistortedImageDataset(val, split="val", redistort=False)
    test_dataset = DistortedImageDataset(test, split="test", redistort=False)

    trained = run_script(ROOT / "train_with_distortions.py", train_flags.split(), tmp_path)
    tested = run_script(ROOT / "test_with_viz.py", test_flags.split(), tmp_path)

    assert (trained[0], tested[0]) == (0, 0), trained[2] + tested[2]
    run = tmp_path / "experiments" / "packed"
    config = json.loads((run / "config.json").read_text())
    metrics = json.loads((run / "visualizations" / "metrics.json").read_text())
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert "cache_dir" not in config
    assert config["digest"] == train_dataset.digest() + val_dataset.digest()
    assert metrics["digest"] == test_dataset.digest()


@pytest.fixture
def three_images(tmp_path):
    """PackedImages of three files, and the tensor (3, S, S, 3) that they stand for."""
    images = pack_names(tmp_path).images(["05.png", "01.png", "39.png"])
    pixels = torch.tensor([5, 1, 39], dtype=torch.uint8).view(3, 1, 1, 1)
    return images, pixels.expand(3, SIDE, SIDE, 3)


@pytest.mark.parametrize(
    "index",
    (0, -1, torch.tensor(2), torch.tensor([2, 0, 2]), torch.tensor([True, False, True])),
    ids=str,
)
def test_packed_images_are_indexed_like_a_tensor(three_images, index):
    images, expected = three_images

    assert torch.equal(images[index], expected[index])


def test_packed_images_have_a_tensors_shape(three_images):
    images, expected = three_images

    assert images.shape == expected.shape
    assert len(images) == 3


def test_packed_images_are_sliced_like_a_tensor(three_images):
    images, expected = three_images

    assert torch.equal(images[1:][torch.arange(2)], expected[1:])


def test_an_image_that_is_read_is_a_copy(three_images):
    images, expected = three_images

    images[0].zero_()

    assert torch.equal(images[0], expected[0])


def test_pixels_keep_their_order(tmp_path):
    """An image of height, width and channels is stored as its bytes lie in memory."""
    pixels = np.arange(192, dtype=np.uint8).reshape(SIDE, SIDE, 3)

    packed = pack_names(tmp_path, names=["a"], read=lambda name: (pixels, None))

    assert np.array_equal(packed.images(["a"])[0], pixels)
    assert (packed.path / "images").read_bytes() == bytes(range(192))


def test_a_file_larger_than_memory_is_read(tmp_path):
    """It is a sparse file of 1 TB: all zeros but for one row."""
    image_bytes = 3 * 64 * 64
    count = 2**40 // image_bytes
    row = 2**26
    with open(tmp_path / "images", "wb") as file:
        file.truncate(count * image_bytes)
        file.seek(row * image_bytes)
        file.write(b"\7" * image_bytes)
    packed_file = PackedFile(tmp_path / "images", count, 64)

    images = PackedImages(packed_file, torch.tensor([row - 1, row, row + 1]))

    assert images[torch.arange(3)][:, 0, 0, 0].tolist() == [0, 7, 0]


def resident_megabytes():
    """Return the memory of this process, its own and that of mapped files."""
    total = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        name, *values = line.split()
        if name in ("RssAnon:", "RssFile:"):
            total += int(values[0]) / 1000
    return total


def test_what_was_read_leaves_the_process(tmp_path):
    count = 4000
    file_bytes = count * 3 * 64 * 64  # 49 MB
    (tmp_path / "images").write_bytes(bytes(file_bytes))
    file = PackedFile(tmp_path / "images", count, 64)
    before = resident_megabytes()

    for rows in np.arange(count).reshape(-1, 100):
        file.take(rows)

    assert resident_megabytes() - before < file_bytes / 5e6


@pytest.fixture
def four_rows(tmp_path):
    """A packed file of four equal images."""
    (tmp_path / "images").write_bytes(bytes(range(192)) * 4)
    return PackedFile(tmp_path / "images", 4, SIDE)


def test_no_row_gives_no_image(four_rows):
    assert four_rows.take(np.empty(0, int)).shape == (0, SIDE, SIDE, 3)


def test_rows_are_read_in_any_order(four_rows):
    assert torch.equal(four_rows.take([3, 0]), four_rows.take([0, 3]))
    assert four_rows.take(2).flatten().tolist() == list(range(192))


def test_a_file_cut_short_under_a_run_is_reported(four_rows):
    cut(four_rows.path, 1)

    assert four_rows.take(2).flatten().tolist() == list(range(192))
    with pytest.raises(UserError, match="images is damaged; delete its folder"):
        four_rows.take([2, 3])


def test_a_folder_is_packed_once(folder, tmp_path):
    load_train_val(folder, 5, 5, cache_dir=tmp_path)
    (cache,) = tmp_path.iterdir()
    written = (cache / "images").stat().st_mtime_ns

    load_train_val(folder, 5, 5, cache_dir=tmp_path)

    assert list(tmp_path.iterdir()) == [cache]
    assert (cache / "images").stat().st_mtime_ns == written
    assert cache.name.startswith("32px_")


def test_a_changed_folder_is_packed_again(tmp_path):
    write_images(tmp_path / "images", 12)
    load_train_val(tmp_path / "images", 5, 2, cache_dir=tmp_path / "cache")

    os.utime(tmp_path / "images" / "000.png", (1, 1))
    load_train_val(tmp_path / "images", 5, 2, cache_dir=tmp_path / "cache")

    assert len(list((tmp_path / "cache").iterdir())) == 2


def exit_status_of_fork(function):
    """Call the function in a forked process, and return how that ended."""
    child = os.fork()
    if child == 0:
        function()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return status


@forks
def test_packing_continues_after_a_kill(tmp_path):
    asked = []

    def dying_read(name):
        if name == NAMES[25]:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(name)

    def counted_read(name):
        asked.append(name)
        return read(name)

    many = tuple(f"{i:02d}.{j}.png" for i in range(25) for j in range(40))
    names = many + NAMES[25:]

    status = exit_status_of_fork(lambda: pack_names(tmp_path, names=names, read=dying_read))
    packed = pack_names(tmp_path, names=names, read=counted_read)

    assert status == signal.SIGKILL
    assert is_complete(packed, names)
    assert 0 < len(asked) < len(names) / 2


def test_packing_continues_after_any_interruption(tmp_path):
    for stop in range(0, 40, 6):

        def interrupted_read(name, stop=stop):
            if name == NAMES[stop]:
                raise KeyboardInterrupt
            return read(name)

        with pytest.raises(KeyboardInterrupt):
            pack_names(tmp_path, read=interrupted_read)

        (cache,) = tmp_path.iterdir()
        assert not (cache / "index.jsonl").exists()
        assert len((cache / "index.part").read_bytes().splitlines()) == stop

    assert is_complete(pack_names(tmp_path))


@forks
def test_of_two_processes_one_packs(tmp_path):
    """The other waits."""
    cache_dir = tmp_path / "cache"

    def logged_read(name):
        with open(tmp_path / "log", "a") as log:
            log.write(name + "\n")
        return read(name)

    def both():
        other = os.fork()
        pack_names(cache_dir, read=logged_read)
        if other:
            assert os.waitpid(other, 0)[1] == 0

    status = exit_status_of_fork(both)

    assert status == 0
    assert (tmp_path / "log").read_text().split() == list(NAMES)
    assert is_complete(pack_names(cache_dir, read=None))


def cut_images(cache):
    cut(cache / "images", 700)


def remove_images(cache):
    (cache / "images").unlink()


def cut_index(cache):
    cut(cache / "index.jsonl", 5)


def damage_index(cache):
    index = cache / "index.jsonl"
    index.write_bytes(b"\xff" + index.read_bytes()[1:])


@pytest.mark.parametrize("damage", (cut_images, remove_images, cut_index, damage_index))
def test_a_damaged_cache_is_repaired(tmp_path, capsys, damage):
    pack_names(tmp_path)
    (cache,) = tmp_path.iterdir()
    damage(cache)

    packed = pack_names(tmp_path)

    assert is_complete(packed)
    assert "is damaged; what is missing is packed again" in capsys.readouterr().out


def test_damaged_pixels_are_reported(folder, tmp_path):
    load_train_val(folder, 10, 10, cache_dir=tmp_path)
    (cache,) = tmp_path.iterdir()
    pixels = np.memmap(cache / "images", np.uint8, "r+")
    pixels[::3000] ^= 1
    pixels.flush()

    with pytest.raises(UserError, match="is damaged; delete it, and it is made anew"):
        load_train_val(folder, 10, 10, cache_dir=tmp_path)


def test_a_folder_without_usable_images_is_packed(tmp_path):
    packed = pack_names(tmp_path, names=NAMES[3:4])

    assert len(packed.images([])) == 0
    assert packed.look_up(NAMES[3]) == (None, "broken")
