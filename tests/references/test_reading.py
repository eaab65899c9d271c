"""One file → 8-bit RGB of one size."""

import struct
import sys

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from references import reading
from references.reading import fit, read_image
from tests.stress import folder_zoo
from utils.images import _TURNS


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


@pytest.fixture
def afresh():
    """Ask anew, in this test and after it, which formats can be read."""
    reading._formats_to_read.cache_clear()
    yield
    reading._formats_to_read.cache_clear()


@pytest.mark.parametrize("name", ("IMG_0001.HEIC", "exported.jpg"))
def test_a_photo_of_an_iphone_is_read_by_the_plug_in(tmp_path, afresh, name):
    plug_in = pytest.importorskip("pillow_heif")
    plug_in.register_heif_opener()
    Image.new("RGB", (64, 64), (200, 30, 90)).save(tmp_path / name, "HEIF")

    pixels, reason = read_image(tmp_path / name, 32)

    assert reason is None
    assert np.abs(pixels.mean((0, 1)) - (200, 30, 90)).max() < 6


@pytest.mark.parametrize("name", ("IMG_0001.HEIC", "exported.jpg"))
def test_without_the_plug_in_its_installation_is_named(tmp_path, monkeypatch, afresh, name):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # importing it fails
    (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))

    assert read_image(tmp_path / name, 32) == (
        None,
        "HEIC needs one more package: pip install pillow-heif",
    )


def test_without_avif_the_upgrade_is_named(tmp_path, monkeypatch, afresh):
    monkeypatch.setattr(reading.features, "check", lambda name: name != "avif")
    (tmp_path / "a.avif").write_bytes(b"\0\0\0\x1cftypavif" + bytes(40))

    _, reason = read_image(tmp_path / "a.avif", 32)

    assert reason == "AVIF needs Pillow 11.3 or later: pip install --upgrade pillow"


def exif_block(rng):
    """Return an EXIF block of random entries, many of them wrong, and its orientation."""
    orientation = int(rng.integers(0, 12))
    entries = [(0x0112, 3, 1, struct.pack("<H", orientation))]
    for _ in range(int(rng.integers(0, 4))):
        tag = int(rng.choice([0x010E, 0x011A, 0x011B, 0x0132, 0x8769, 0x927C, 0x9286]))
        kind = int(rng.integers(0, 14))
        value = rng.bytes(int(rng.integers(0, 20)))
        entries.append((tag, kind, int(rng.integers(0, 12)), value))
    return folder_zoo.exif(*entries), orientation


@pytest.mark.parametrize("suffix", ("jpg", "png", "webp"))
def test_any_exif_block_leaves_the_pixels_whole(tmp_path, suffix):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (40, 36, 3), dtype=np.uint8))
    path = tmp_path / f"image.{suffix}"
    image.save(path, lossless=True)
    plain = np.asarray(Image.open(path).convert("RGB"))
    shapes = set()
    for _ in range(150):
        block, orientation = exif_block(rng)
        image.save(path, exif=block, lossless=True)

        pixels, reason = read_image(path, 36)

        assert reason is None
        turned = (
            plain
            if orientation not in _TURNS
            else np.asarray(Image.fromarray(plain).transpose(_TURNS[orientation]))
        )
        expected = fit(Image.fromarray(turned), 36)
        unturned = fit(Image.fromarray(plain), 36)
        # A block that is damaged before its orientation leaves the image as it lies.
        is_expected = np.array_equal(pixels, expected) or np.array_equal(pixels, unturned)
        assert is_expected, orientation
        shapes.add(np.array_equal(pixels, unturned))
    assert shapes == {True, False}


def test_an_odd_tag_beside_the_orientation_does_not_stop_the_turn(tmp_path):
    """Pillow's own exif_transpose raises TypeError for it."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 36, 3), dtype=np.uint8))
    block = folder_zoo.exif(folder_zoo.turned(6), folder_zoo.ODD_TAG)
    image.save(tmp_path / "a.png", exif=block)
    with pytest.raises(TypeError):
        ImageOps.exif_transpose(Image.open(tmp_path / "a.png"))

    pixels, _ = read_image(tmp_path / "a.png", 36)

    assert np.array_equal(pixels, fit(image.transpose(Image.Transpose.ROTATE_270), 36))


@pytest.mark.parametrize(
    "problem", (TypeError, KeyError, RecursionError, MemoryError, AssertionError)
)
def test_whatever_a_decoder_raises_is_a_reason(tmp_path, monkeypatch, problem):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")

    def raise_problem(image):
        raise problem("odd")

    monkeypatch.setattr(reading, "to_rgb", raise_problem)

    image, reason = read_image(tmp_path / "a.png", 32)

    assert image is None
    assert reason.startswith(f"{problem.__name__}: ")


DEEP = np.random.default_rng(0).integers(0, 2**16, (40, 40), dtype=np.uint16)


@pytest.mark.parametrize("bits", (10, 12, 14))
@pytest.mark.parametrize("suffix", ("png", "tif"))
def test_values_of_fewer_bits_are_not_read_as_nearly_black(tmp_path, bits, suffix):
    Image.fromarray(DEEP >> (16 - bits)).save(tmp_path / f"a.{suffix}")

    image, reason = read_image(tmp_path / f"a.{suffix}", 32)

    assert image is None
    assert f"as if it had {bits} bits: save it with values up to 65535" in reason


@pytest.mark.parametrize("suffix", ("png", "tif"))
def test_colours_of_fewer_bits_are_not_read_as_nearly_black(tmp_path, suffix):
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), np.stack([DEEP >> 4] * 3, axis=-1))

    _, reason = read_image(tmp_path / f"a.{suffix}", 32)

    assert "as if it had 12 bits" in reason


@pytest.mark.parametrize("suffix", ("png", "tif"))
def test_16_bits_of_full_range_are_read(tmp_path, suffix):
    Image.fromarray(DEEP).save(tmp_path / f"a.{suffix}")

    pixels, _ = read_image(tmp_path / f"a.{suffix}", 40)

    assert np.array_equal(pixels[:, :, 1], (DEEP.astype(int) + 128) // 257)


def test_a_tiffs_own_range_is_used(tmp_path):
    Image.fromarray(DEEP >> 4).save(tmp_path / "a.tif", tiffinfo={281: 4095})

    pixels, _ = read_image(tmp_path / "a.tif", 40)

    assert np.abs(pixels[:, :, 0] - (DEEP >> 4) * (255 / 4095)).max() <= 0.5


def test_a_tiff_whose_white_is_zero_is_not_its_negative(tmp_path):
    Image.fromarray(DEEP).save(tmp_path / "a.tif", tiffinfo={262: 0})

    pixels, _ = read_image(tmp_path / "a.tif", 40)

    assert np.array_equal(pixels[:, :, 0], 255 - (DEEP.astype(int) + 128) // 257)


@pytest.mark.parametrize(
    "values, reason",
    (
        (np.ones((40, 40), np.float32), "have no known range"),
        (np.ones((40, 40), np.float64), "float samples of 64 bits: save it with 8 or 16 bits"),
        (np.ones((40, 40, 3), np.float32), "float samples of 32 bits: save it with 8 or 16 bits"),
    ),
)
def test_a_tiff_of_floats_is_called_that(tmp_path, values, reason):
    cv2.imwrite(str(tmp_path / "a.tif"), values)

    assert reason in read_image(tmp_path / "a.tif", 32)[1]
