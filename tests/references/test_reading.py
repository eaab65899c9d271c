"""One file → 8-bit RGB of one size."""

import numpy as np
import pytest
from PIL import Image

from references.reading import fit, read_image


@pytest.mark.parametrize("suffix", ("png", "jpg", "webp", "bmp", "tiff"))
def test_every_format_is_read(tmp_path, suffix):
    path = tmp_path / f"image.{suffix.upper()}"
    Image.new("RGB", (32, 32), (200, 30, 90)).save(path)

    pixels, reason = read_image(path, 32)

    assert reason is None
    assert pixels.shape == (32, 32, 3)
    assert np.abs(pixels.mean((0, 1)) - (200, 30, 90)).max() < 4


def test_an_unreadable_file_has_a_reason(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")

    assert read_image(tmp_path / "a.png", 32) == (None, "not a PNG file, nor another image")


def test_pixels_of_the_right_size_are_not_changed():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)

    assert np.array_equal(fit(Image.fromarray(pixels), 32), pixels[:, 8:40])


def test_a_photograph_is_shrunk_before_it_is_cropped():
    photo = Image.new("RGB", (320, 160), "black")
    photo.paste("white", (80, 0, 240, 160))  # the centre square

    assert fit(photo, 32).mean() > 250


def test_an_image_is_never_enlarged():
    with pytest.raises(ValueError, match="40×31 is smaller than 32×32"):
        fit(Image.new("RGB", (40, 31)), 32)
