"""Whether references are crops at their own scale or whole scenes, and how large they may be."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from references.folders import list_files
from references.photos import SHARP_PHOTO, SMALLEST_PHOTO
from references.reading import UNREADABLE, open_image
from utils.cli import int_in_range
from utils.errors import UserError
from utils.images import MIN_SIDE

CROPS = ("native", "whole")
NATIVE_FACTOR = 2  # images whose shorter side is larger than this many references' are cropped
SAMPLED_FILES = 25  # of a folder, whose headers tell how large its images are


@dataclass(frozen=True)
class NativeCrops:
    """How references are cropped at their own scale."""

    working_size: int = 512  # pixels: photographs with a larger shorter side are shrunk to it
    per_reference: int = 4  # crops of each photograph


def add_crop_flags(parser: argparse.ArgumentParser) -> None:
    """Add --crop and --working_size, which decide what is seen of a photograph."""
    parser.add_argument(
        "--crop",
        choices=("auto", *CROPS),
        default="auto",
        help="native: square crops of photographs at their own scale; whole: whole scenes, shrunk; "
        "auto: native where the images are larger than twice --image_size",
    )
    parser.add_argument(
        "--working_size",
        type=int_in_range(MIN_SIDE),
        default=NativeCrops.working_size,
        help="for native crops, photographs are first shrunk to this shorter side, pixels",
    )


def check_working_size(image_size: int, working_size: int) -> None:
    """Raise UserError where no crop of image_size fits into photographs of working_size."""
    if image_size > working_size:
        raise UserError(
            f"--image_size {image_size} is larger than --working_size {working_size}, to "
            "which photographs are shrunk; give a larger --working_size, or a smaller --image_size"
        )


def choose_crop(source: str, image_size: int) -> tuple[str, str]:
    """Return 'native' or 'whole', and why, as it is printed.

    source is what resolve_source returned. Crops at their own scale are taken where images are
    larger than twice image_size.
    """
    limit = NATIVE_FACTOR * image_size
    if source == "cifar10":
        return "whole", "CIFAR-10's images are taken whole"
    if source == "photos":
        side = SHARP_PHOTO
    else:
        sides = list(_shorter_sides(Path(source)))
        if not sides:
            return "whole", "no image could be opened"
        side = int(median(sides))
    if side > limit:
        return "native", f"a shorter side of {side} pixels is more than twice {image_size}"
    return "whole", f"a shorter side of {side} pixels is not more than twice {image_size}"


def largest_side(source: str, at_most: int) -> int:
    """Return the largest image size that the source allows, up to at_most pixels.

    A folder's size is that of its first image that can be opened.
    """
    if source == "cifar10":
        return min(at_most, 32)
    if source == "photos":
        return min(at_most, SMALLEST_PHOTO)
    return min(at_most, next(_shorter_sides(Path(source), every_file=True), at_most))


def too_small(size: tuple[int, int], side: int) -> str:
    """Return why an image of this height and width has no crop of this side, or ""."""
    height, width = size
    return f"{width}×{height} is smaller than {side}×{side}" if min(size) < side else ""


def _shorter_sides(folder: Path, every_file: bool = False) -> Iterator[int]:
    """Yield the shorter sides of a folder's images: of all that can be opened, or of a sample."""
    listing = list_files(folder, report=False)
    stride = 1 if every_file else max(1, len(listing.names) // SAMPLED_FILES)
    for name in listing.names[::stride]:
        try:
            with open_image(listing.folder / name) as image:
                yield min(image.size)
        except UNREADABLE:
            continue  # its name is printed when the references are loaded
