"""Find a folder's image files, and tell which are for training and which for testing."""

import difflib
import os
import re
import unicodedata
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

import numpy as np
import torch

from references.reading import FORMATS, unsupported_reason
from utils.errors import UserError
from utils.images import printable
from utils.rng import fold_in

TEST_SHARE = 0.2  # of the images of a folder that has no split of its own
# What a folder of a split is called, in any case, also as one word of several: "DIV2K_train_HR".
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
MAX_FOLDERS_NAMED = 3  # of each split, in the line that says what is used
# Folders that systems make beside people's images, with copies or thumbnails of them.
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")


@dataclass
class Listing:
    """The files below a folder. Names are relative to it, with / on every system."""

    folder: Path
    names: tuple[str, ...] = ()  # of image files by their suffix, sorted
    suffixes: Counter[str] = field(default_factory=Counter)  # of the other files, lower case

    @property
    def file_count(self) -> int:
        """How many files there are, hidden ones and those of systems left out."""
        return len(self.names) + sum(self.suffixes.values())


@dataclass(frozen=True)
class Part:
    """Some files of a folder: those of a split, or all."""

    names: tuple[str, ...]
    names_to_pack: tuple[str, ...]  # the files that a packed folder holds together with them
    description: str  # which part of the folder this is, and why, as it is printed


def list_files(folder: Path, report: bool = True) -> Listing:
    """Find the files below a folder, or the one that is named in a folder's place.

    Links to folders are not followed. With report, prints what could not be opened.
    """
    if folder.is_file():
        if folder.suffix.lower() not in FORMATS:
            reason = unsupported_reason(folder.suffix)
            explanation = f" ({reason})" if reason else ""
            raise UserError(
                f"--references {folder}: expected a folder of images, not this file{explanation}"
            )
        return Listing(folder.parent, names=(folder.name,))
    if not folder.is_dir():
        if folder.exists():
            raise UserError(f"--references {folder}: expected a folder of images, not a device")
        raise FileNotFoundError(f"--references {folder}: no such folder; {_nearest(folder)}")
    listing = Listing(folder)
    names = []

    def print_skipped(path, reason):
        if report:
            print(f"skipped {printable(posix_name(Path(path), folder))} ({reason})")

    tree = os.walk(folder, onerror=lambda error: print_skipped(error.filename, error.strerror))
    for directory, folders, files in tree:
        folders[:] = [
            name
            for name in folders
            if not (_is_hidden(name) or _holds_figures(Path(directory, name)))
        ]
        for name in folders:
            path = os.path.join(directory, name)
            if os.path.islink(path):
                print_skipped(path, "links to folders are not followed")
        for name in files:
            suffix = Path(name).suffix.lower()
            if _is_hidden(name):
                continue
            if suffix in FORMATS:
                names.append(posix_name(Path(directory, name), folder))
            else:
                listing.suffixes[suffix] += 1
    listing.names = tuple(sorted(names))
    return listing


def posix_name(path: PurePath, folder: PurePath) -> str:
    """Return a file's name relative to the folder, with / on every system.

    The split is drawn by these names, so they must not depend on the system.
    """
    return path.relative_to(folder).as_posix()


def split_of(name: str) -> str | None:
    """Return 'train', 'val' or 'test' if one of a file's folders has that name, else None.

    The uppermost folder that names a split decides. One that names two of them names none.
    """
    for folder in PurePosixPath(name).parts[:-1]:
        splits = _splits_named(folder)
        if len(splits) == 1:
            return splits.pop()
    return None


def part_of(listing: Listing, part: str, data_seed: int) -> Part:
    """Return the files of a folder's part: 'train', 'held_out' or 'all'.

    Subfolders decide where some are named train and others test; without any named test, those
    named val are held out. Of another folder, 20 % of the files are drawn by data_seed.
    """
    names = listing.names
    if not names:
        raise UserError(
            f"{listing.folder} holds no image that can be read: {describe_suffixes(listing)}"
        )
    if part == "all":
        return Part(names, names, description="all of it")
    by_split = _group_by_split(names)
    held_out = held_out_split(listing)
    if held_out is None:
        return _drawn_part(listing, part, data_seed)
    if part == "train" and "train" not in by_split:
        folder = _split_folder_of(by_split[held_out][0])
        raise UserError(
            f"--references {listing.folder} has {folder}/ but no train/: add train/ beside it, "
            f"or give {listing.folder / folder} itself, of which 20 % are then held out"
        )
    chosen = by_split["train" if part == "train" else held_out]
    return Part(tuple(chosen), tuple(chosen), _describe_own_split(by_split, held_out))


def held_out_split(listing: Listing) -> str | None:
    """Return 'test' or 'val' if the folder has images of its own to test on, else None.

    A folder that only contains one of these words, such as "test shots", is taken for a split only
    where there is another to train on.
    """
    by_split = _group_by_split(listing.names)
    split = next((name for name in ("test", "val") if name in by_split), None)
    if split is None or "train" in by_split:
        return split
    top_folder = PurePosixPath(by_split[split][0]).parts[0]
    return split if top_folder.lower() in SPLIT_WORDS else None


def describe_suffixes(listing: Listing) -> str:
    """Name the suffixes of the files that are not read: '30 .heic, 2 .txt'."""
    words = []
    for suffix, count in listing.suffixes.most_common():
        reason = unsupported_reason(suffix)
        explanation = f" ({reason})" if reason else ""
        words.append(f"{count} {suffix or 'without a suffix'}{explanation}")
    return ", ".join(words) or "no files"


def _group_by_split(names):
    """Return {split, or None: names in their order}."""
    by_split = {}
    for name in names:
        by_split.setdefault(split_of(name), []).append(name)
    return by_split


def _describe_own_split(by_split, held_out):
    """Say which subfolders are which split."""
    words = []
    if "train" in by_split:
        words.append(f"{_folders_of(by_split['train'])} to train and validate")
    words.append(f"{_folders_of(by_split[held_out])} to test")
    unused = sum(
        len(names) for split, names in by_split.items() if split not in ("train", held_out)
    )
    if unused:
        words.append(f"{unused} images outside of them are not used")
    return ", ".join(words)


def _drawn_part(listing, part, data_seed):
    """Return the files that are drawn for training, or for the test."""
    names = listing.names
    if len(names) == 1:
        raise UserError(
            f"{listing.folder} holds a single image, which cannot be split into training and test"
        )
    checksums = torch.tensor([zlib.crc32(os.fsencode(name)) for name in names])
    order = np.argsort(fold_in(data_seed, checksums).numpy())
    test_count = max(1, round(TEST_SHARE * len(names)))
    chosen = order[:test_count] if part == "held_out" else order[test_count:]
    description = (
        f"{100 * TEST_SHARE:.0f} % are held out for the test, drawn by --data_seed {data_seed} "
        "(no subfolders with images are named train and test)"
    )
    return Part(tuple(names[i] for i in np.sort(chosen)), names, description)


def _splits_named(folder):
    """Return the splits that words of a folder's name stand for."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", folder)
    return {SPLIT_WORDS[word.lower()] for word in words if word.lower() in SPLIT_WORDS}


def _split_folder_of(name):
    """Return the path of the folder that names a file's split."""
    parts = PurePosixPath(name).parts
    for i, folder in enumerate(parts[:-1], start=1):
        if len(_splits_named(folder)) == 1:
            return "/".join(parts[:i])
    raise ValueError(f"{name} lies in no folder that names a split")


def _folders_of(names):
    """Name the folders that put files into a split: 'trainA/ and trainB/'."""
    folders = list(dict.fromkeys(f"{_split_folder_of(name)}/" for name in names))
    if len(folders) <= MAX_FOLDERS_NAMED:
        return " and ".join(folders)
    return f"{folders[0]} and {len(folders) - 1} others"


def _is_hidden(name):
    return name.startswith(".") or name in SYSTEM_FOLDERS


def _holds_figures(folder):
    """Tell whether a folder holds the figures of a tested run, in experiments/ beside images."""
    return folder.name == "visualizations" and (folder / "metrics.json").is_file()


def _nearest(folder):
    """Say how far the path to a missing folder exists, and which folder there has a like name."""
    parent = next(parent for parent in folder.parents if parent.is_dir() or not parent.name)
    missing = folder.relative_to(parent).parts[0]
    try:
        neighbours = [path.name for path in parent.iterdir() if path.is_dir()]
    except OSError:  # it may not be listed
        neighbours = []
    # macOS may write é as two characters, so that names that look alike are others.
    by_letters = {unicodedata.normalize("NFC", name): name for name in neighbours}
    letters = unicodedata.normalize("NFC", missing)
    similar = difflib.get_close_matches(letters, by_letters, n=1)
    question = (
        f"; did you mean {printable(str(parent / by_letters[similar[0]]))}?" if similar else ""
    )
    return f"the path exists up to {printable(str(parent))}{question}"
