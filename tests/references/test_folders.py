"""Which files of a folder are for training and which for the test, in people's layouts."""

import unicodedata
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from references.folders import Listing, held_out_split, list_files, part_of, posix_name, split_of
from references.sources import (
    choose_test_part,
    load_test_references,
    load_training_references,
    resolve_source,
)
from tests.helpers import write_images
from utils.errors import UserError

LAYOUTS = {  # folders of training images, and those of held-out ones; the rest is not used
    "torchvision": (["train"], ["val"], []),
    "three parts": (["train"], ["test"], ["val"]),
    "Roboflow": (["train/images"], ["valid/images"], []),
    "Roboflow, three parts": (["train/images"], ["test/images"], ["valid/images"]),
    "YOLO": (["images/train"], ["images/val"], []),
    "capitals": (["Train"], ["Test"], []),
    "upper case": (["TRAIN"], ["TEST"], []),
    "long words": (["training"], ["validation"], []),
    "training and testing": (["training"], ["testing"], []),
    "DIV2K": (["DIV2K_train_HR"], ["DIV2K_valid_HR"], []),
    "COCO": (["train2017"], ["val2017"], ["unlabeled2017"]),
    "CycleGAN": (["trainA", "trainB"], ["testA", "testB"], []),
    "class first": (["cats/train", "dogs/train"], ["cats/test", "dogs/test"], []),
    "class last": (["train/cats", "train/dogs"], ["test/cats", "test/dogs"], []),
    "camel": (["TrainImages"], ["TestImages"], []),
    "with loose files": (["train"], ["test"], ["."]),
    "a test inside train": (["train/a", "train/test"], ["val"], []),
}
UNSPLIT = {  # folders that name no split of their own
    "flat": ["."],
    "classes": ["cats", "dogs"],
    "train alone": ["train"],
    "train beside others": ["train", "more"],
    "a vehicle among classes": ["bus", "car", "train"],
    "words that only begin alike": ["trainers", "testimony", "value"],
    "both in one name": ["train_test"],
    "an album that is called test shots": ["test shots", "holidays"],
}


def make(root, folders, start=0):
    for k, folder in enumerate(folders):
        write_images(root / folder, 3, start=start + 10 * k)


def names_of(root, part):
    return set(part_of(list_files(root), part, data_seed=0).names)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folders_own_split_is_used_and_said(tmp_path, capsys, layout):
    train, held_out, unused = LAYOUTS[layout]
    make(tmp_path, train)
    make(tmp_path, held_out, start=100)
    make(tmp_path, unused, start=200)

    loaded, _ = load_training_references(str(tmp_path), 2, 1, 32, "none", 0)
    tested, _ = load_test_references(str(tmp_path), 99, 32, "none", 0, 0)

    assert all(any(name.startswith(f"{folder}/") for folder in train) for name in loaded.names)
    assert len(tested) == 3 * len(held_out)
    assert all(any(name.startswith(f"{folder}/") for folder in held_out) for name in tested.names)
    output = capsys.readouterr().out
    assert "to train and validate, " in output
    unused_count = 3 * len(unused)
    assert (f"{unused_count} images outside of them are not used" in output) == bool(unused)


@pytest.mark.parametrize("layout", UNSPLIT)
def test_another_folder_is_split_by_drawing_and_says_so(tmp_path, capsys, layout):
    make(tmp_path, UNSPLIT[layout])
    everything = set(list_files(tmp_path).names)

    train, test = (names_of(tmp_path, part) for part in ("train", "held_out"))
    load_training_references(str(tmp_path), 1, 1, 32, "none", 0)

    assert train | test == everything
    assert not train & test
    assert "20 % are held out for the test, drawn by --data_seed 0" in capsys.readouterr().out


@pytest.mark.parametrize("name", ("test", "val", "Test", "valid", "validation", "eval"))
def test_a_folder_without_images_to_train_on_names_both_ways_out(tmp_path, name):
    make(tmp_path, [name, "others"])

    with pytest.raises(UserError) as problem:
        names_of(tmp_path, "train")

    assert f"has {name}/ but no train/: add train/ beside it, or give" in str(problem.value)
    assert str(tmp_path / name) in str(problem.value)
    assert all(file.startswith(f"{name}/") for file in names_of(tmp_path, "held_out"))


@given(st.lists(st.text("abcdefgtrainsvl_ 0", min_size=1, max_size=12), min_size=1, max_size=4))
def test_every_file_is_in_one_part_at_most(folders):
    names = [f"{'/'.join(folders[: i + 1])}/{i}.png" for i in range(len(folders))]
    names += [f"more/{i}.png" for i in range(5)]
    listing = Listing(Path("x"), names=tuple(sorted(set(names))))
    # A folder that is called test, with nothing to train on, is refused.
    assume(held_out_split(listing) is None or "train" in map(split_of, listing.names))

    train = set(part_of(listing, "train", 0).names)
    held_out = set(part_of(listing, "held_out", 0).names)

    assert not train & held_out
    assert train | held_out <= set(listing.names)


def test_names_are_posix_on_windows():
    folder = PureWindowsPath("C:/Users/me/photos")

    assert posix_name(folder / "c" / "0.png", folder) == "c/0.png"
    assert split_of(posix_name(folder / "Train" / "0.png", folder)) == "train"


@pytest.mark.parametrize(
    "name",
    (
        ".hidden.png",
        "._photo.png",
        ".ipynb_checkpoints/photo-checkpoint.png",
        "__MACOSX/photo.png",
        "@eaDir/photo.png/SYNOPHOTO_THUMB_M.png",
        "$RECYCLE.BIN/photo.png",
        ".git/photo.png",
    ),
)
def test_files_that_systems_make_are_not_taken(tmp_path, name):
    write_images(tmp_path, 2)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((tmp_path / "000.png").read_bytes())

    listing = list_files(tmp_path)

    assert listing.names == ("000.png", "001.png")
    assert listing.file_count == 2


def test_files_that_are_not_read_are_counted_by_suffix(tmp_path, capsys):
    write_images(tmp_path, 5)
    for name in ("a.mov", "b.MOV", "notes.txt", "README"):
        (tmp_path / name).write_text("no image")

    load_training_references(str(tmp_path), 3, 1, 32, "none", 0)

    output = capsys.readouterr().out
    assert ", 9 files, 4 used" in output
    for words in ("2 .mov (", "1 .txt (", "1 without a suffix ("):
        assert words in output


@pytest.mark.parametrize("name", ("photos", "cifar10", "auto"))
def test_a_folder_with_a_sources_name_is_refused_with_both_ways_out(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / name, 3)

    with pytest.raises(UserError) as problem:
        resolve_source(name, "none")

    for way_out in (f"./{name} for the folder", f"builtin:{name} for"):
        assert way_out in str(problem.value)
    assert resolve_source(f"./{name}", "none") == (str(tmp_path / name), None)
    if name != "auto":
        assert resolve_source(f"builtin:{name}", "none") == (name, None)


def test_an_unknown_builtin_source_is_refused():
    with pytest.raises(UserError, match="there are builtin:auto, builtin:cifar10 and"):
        resolve_source("builtin:imagenet", "none")


def test_a_file_in_place_of_a_folder_is_one_image(tmp_path):
    write_images(tmp_path, 3)

    tested, _ = load_test_references(str(tmp_path / "001.png"), 9, 32, "none", 0, 0, part="all")

    assert tested.names == ("001.png",)
    with pytest.raises(UserError, match="expected a folder of images, not this file"):
        list_files(Path(__file__))


def test_a_missing_folder_says_how_far_the_path_goes(tmp_path):
    with pytest.raises(FileNotFoundError) as problem:
        list_files(tmp_path / "My Drive" / "pics")

    assert f"no such folder; the path exists up to {tmp_path}" in str(problem.value)


def test_a_missing_folder_names_one_of_like_name(tmp_path):
    (tmp_path / "holidays").mkdir()

    with pytest.raises(FileNotFoundError, match="did you mean .*holidays"):
        list_files(tmp_path / "holydays" / "2024")


@pytest.mark.parametrize("name", ("CIFAR10", "cifar-10", "Photos"))
def test_a_sources_name_in_other_letters_is_recognised(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UserError, match="did you mean (cifar10|photos)"):
        resolve_source(name, "none")


def test_an_archive_is_to_be_unpacked(tmp_path):
    (tmp_path / "pics.zip").touch()

    with pytest.raises(UserError, match="not this file .an archive: unpack it"):
        list_files(tmp_path / "pics.zip")


# Which part of a folder is tested


def digests_of_training(folder, train=4, val=2):
    references = load_training_references(str(folder), train, val, 32, "none", 0)
    return references[0].digests + references[1].digests


def part_for(folder, own, digests):
    return choose_test_part(str(folder), str(own), digests, image_size=32, data_seed=0)


def test_an_unseen_folder_is_tested_whole(tmp_path):
    write_images(tmp_path / "own", 20)
    write_images(tmp_path / "other", 50, start=100)
    digests = digests_of_training(tmp_path / "own")

    part = part_for(tmp_path / "other", tmp_path / "own", digests)
    tested, left_out = load_test_references(
        str(tmp_path / "other"), 500, 32, "none", 0, 0, exclude=digests, part=part
    )

    assert len(tested) == 50
    assert left_out == 0


def test_an_unseen_folder_of_one_image_is_tested(tmp_path):
    write_images(tmp_path / "own", 20)
    write_images(tmp_path / "one", 1, start=100)

    assert part_for(tmp_path / "one", tmp_path / "own", digests_of_training(tmp_path / "own")) == (
        "all"
    )


def test_an_unseen_folder_with_test_images_keeps_to_them(tmp_path):
    write_images(tmp_path / "own", 20)
    digests = digests_of_training(tmp_path / "own")
    for name in ("alone", "split"):
        write_images(tmp_path / name / "test", 4, start=100)
    write_images(tmp_path / "split" / "train", 4, start=200)

    for name in ("alone", "split"):
        assert part_for(tmp_path / name, tmp_path / "own", digests) == "held_out"
        tested, _ = load_test_references(str(tmp_path / name), 9, 32, "none", 0, 0)
        assert len(tested) == 4


def test_a_runs_folder_that_moved_is_tested_on_the_same_images(tmp_path):
    write_images(tmp_path / "own", 30)
    digests = digests_of_training(tmp_path / "own")
    before, _ = load_test_references(str(tmp_path / "own"), 99, 32, "none", 0, 0)
    (tmp_path / "own").rename(tmp_path / "moved")

    part = part_for(tmp_path / "moved", tmp_path / "own", digests)
    after, _ = load_test_references(str(tmp_path / "moved"), 99, 32, "none", 0, 0, part=part)

    assert part == "held_out"
    assert after.digests == before.digests


def test_images_that_were_trained_on_are_left_out_of_the_whole(tmp_path, capsys):
    write_images(tmp_path / "own", 20)
    digests = digests_of_training(tmp_path / "own")
    write_images(tmp_path / "grown" / "a", 40)  # the first 20 are those of the run

    part = part_for(tmp_path / "grown", tmp_path / "own", digests)
    tested, left_out = load_test_references(
        str(tmp_path / "grown"), 500, 32, "none", 0, 0, exclude=digests, part="all"
    )

    assert part in ("all", "held_out")
    assert left_out == 6
    assert len(tested) == 34
    assert "left out: 6 that the run was trained or validated on" in capsys.readouterr().out


def test_all_is_for_folders():
    with pytest.raises(UserError, match="--test_part all is for a folder"):
        load_test_references("photos", 9, 32, "none", 0, 0, part="all")


@pytest.mark.parametrize(
    "folders, words",
    (
        (["trainA", "trainB"], "trainA/ and trainB/ to train"),
        ([f"{name}/train" for name in "abcd"], "a/train/ and 3 others to train"),
    ),
)
def test_every_folder_of_a_split_is_counted(tmp_path, folders, words):
    make(tmp_path, [*folders, "test"])

    assert words in part_of(list_files(tmp_path), "train", 0).description


def test_figures_of_tested_runs_are_no_references(tmp_path):
    make(tmp_path, [".", "experiments/run/visualizations", "visualizations"])
    (tmp_path / "experiments" / "run" / "visualizations" / "metrics.json").write_text("{}")

    folders = {Path(name).parent.as_posix() for name in list_files(tmp_path).names}

    assert folders == {".", "visualizations"}


def test_archives_say_how_to_make_images_of_them(tmp_path):
    (tmp_path / "images.zip").write_bytes(b"PK")

    with pytest.raises(UserError, match=r"1 \.zip \(an archive: unpack it\)"):
        names_of(tmp_path, "train")


def test_a_folder_whose_letters_are_encoded_otherwise_is_named(tmp_path):
    (tmp_path / unicodedata.normalize("NFC", "été à côté")).mkdir()

    with pytest.raises(FileNotFoundError, match="did you mean"):
        list_files(tmp_path / unicodedata.normalize("NFD", "été à côté"))
