"""Layouts of images in memory, and any mode of Pillow → 8-bit RGB."""

import numpy as np
import pytest
import torch
from PIL import Image

from utils.images import one_line, printable, to_nchw, to_nhwc, to_rgb


def test_layouts_change_without_a_copy_and_back():
    pixels = torch.arange(2 * 4 * 5 * 3).view(2, 4, 5, 3)

    images = to_nchw(pixels)

    assert images.shape == (2, 3, 4, 5)
    assert to_nhwc(images).data_ptr() == pixels.data_ptr()


def test_planes_are_copied_to_contiguous_pixels():
    planes = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)

    pixels = to_nhwc(planes)

    assert pixels.is_contiguous()
    assert torch.equal(pixels, planes.permute(0, 2, 3, 1))


@pytest.mark.parametrize(
    "mode, value, expected",
    (
        ("L", 90, (90, 90, 90)),
        ("1", 1, (255, 255, 255)),
        ("LA", (90, 255), (90, 90, 90)),
        ("RGBA", (200, 10, 20, 0), (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("I;16", 257 * 90, (90, 90, 90)),
    ),
)
def test_every_mode_becomes_rgb(mode, value, expected):
    image = to_rgb(Image.new(mode, (8, 8), value))

    assert image.mode == "RGB"
    assert image.getpixel((3, 3)) == expected


@pytest.mark.parametrize("mode", ("I", "F"))
def test_pixels_of_unknown_range_are_refused(mode):
    with pytest.raises(ValueError, match=f"32 bits .mode {mode}. have no known range"):
        to_rgb(Image.new(mode, (8, 8), 40))


def test_a_16_bit_png_is_read(tmp_path):
    Image.fromarray(np.full((8, 8), 257 * 90, np.uint16)).save(tmp_path / "deep.png")

    assert to_rgb(Image.open(tmp_path / "deep.png")).getpixel((0, 0)) == (90, 90, 90)


def test_16_bits_are_rounded_to_8():
    values = np.arange(2**16, dtype=np.uint16).reshape(256, 256)

    rounded = np.asarray(to_rgb(Image.fromarray(values)))

    assert np.array_equal(rounded[:, :, 0], np.round(values / 257))


def test_palettes_become_rgb():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])

    assert to_rgb(image).getpixel((0, 0)) == (10, 20, 30)


def test_a_palettes_transparent_colour_becomes_white():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.info["transparency"] = 1

    assert to_rgb(image).getpixel((0, 0)) == (255, 255, 255)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated by 90 degrees
    Image.new("RGB", (10, 20), "red").save(tmp_path / "rotated.jpg", exif=exif)

    assert to_rgb(Image.open(tmp_path / "rotated.jpg")).size == (20, 10)


def test_an_rgb_image_is_not_copied():
    image = Image.new("RGB", (8, 8))

    assert to_rgb(image) is image


def test_names_get_escapes_only_where_needed():
    assert printable("grüße.png") == "grüße.png"
    assert printable("two\nlines.png") == r"two\nlines.png"


def test_a_problem_takes_one_line():
    assert one_line(ValueError("two\n  lines")) == "two lines"
    assert one_line(ValueError()) == "ValueError"
