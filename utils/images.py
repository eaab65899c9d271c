"""Any image that Pillow opens as upright 8-bit RGB, the same for a reference and for an image to be scored."""

import numpy as np
from PIL import ExifTags, Image, ImageOps


def to_rgb(image):
    """image: a PIL image of any mode, which comes back as it is where nothing is to be done: it may be large. Its EXIF
    orientation is applied, 16 bits become 8, what is transparent shows white. Raises ValueError for pixels of 32 bits,
    whose range nobody knows."""
    sixteen_bits = image.mode.startswith("I;16") or (
        image.mode == "I" and image.format == "PNG"
    )  # Pillow before 11.3
    image.load()  # some formats hold their EXIF data behind the pixels
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if sixteen_bits:
        image = Image.fromarray(((np.asarray(image, np.uint32) + 128) // 257).astype(np.uint8))
    elif image.mode in ("F", "I"):
        raise ValueError(f"pixels of 32 bits (mode {image.mode}) have no known range")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")
