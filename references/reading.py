"""Read one image file as an array of 8-bit RGB, or say why it cannot be used."""

import os
import stat
import struct
import warnings
import zlib
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError, features
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from utils.errors import describe_exception
from utils.images import one_line, to_rgb

FORMATS = {  # Pillow's name of a format, by the file's suffix
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".mpo": "JPEG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".dib": "DIB",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".gif": "GIF",
    ".avif": "AVIF",
    ".heic": "HEIF",
    ".heif": "HEIF",
    ".hif": "HEIF",
    ".jp2": "JPEG2000",
    ".j2k": "JPEG2000",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".pbm": "PPM",
    ".pnm": "PPM",
    ".tga": "TGA",
}
# Files that people may take for images, by suffix: why they are not read, and the way out.
_RAW = "a camera's raw data: develop it and export it as TIFF or PNG"
_VECTORS = "a drawing without pixels: export it as PNG"
_LAYERS = "a project of an image editor: export it as PNG"
_HIGH_RANGE = "no 8-bit image: export it as PNG"
_VIDEO = "a video: export frames as PNG"
_ARCHIVE = "an archive: unpack it"
NOT_READ = {
    **dict.fromkeys(
        (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".raw", ".pef"), _RAW
    ),
    **dict.fromkeys((".svg", ".eps", ".ai", ".pdf"), _VECTORS),
    **dict.fromkeys((".psd", ".xcf", ".kra", ".afphoto"), _LAYERS),
    **dict.fromkeys((".exr", ".hdr", ".npy", ".npz", ".dcm", ".jxl"), _HIGH_RANGE),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"), _VIDEO),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".parquet"), _ARCHIVE),
    ".jxl": "JPEG XL: export it as PNG",
    ".aae": "a phone's notes on an edited photo",
    ".xmp": "an editor's notes on a photo",
}
# Larger files are refused, because Pillow reads some formats into memory at once. Pillow itself
# refuses images of more than 179 million pixels.
MAX_BYTES = 2**30
# What Pillow raises for damaged files by design. Its message tells users enough.
FORESEEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# Decoders raise whatever an odd file makes them raise, so that no list of exceptions is complete.
UNREADABLE = Exception
_BEGINNINGS = {  # of files of a format
    "PNG": (b"\x89PNG",),
    "JPEG": (b"\xff\xd8",),
    "WEBP": (b"RIFF",),
    "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "GIF": (b"GIF8",),
}
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_SAMPLE_FORMATS = {1: "whole-number", 2: "signed", 3: "float", 5: "complex", 6: "complex"}


def read_image(path: str | Path, side: int) -> tuple[np.ndarray | None, str | None]:
    """Read an image file at this size.

    Returns ((side, side, 3) uint8, None), or (None, the reason why it cannot be used). Of a file
    with several frames or pages the first one counts.
    """
    return _read(path, lambda image: fit(image, side))


def read_photograph(path: str | Path, working_size: int) -> tuple[np.ndarray | None, str | None]:
    """Read the whole of an image file, shrunk to a shorter side of working_size at most.

    Returns ((H, W, 3) uint8, None), or (None, the reason why it cannot be used).
    """
    return _read(path, lambda image: shrink(image, working_size))


def _read(path, convert):
    """Return (what `convert` makes of a file's RGB image, None), or (None, the reason)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's are about metadata, or images that are read
            with open_image(path) as image:
                return convert(to_rgb(image)), None
    except FORESEEN as problem:
        return None, getattr(problem, "strerror", None) or one_line(problem)
    except UNREADABLE as problem:
        return None, describe_exception(problem)


def open_image(path: str | Path) -> Image.Image:
    """Open an image file of one of FORMATS, whatever its suffix says, and read its header only.

    Raises one of UNREADABLE if the file is none.
    """
    path = Path(path)
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file")  # opening a pipe would wait for ever
    if status.st_size > MAX_BYTES:
        raise ValueError(f"{status.st_size} bytes, more than {MAX_BYTES}")
    try:
        return Image.open(path, formats=_formats_to_read())
    except UnidentifiedImageError as problem:
        raise ValueError(_why_not_identified(path)) from problem


def unsupported_reason(suffix: str) -> str | None:
    """Return why files with this suffix (".dng") are not read, or None for other suffixes."""
    return NOT_READ.get(suffix.lower())


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


def shrink(image: Image.Image, working_size: int) -> np.ndarray:
    """Shrink an RGB image so that its shorter side is working_size pixels at most.

    Returns (H, W, 3) uint8. So a pixel of a large photograph, which the camera has interpolated
    and smoothed, becomes sharp. A smaller image stays as it is.
    """
    short = min(image.size)
    if short <= working_size:
        return np.asarray(image)
    width, height = (round(length * working_size / short) for length in image.size)
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


@cache
def _formats_to_read():
    """Return Pillow's names of the formats that can be read here."""
    formats = set(FORMATS.values())
    try:
        from pillow_heif import register_heif_opener  # an extra, for photos of phones
    except ImportError:
        formats.discard("HEIF")
    else:
        register_heif_opener()
    if not features.check("avif"):
        formats.discard("AVIF")
    return tuple(sorted(formats))


def _why_not_identified(path):
    """Say why Pillow does not know a file's format, as far as its first bytes tell."""
    with open(path, "rb") as file:
        beginning = file.read(12)
    if not beginning:
        return "an empty file"
    readable = _formats_to_read()
    named = FORMATS.get(path.suffix.lower())
    brand = beginning[8:12] if beginning[4:8] == b"ftyp" else b""
    if "HEIF" not in readable and (brand in _HEIF_BRANDS or not brand and named == "HEIF"):
        return "HEIC needs one more package: pip install pillow-heif"
    if "AVIF" not in readable and (brand.startswith(b"avi") or named == "AVIF"):
        return "AVIF needs Pillow 11.3 or later: pip install --upgrade pillow"
    for name, beginnings in _BEGINNINGS.items():
        if beginning.startswith(beginnings):
            kind = _tiff_kind(path) if name == "TIFF" else ""
            return kind or f"a damaged {name} file"
    return f"not a {named} file, nor another image" if named else "not an image"


def _tiff_kind(path):
    """Describe the samples of a TIFF file that Pillow does not read; "" where they are damaged."""
    try:
        with open(path, "rb") as file:
            directory = ImageFileDirectory_v2(file.read(8))
            file.seek(directory.next)
            directory.load(file)
            bits = directory.get(258, (1,))  # BitsPerSample
            sample_format = directory.get(339, (1,))[0]  # SampleFormat
    except UNREADABLE:
        return ""
    kind = _SAMPLE_FORMATS.get(sample_format, "unknown")
    return f"a TIFF file of {kind} samples of {bits[0]} bits: save it with 8 or 16 bits"
