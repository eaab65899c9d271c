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
from tests.references.test_sources import write_images
from tests.scripts.test_scripts import script, train

NAMES = tuple(f"{i:02d}.png" for i in range(40))


def read(name):
    """Pixels that follow from the name; two of the files are unusable."""
    i = int(name[:2])
    return (None, "broken") if i in (3, 30) else (np.full((3, 8, 8), i, np.uint8), None)


USABLE = tuple(name for name in NAMES if read(name)[1] is None)


def is_whole(packed, names=USABLE):
    expected = np.stack([read(name)[0] for name in names])
    return np.array_equal(packed.images(names)[torch.arange(len(names))], expected)


@pytest.fixture(scope="module")
def folder(module_folder):
    """30 images, copies of six of them, a broken one and a small one."""
    write_images(module_folder / "some", 30)
    write_images(module_folder / "copies", 6)
    (module_folder / "broken.png").write_bytes(b"no image")
    Image.new("RGB", (20, 99)).save(module_folder / "small.png")
    return module_folder


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(1, 10), st.integers(1, 10), st.integers(0, 2**62), st.integers(0, 2**62))
def test_the_same_references_are_taken_with_the_cache_as_without(
    folder, train, val, data_seed, seed
):
    found = []
    for cache_dir in (None, folder / "cache"):
        parts = load_training_references(str(folder), train, val, 32, "none", data_seed, cache_dir)
        known = parts[0].digests + parts[1].digests
        test, dropped = load_test_references(
            str(folder), 6, 32, "none", data_seed, seed, known, cache_dir
        )
        found.append(
            [
                (part.names, part.digests, DistortedImageDataset(part).digest())
                for part in (*parts, test)
            ]
        )
        found[-1].append(dropped)
    assert found[0] == found[1]


def test_what_is_skipped_is_told_with_the_cache_as_without(folder, tmp_path, capsys):
    told = []
    for cache_dir in (None, tmp_path):
        with pytest.raises(ValueError, match="has .* for training"):
            load_training_references(str(folder), 99, 1, 32, "none", 0, cache_dir)
        told.append(capsys.readouterr().out.splitlines())
    assert [line for line in told[1] if not line.startswith("packed 36 images")] == told[0]
    assert told[0] == ["skipped small.png (20×99 is smaller than 32×32)",
                       f"folder {folder.name}: 1 unusable images and 3 copies of others skipped"]  # fmt: skip


@pytest.mark.slow
def test_a_run_with_a_cache_has_the_digests_of_one_without(tmp_path):
    write_images(tmp_path / "images", 30, size=(16, 16))
    train(
        tmp_path,
        "packed",
        "--references images --distortions_per_image 5 --epochs 1 --cache_dir cache",
    )
    script(
        "test_with_viz.py --experiment experiments/packed --test_samples 5 --skip_tsne --cache_dir cache",
        tmp_path,
    )
    assert len(list((tmp_path / "cache").iterdir())) == 1
    where, run = (
        (str(tmp_path / "images"), 12, 6, 16, "none", 0),
        tmp_path / "experiments" / "packed",
    )
    train_part, val_part = load_training_references(*where)
    test_part, _ = load_test_references(str(tmp_path / "images"), 5, 16, "none", 0, 0)
    datasets = (DistortedImageDataset(train_part, flip=True, cutmix=True),
                DistortedImageDataset(val_part, split="val", redistort=False),
                DistortedImageDataset(test_part, split="test", redistort=False))  # fmt: skip
    digests = [dataset.digest() for dataset in datasets]
    config = json.loads((run / "config.json").read_text())
    assert config["digest"] == digests[0] + digests[1] and "cache_dir" not in config
    assert json.loads((run / "visualizations/metrics.json").read_text())["digest"] == digests[2]


def test_packed_images_are_indexed_like_a_tensor(tmp_path):
    images = pack(tmp_path, tmp_path, NAMES, 8, read).images(["05.png", "01.png", "39.png"])
    expected = torch.tensor([5, 1, 39], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 8, 8)
    assert images.shape == expected.shape and len(images) == 3
    for index in (
        0,
        -1,
        torch.tensor(2),
        torch.tensor([2, 0, 2]),
        torch.tensor([True, False, True]),
    ):
        assert torch.equal(images[index], expected[index])
    assert torch.equal(images[1:][torch.arange(2)], expected[1:])
    images[0].zero_()  # a copy
    assert torch.equal(images[0], expected[0])


def test_a_file_larger_than_memory_is_read_by_index(tmp_path):
    """A sparse file of 1 TB: all zeros but for one row."""
    rows, at = 2**40 // (3 * 64 * 64), 2**26
    with open(tmp_path / "images", "wb") as file:
        file.truncate(rows * 3 * 64 * 64)
        file.seek(at * 3 * 64 * 64)
        file.write(b"\7" * 3 * 64 * 64)
    images = PackedImages(
        PackedFile(tmp_path / "images", rows, 64), torch.tensor([at - 1, at, at + 1])
    )
    assert images[torch.arange(3)][:, 0, 0, 0].tolist() == [0, 7, 0]


def resident_memory():
    """{"RssAnon", "RssFile": MB} of this process."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    kinds = ("RssAnon:", "RssFile:")
    return {line[0][:-1]: int(line[1]) / 1000 for line in lines if line[0] in kinds}


def test_what_was_read_leaves_the_process(tmp_path):
    count, bytes_each = 4000, 3 * 64 * 64  # 49 MB
    (tmp_path / "images").write_bytes(bytes(count * bytes_each))
    file, before = (PackedFile(tmp_path / "images", count, 64), sum(resident_memory().values()))
    for rows in np.arange(count).reshape(-1, 100):
        file.take(rows)
    assert sum(resident_memory().values()) - before < count * bytes_each / 5e6


def test_a_packed_file_that_is_cut_short_under_a_run_is_told(tmp_path):
    (tmp_path / "images").write_bytes(bytes(range(192)) * 4)
    file = PackedFile(tmp_path / "images", 4, 8)
    assert torch.equal(file.take([3, 0]), file.take([0, 3])) and file.take(
        np.empty(0, int)
    ).shape == (0, 3, 8, 8)
    cut(tmp_path / "images", 1)
    assert file.take(2).permute(1, 2, 0).flatten().tolist() == list(range(192))
    with pytest.raises(ValueError, match="images is damaged; delete its folder"):
        file.take([2, 3])


def test_a_folder_is_read_once_and_a_changed_one_again(folder, tmp_path):
    where = str(folder), 5, 5, 32, "none", 0
    for _ in range(2):
        load_training_references(*where, tmp_path)
        (cache,) = tmp_path.iterdir()
        made = (cache / "images").stat().st_mtime_ns
    assert (cache / "images").stat().st_mtime_ns == made and cache.name.startswith("32px_")
    os.utime(folder / "small.png", (1, 1))
    load_training_references(*where, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def in_a_child(function):
    """Call the function in a forked process; returns how that ended."""
    child = os.fork()
    if child == 0:
        function()
        os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_packing_goes_on_after_a_kill(tmp_path):
    seen = []

    def dying_read(name):
        if name == NAMES[25]:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(name)

    def counted_read(name):
        seen.append(name)
        return read(name)

    many = [f"{i:02d}.{j}" for i in range(40) for j in range(40)]
    names = tuple(f"{name}.png" for name in many[: 40 * 25]) + NAMES[25:]
    assert in_a_child(lambda: pack(tmp_path, tmp_path, names, 8, dying_read)) == signal.SIGKILL
    assert is_whole(
        pack(tmp_path, tmp_path, names, 8, counted_read), [n for n in names if read(n)[1] is None]
    )
    assert 0 < len(seen) < len(names) / 2


def test_packing_goes_on_after_an_interruption_anywhere(tmp_path):
    for stop in range(0, 40, 6):

        def interrupted_read(name, stop=stop):
            if name == NAMES[stop]:
                raise KeyboardInterrupt
            return read(name)

        with pytest.raises(KeyboardInterrupt):
            pack(tmp_path, tmp_path, NAMES, 8, interrupted_read)
        (cache,) = tmp_path.iterdir()
        assert not (cache / "index.jsonl").exists()
        assert len((cache / "index.part").read_bytes().splitlines()) == stop
    assert is_whole(pack(tmp_path, tmp_path, NAMES, 8, read))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_of_two_processes_one_packs_and_the_other_waits(tmp_path):
    def logged_read(name):
        with open(tmp_path / "log", "a") as log:
            log.write(name + "\n")
        return read(name)

    def both():
        other = os.fork()
        pack(tmp_path / "cache", tmp_path, NAMES, 8, logged_read)
        if other:
            assert os.waitpid(other, 0)[1] == 0

    assert in_a_child(both) == 0
    assert (tmp_path / "log").read_text().split() == list(NAMES)
    assert is_whole(pack(tmp_path / "cache", tmp_path, NAMES, 8, None))


def cut(path, size):
    os.truncate(path, path.stat().st_size - size)


@pytest.mark.parametrize("damage", (
    lambda cache: cut(cache / "images", 700),
    lambda cache: (cache / "images").unlink(),
    lambda cache: cut(cache / "index.jsonl", 5),
    lambda cache: (cache / "index.jsonl").write_bytes(b"\xff" + (cache / "index.jsonl").read_bytes()[1:]),
), ids=("short images", "no images", "short index", "damaged index"))  # fmt: skip
def test_a_damaged_cache_is_mended(tmp_path, capsys, damage):
    pack(tmp_path, tmp_path, NAMES, 8, read)
    (cache,) = tmp_path.iterdir()
    damage(cache)
    assert is_whole(pack(tmp_path, tmp_path, NAMES, 8, read))
    assert "is damaged; what is missing is packed again" in capsys.readouterr().out


def test_damaged_pixels_are_told(folder, tmp_path):
    where = str(folder), 10, 10, 32, "none", 0
    load_training_references(*where, tmp_path)
    (cache,) = tmp_path.iterdir()
    pixels = np.memmap(cache / "images", np.uint8, "r+")
    pixels[::3000] ^= 1
    pixels.flush()
    with pytest.raises(ValueError, match="is damaged; delete it, and it is made anew"):
        load_training_references(*where, tmp_path)


def test_a_folder_with_no_usable_image_is_packed_too(tmp_path):
    assert len(pack(tmp_path, tmp_path, NAMES[3:4], 8, read).images([])) == 0
