"""Convert images: between layouts in memory, and from any mode of Pillow to 8-bit RGB."""

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps

MIN_SIDE = 8  # pixels: smaller images are neither distorted nor scored


def to_nhwc(images: torch.Tensor) -> torch.Tensor:
    """Convert (B, 3, H, W) to contiguous (B, H, W, 3), without a copy if memory has this order."""
    return images.permute(0, 2, 3, 1).contiguous()


def to_nchw(images: torch.Tensor) -> torch.Tensor:
    """Convert (B, H, W, 3) to (B, 3, H, W), without a copy."""
    return images.permute(0, 3, 1, 2)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a PIL image of any mode to upright 8-bit RGB.

    The EXIF orientation is applied, 16 bits are rounded to 8, and transparent pixels become
    white. An image that needs no change is returned without a copy, because it may be large.
    Raises ValueError for pixels of 32 bits, because their range is not known.
    """
    # Before Pillow 11.3, a PNG of 16 bits has mode I.
    has_16_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    image.load()  # some formats store EXIF data after the pixels
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if has_16_bits:
        values = np.asarray(image, np.uint32)
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    elif image.mode in ("F", "I"):
        raise ValueError(f"pixels of 32 bits (mode {image.mode}) have no known range")
    has_alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    if has_alpha:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def printable(name: str) -> str:
    """Return a file's name, with escapes if it holds characters that a terminal cannot show."""
    return name if name.isprintable() else ascii(name)[1:-1]


def one_line(problem: BaseException) -> str:
    """Return an exception's message in one line, or its type's name if there is no message."""
    return " ".join(str(problem).split()) or type(problem).__name__
