"""A folder packed into one file: the same references, and what survives kills and damage."""

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

NAMES = tuple(f"{i:02d}.png" for i in range(40))
UNUSABLE = (3, 30)  # numbers that the names of unusable files begin with
SEEDS = st.integers(0, 2**62)


def read(name):
    """Make pixels that follow from the name."""
    number = int(name[:2])
    if number in UNUSABLE:
        return None, "broken"
    return np.full((8, 8, 3), number, np.uint8), None


def pack_names(cache_dir, names=NAMES, read=read):
    return pack(cache_dir, cache_dir, names, 8, read)


def assert_whole(packed, names=NAMES):
    """Assert that a packed folder holds the pixels of all usable files."""
    usable = [name for name in names if int(name[:2]) not in UNUSABLE]
    expected = np.stack([read(name)[0] for name in usable])
    assert np.array_equal(packed.images(usable)[torch.arange(len(usable))], expected)


def only_entry(folder):
    """Return the path of the single thing in a folder."""
    (path,) = folder.iterdir()
    return path


def cut(path, size):
    os.truncate(path, path.stat().st_size - size)


@pytest.fixture(scope="module")
def folder(module_folder):
    """Write 30 images, copies of six of them, a broken one and a small one."""
    write_images(module_folder / "some", 30)
    write_images(module_folder / "copies", 6)
    (module_folder / "broken.png").write_bytes(b"no image")
    Image.new("RGB", (20, 99)).save(module_folder / "small.png")
    return module_folder


def load_for_training(folder, train, val, cache_dir, data_seed=0):
    return load_training_references(
        str(folder),
        train,
        val,
        image_size=32,
        data_root="none",
        data_seed=data_seed,
        cache_dir=cache_dir,
    )


def describe_splits(folder, train, val, data_seed, seed, cache_dir):
    """Return names and digests of each split's references, and how many were left out."""
    train_references, val_references = load_for_training(folder, train, val, cache_dir, data_seed)
    test_references, dropped = load_test_references(
        str(folder),
        count=6,
        image_size=32,
        data_root="none",
        data_seed=data_seed,
        seed=seed,
        exclude=train_references.digests + val_references.digests,
        cache_dir=cache_dir,
    )
    found = [dropped]
    for references in (train_references, val_references, test_references):
        draws = DistortedImageDataset(references).digest()
        found.append((references.names, references.digests, draws))
    return found


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(train=st.integers(1, 10), val=st.integers(1, 10), data_seed=SEEDS, seed=SEEDS)
def test_a_cache_gives_the_same_references(folder, train, val, data_seed, seed):
    from_memory = describe_splits(folder, train, val, data_seed, seed, cache_dir=None)
    from_cache = describe_splits(folder, train, val, data_seed, seed, folder / "cache")

    assert from_cache == from_memory


def test_a_cache_names_the_same_skipped_files(folder, tmp_path, capsys):
    outputs = []
    for cache_dir in (None, tmp_path):
        with pytest.raises(ValueError, match="has .* for training"):
            load_for_training(folder, 99, 1, cache_dir)
        outputs.append(capsys.readouterr().out.splitlines())
    from_memory, from_cache = outputs

    assert from_memory[0] == "skipped small.png (20×99 is smaller than 32×32)"
    assert "; skipped: 3 copies of others, " in from_memory[1]
    assert "1 .png (20×99 is smaller than 32×32)" in from_memory[1]
    of_packing = [line for line in from_cache if line.startswith("packed 36 images")]
    assert len(of_packing) == 1
    assert [line for line in from_cache if line not in of_packing] == from_memory


@pytest.mark.slow
def test_a_run_with_a_cache_has_the_same_digests(tmp_path):
    write_images(tmp_path / "images", 30, size=(16, 16))
    train_flags = (
        "--experiment_name packed --references images --cache_dir cache --image_size 16 "
        "--train_samples 12 --val_samples 6 --epochs 1 --batch_size 24 --device cpu"
    )
    test_flags = "--experiment experiments/packed --test_samples 5 --skip_tsne --cache_dir cache"
    for script, flags in (
        ("train_with_distortions.py", train_flags),
        ("test_with_viz.py", test_flags),
    ):
        status, output, problem = run_script(ROOT / script, flags.split(), tmp_path)
        assert status == 0, output + problem

    images = str(tmp_path / "images")
    train, val = load_training_references(images, 12, 6, 16, "none", 0)
    test, _ = load_test_references(images, 5, 16, "none", 0, 0)
    train_digest = DistortedImageDataset(train, flip=True, cutmix=True).digest()
    val_digest = DistortedImageDataset(val, split="val", redistort=False).digest()
    test_digest = DistortedImageDataset(test, split="test", redistort=False).digest()

    run = tmp_path / "experiments" / "packed"
    config = json.loads((run / "config.json").read_text())
    metrics = json.loads((run / "visualizations" / "metrics.json").read_text())
    assert config["digest"] == train_digest + val_digest
    assert metrics["digest"] == test_digest
    assert "cache_dir" not in config
    assert only_entry(tmp_path / "cache").name.startswith("16px_")


@pytest.fixture
def three_images(tmp_path):
    """Pack files, and return three of them: PackedImages and the tensor that they stand for."""
    packed = pack_names(tmp_path).images(["05.png", "01.png", "39.png"])
    values = torch.tensor([5, 1, 39], dtype=torch.uint8)
    return packed, values.view(3, 1, 1, 1).expand(3, 8, 8, 3)


@pytest.mark.parametrize(
    "index",
    (0, -1, torch.tensor(2), torch.tensor([2, 0, 2]), torch.tensor([True, False, True])),
    ids=("first", "last", "scalar", "rows", "mask"),
)
def test_packed_images_are_indexed_like_a_tensor(three_images, index):
    packed, expected = three_images

    assert packed.shape == expected.shape
    assert len(packed) == 3
    assert torch.equal(packed[index], expected[index])


def test_packed_images_are_sliced_like_a_tensor(three_images):
    packed, expected = three_images

    sliced = packed[1:]

    assert isinstance(sliced, PackedImages)
    assert torch.equal(sliced[torch.arange(2)], expected[1:])


def test_packed_images_give_copies(three_images):
    packed, expected = three_images

    packed[0].zero_()

    assert torch.equal(packed[0], expected[0])


def test_pixels_are_stored_in_their_order(tmp_path):
    """Caches of earlier versions stay valid: an image's bytes are height, width, channels."""
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)

    packed = pack_names(tmp_path, names=["a"], read=lambda name: (pixels, None))

    assert np.array_equal(packed.images(["a"])[0], pixels)
    assert (packed.path / "images").read_bytes() == bytes(range(192))


def test_a_file_larger_than_memory_is_read_by_index(tmp_path):
    """A sparse file of 1 TB holds zeros in all rows but one."""
    image_bytes = 64 * 64 * 3
    rows = 2**40 // image_bytes
    row = 2**26
    with open(tmp_path / "images", "wb") as file:
        file.truncate(rows * image_bytes)
        file.seek(row * image_bytes)
        file.write(b"\7" * image_bytes)

    packed_file = PackedFile(tmp_path / "images", rows, 64)
    images = PackedImages(packed_file, torch.tensor([row - 1, row, row + 1]))

    assert images[torch.arange(3)][:, 0, 0, 0].tolist() == [0, 7, 0]


def resident_megabytes():
    """Return the memory that this process takes, with the pages of files."""
    megabytes = 0.0
    for line in Path("/proc/self/status").read_text().splitlines():
        words = line.split()
        if words[0] in ("RssAnon:", "RssFile:"):
            megabytes += int(words[1]) / 1000
    return megabytes


def test_what_was_read_leaves_the_process(tmp_path):
    """A fifth of the file's 49 MB may stay."""
    count = 4000
    file_bytes = count * 64 * 64 * 3
    (tmp_path / "images").write_bytes(bytes(file_bytes))
    file = PackedFile(tmp_path / "images", count, 64)

    before = resident_megabytes()
    for rows in np.arange(count).reshape(-1, 100):
        file.take(rows)

    assert resident_megabytes() - before < file_bytes / 1e6 / 5


@pytest.fixture
def four_equal_images(tmp_path):
    """Write a file of four images, each of the bytes 0 … 191."""
    (tmp_path / "images").write_bytes(bytes(range(192)) * 4)
    return PackedFile(tmp_path / "images", 4, 8)


def test_rows_are_read_in_the_order_asked_for(four_equal_images):
    assert four_equal_images.take(2).flatten().tolist() == list(range(192))
    assert torch.equal(four_equal_images.take([3, 0]), four_equal_images.take([0, 3]))
    assert four_equal_images.take(np.empty(0, int)).shape == (0, 8, 8, 3)


def test_a_file_that_is_cut_short_under_a_run_is_named(four_equal_images):
    cut(four_equal_images.path, 1)

    assert four_equal_images.take(2).flatten().tolist() == list(range(192))
    with pytest.raises(ValueError, match="images is damaged; delete its folder"):
        four_equal_images.take([2, 3])


def test_a_folder_is_packed_once(folder, tmp_path):
    load_for_training(folder, 5, 5, tmp_path)
    cache = only_entry(tmp_path)
    written = (cache / "images").stat().st_mtime_ns

    load_for_training(folder, 5, 5, tmp_path)

    assert only_entry(tmp_path) == cache
    assert (cache / "images").stat().st_mtime_ns == written
    assert cache.name.startswith("32px_")


def test_a_changed_folder_is_packed_again(folder, tmp_path):
    load_for_training(folder, 5, 5, tmp_path)

    os.utime(folder / "small.png", (1, 1))
    load_for_training(folder, 5, 5, tmp_path)

    assert len(list(tmp_path.iterdir())) == 2


def call_in_a_child(function):
    """Call the function in a forked process, and return how that ended."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            function()
            status = 0
        finally:  # whatever happens, the child may not go on as a second pytest
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return status


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_packing_goes_on_after_a_kill(tmp_path):
    """Most of the 1000 files before the kill are not read again."""
    names_before = [f"{i:02d}.{j}.png" for i in range(25) for j in range(40)]
    names = (*names_before, *NAMES[25:])
    names_read = []

    def read_until_killed(name):
        if name == NAMES[25]:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(name)

    def count_and_read(name):
        names_read.append(name)
        return read(name)

    status = call_in_a_child(lambda: pack_names(tmp_path, names, read_until_killed))
    packed = pack_names(tmp_path, names, count_and_read)

    assert status == signal.SIGKILL
    assert_whole(packed, names)
    assert 0 < len(names_read) < len(names) / 2


def test_packing_goes_on_after_interruptions(tmp_path):
    for stop in range(0, 40, 6):

        def interrupted_read(name, stop=stop):
            if name == NAMES[stop]:
                raise KeyboardInterrupt
            return read(name)

        with pytest.raises(KeyboardInterrupt):
            pack_names(tmp_path, read=interrupted_read)

        cache = only_entry(tmp_path)
        assert not (cache / "index.jsonl").exists()
        assert len((cache / "index.part").read_bytes().splitlines()) == stop

    assert_whole(pack_names(tmp_path))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_of_two_processes_one_packs_and_one_waits(tmp_path):
    def logged_read(name):
        with open(tmp_path / "log", "a") as log:
            log.write(name + "\n")
        return read(name)

    def pack_twice():
        other = os.fork()
        pack(tmp_path / "cache", tmp_path, NAMES, 8, logged_read)
        if other:
            _, status = os.waitpid(other, 0)
            assert status == 0

    assert call_in_a_child(pack_twice) == 0
    assert (tmp_path / "log").read_text().split() == list(NAMES)
    assert_whole(pack(tmp_path / "cache", tmp_path, NAMES, 8, read=None))


def shorten_images(cache):
    cut(cache / "images", 700)


def remove_images(cache):
    (cache / "images").unlink()


def shorten_index(cache):
    cut(cache / "index.jsonl", 5)


def damage_index(cache):
    index = cache / "index.jsonl"
    index.write_bytes(b"\xff" + index.read_bytes()[1:])


@pytest.mark.parametrize("damage", (shorten_images, remove_images, shorten_index, damage_index))
def test_a_damaged_cache_is_mended(tmp_path, capsys, damage):
    pack_names(tmp_path)
    damage(only_entry(tmp_path))

    packed = pack_names(tmp_path)

    assert_whole(packed)
    assert "is damaged; what is missing is packed again" in capsys.readouterr().out


def test_damaged_pixels_are_refused(folder, tmp_path):
    load_for_training(folder, 10, 10, tmp_path)
    pixels = np.memmap(only_entry(tmp_path) / "images", np.uint8, "r+")
    pixels[::3000] ^= 1
    pixels.flush()

    with pytest.raises(ValueError, match="is damaged; delete it, and it is made anew"):
        load_for_training(folder, 10, 10, tmp_path)


def test_a_folder_with_no_usable_image_is_packed(tmp_path):
    packed = pack_names(tmp_path, names=["03.png"])

    assert len(packed.images([])) == 0
    assert packed.look_up("03.png") == (None, "broken")
