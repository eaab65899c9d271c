"""Convert images: between layouts in memory, and from any mode of Pillow to 8-bit RGB."""

import warnings

import numpy as np
import torch
from PIL import ExifTags, Image

MIN_SIDE = 8  # pixels: smaller images are neither distorted nor scored
_TURNS = {  # how pixels are turned upright, by the EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TIFF_PHOTOMETRIC = 262
_TIFF_MAX_SAMPLE = 281


def to_nhwc(images: torch.Tensor) -> torch.Tensor:
    """Convert (B, 3, H, W) to contiguous (B, H, W, 3), without a copy if memory has this order."""
    return images.permute(0, 2, 3, 1).contiguous()


def to_nchw(images: torch.Tensor) -> torch.Tensor:
    """Convert (B, H, W, 3) to (B, 3, H, W), without a copy."""
    return images.permute(0, 3, 1, 2)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a PIL image of any mode to upright 8-bit RGB.

    Its pixels are turned by the EXIF orientation, 16 bits are rounded to 8, and transparent pixels
    become white. Of several frames or pages the first counts. An image that needs no change is
    returned without a copy, because it may be large. Raises ValueError for pixels whose range is
    not known.
    """
    # Before Pillow 11.3, a PNG of 16 bits has mode I.
    has_16_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    was_16_bits = any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    _load(image)  # some formats store EXIF data after the pixels
    turn = _TURNS.get(_orientation(image))
    if has_16_bits:
        image = _reduce_16_bits(image)
    elif image.mode in ("F", "I"):
        raise ValueError(f"pixels of 32 bits (mode {image.mode}) have no known range")
    elif was_16_bits and image.mode == "RGB":  # Pillow has kept the upper byte of each value
        _check_range(256 * int(np.asarray(image).max()) + 255)
    if turn is not None:
        image = image.transpose(turn)
    has_alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    if has_alpha:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _load(image):
    """Decode the pixels."""
    try:
        image.load()
    except TypeError:
        # Pillow turns a TIFF's pixels here and writes its EXIF block anew, which fails for an
        # oddly written tag. The pixels are decoded by then; if not, this raises the error again.
        image.load()


def _orientation(image):
    """Return the EXIF orientation, 1 to 8; 1, upright, where it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a damaged block
            value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever a damaged block makes its parser raise, the pixels are whole
        return 1
    return value if value in _TURNS else 1


def _reduce_16_bits(image):
    """Round pixels of 16 bits to 8, as an image of mode L."""
    values = np.asarray(image, np.uint32)
    highest = 65535
    if image.format == "TIFF":
        highest = image.tag_v2.get(_TIFF_MAX_SAMPLE, (highest,))[0]
    if highest == 65535:
        _check_range(values.max())
        reduced = (values + 128) // 257
    else:
        reduced = (values.clip(0, highest) * 255 + highest // 2) // highest
    if image.format == "TIFF" and image.tag_v2.get(_TIFF_PHOTOMETRIC) == 0:
        reduced = 255 - reduced  # white is zero
    return Image.fromarray(reduced.astype(np.uint8))


def _check_range(highest):
    """Raise ValueError where values of 16 bits seem to have fewer: they would be nearly black."""
    for bits in (10, 12, 14):
        if 0 < highest < 2**bits:
            raise ValueError(
                f"a 16-bit file whose values end at {highest}, as if it had {bits} bits: "
                "save it with values up to 65535, or with 8 bits"
            )


def printable(name: str) -> str:
    """Return a file's name, with escapes if it holds characters that a terminal cannot show."""
    return name if name.isprintable() else ascii(name)[1:-1]


def one_line(problem: BaseException) -> str:
    """Return an exception's message in one line, or its type's name if there is no message."""
    return " ".join(str(problem).split()) or type(problem).__name__
