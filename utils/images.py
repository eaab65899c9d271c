"""Images in memory: their layouts, and any image that Pillow opens as upright 8-bit RGB."""

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps

MIN_SIDE = 8  # pixels, of any image that is distorted or scored


def to_nhwc(images: torch.Tensor) -> torch.Tensor:
    """Return contiguous (B, H, W, 3) of images (B, 3, H, W), without a copy if they lie so."""
    return images.permute(0, 2, 3, 1).contiguous()


def to_nchw(images: torch.Tensor) -> torch.Tensor:
    """Return (B, 3, H, W) of images (B, H, W, 3), without a copy."""
    return images.permute(0, 3, 1, 2)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a PIL image of any mode as upright 8-bit RGB.

    The EXIF orientation is applied, 16 bits become 8, and what is transparent shows white. An
    image that needs no change comes back as it is, because it may be large. Raises ValueError for
    pixels of 32 bits, whose range nobody knows.
    """
    # Before Pillow 11.3 a PNG of 16 bits has mode I.
    has_16_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    image.load()  # some formats hold their EXIF data behind the pixels
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
    """Return a file's name, with escapes where it holds what a terminal cannot show."""
    return name if name.isprintable() else ascii(name)[1:-1]


def one_line(problem: BaseException) -> str:
    """Return an exception's message in one line, or its kind where it has none."""
    return " ".join(str(problem).split()) or type(problem).__name__
