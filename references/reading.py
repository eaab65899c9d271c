"""Read one image file as an array of 8-bit RGB, or say why it cannot be used."""

import os
import stat
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from utils.images import one_line, to_rgb

FORMATS = {  # Pillow's name of a format, by the file's suffix
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
# Larger files are refused, because Pillow reads some formats into memory at once. Pillow itself
# refuses images of more than 179 million pixels.
MAX_BYTES = 2**30
# Pillow raises these for damaged files: a MemoryError, for example, if a header announces far more
# data than there is.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    MemoryError,
)


def read_image(path: str | Path, side: int) -> tuple[np.ndarray | None, str | None]:
    """Read an image file at this size.

    Returns ((side, side, 3) uint8, None), or (None, the reason why it cannot be used).
    """
    try:
        with open_image(path) as image:
            return fit(to_rgb(image), side), None
    except UNREADABLE as problem:
        return None, one_line(problem)


def open_image(path: str | Path) -> Image.Image:
    """Open an image file and read its header only.

    Raises one of UNREADABLE if the file is no still image of the format that its suffix names.
    """
    path = Path(path)
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")  # opening a pipe would wait for ever
    if status.st_size > MAX_BYTES:
        raise ValueError(f"{status.st_size} bytes, more than {MAX_BYTES}")
    image_format = FORMATS[path.suffix.lower()]
    try:
        image = Image.open(path, formats=(image_format,))
    except UnidentifiedImageError as problem:
        raise ValueError(f"not a {image_format} file") from problem
    if image_format in ("PNG", "WEBP") and getattr(image, "is_animated", False):
        image.close()
        raise ValueError("animated")
    return image


def fit(image: Image.Image, side: int) -> np.ndarray:
    """Shrink an RGB image's shorter side to `side` and keep the centre square.

    Returns (side, side, 3) uint8. An image is never enlarged, because that would blur it: a
    smaller image raises ValueError.
    """
    short = min(image.size)
    if short < side:
        raise ValueError(f"{image.width}×{image.height} is smaller than {side}×{side}")
    left = (image.width - short) / 2
    top = (image.height - short) / 2
    if short == side:
        return np.asarray(image)[int(top) : int(top) + side, int(left) : int(left) + side]
    box = (left, top, left + short, top + short)
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS, box=box))


def unsupported_reason(suffix: str) -> str | None:
    """Return why files with this suffix are not read, or None if they are no images."""
    return None
