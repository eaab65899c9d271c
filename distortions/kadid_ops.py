"""What several of KADID-10k's distortions need, for one image (H, W, 3) uint8."""

import io
import math
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from PIL import Image

from utils.rng import ImageRNG

# Counts of blocks and patches, and ratios of compression, are those of images of this size.
KADID_AREA = 512 * 384
# Bytes of a JPEG 2000 file that do not grow with the image: 153 of its header, the rest of what the
# coder spends before it has adapted. With 210, crops of 96×96 pixels that are coded alone are as
# good as in a whole image, within 1 dB on average at ratios from 16 to 400.
CODING_OVERHEAD = 210
SMALLEST_CODED_SIDE = 64  # pixels: smaller images are coded within their mirror images
CUBES = 32  # along each channel's range: colours in one cube are clustered as one
CLUSTERING_STEPS = 4  # of k-means
THRESHOLD_STEPS = 12  # of Lloyd's method


def to_lab(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return CIELAB's planes, each (H, W) float32: L in 0–100, a and b around 0."""
    lightness, a, b = cv2.split(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab))
    return lightness, a, b


def from_lab(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) float32 in 0–1; colours that no screen shows are clipped."""
    return cv2.cvtColor(cv2.merge((lightness, a, b)), cv2.COLOR_Lab2RGB)


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Round values in grey levels to the nearest bytes."""
    return np.rint(values).clip(0, 255).astype(np.uint8)


def bytes_from_lab(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the (H, W, 3) uint8 image of CIELAB's planes."""
    return cv2.convertScaleAbs(from_lab(lightness, a, b), alpha=255)


def draw_whole(number: float, rng: ImageRNG) -> int:
    """Return one of the two whole numbers around a number, so that their mean is the number."""
    return math.floor(number + rng.uniform())


def disk_kernel(radius: float) -> np.ndarray:
    """Return (K, K) float32 weights of a disk, smooth where it ends in a pixel.

    radius, pixels; half a pixel changes nothing. K is no larger than it must be.
    """
    reach = max(0, math.ceil(radius - 0.5))
    x = np.arange(-reach, reach + 1, dtype=np.float32)
    weights = (radius + 0.5 - np.hypot(x, x[:, None])).clip(0, 1)
    return weights / weights.sum()


def edge_strength(image: np.ndarray) -> np.ndarray:
    """Return (H, W) float32: how steep grey is around each pixel, from 0 to 1."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    slope_x = cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=1)
    slope_y = cv2.Sobel(grey, cv2.CV_32F, 0, 1, ksize=1)
    around = cv2.GaussianBlur(np.hypot(slope_x, slope_y), (17, 17), 4)
    lowest = around.min()
    span = around.max() - lowest
    if span == 0:
        return np.ones_like(around)
    return (around - lowest) / span


def quantize_colors(image: np.ndarray, count: int) -> np.ndarray:
    """Show each pixel in the nearest of so many colours, which are the image's own clusters.

    They are found by k-means, that is by least variance, on the mean colours of small cubes.
    """
    channels = cv2.split(image)
    cube_of_pixel = _cube_of_pixel(channels).ravel()
    occupied = np.flatnonzero(np.bincount(cube_of_pixel) > 0)
    number_of_cube = np.empty(CUBES**3, np.intp)
    number_of_cube[occupied] = np.arange(len(occupied))
    group = number_of_cube.take(cube_of_pixel)

    values = np.stack(channels).reshape(3, -1)
    colors, weights = _mean_by_group(group, values, None, len(occupied))
    palette = _spread(colors, weights, count)
    for _ in range(CLUSTERING_STEPS):
        nearest = _nearest(colors, palette)
        means, total = _mean_by_group(nearest, colors.T, weights, len(palette))
        palette = means[total > 0]
    shown = to_bytes(palette)[_nearest(colors, palette)]
    return shown.take(group, axis=0).reshape(image.shape)


def _cube_of_pixel(channels):
    """Return (H, W) int32: which cube each pixel of three channels (H, W) uint8 is in."""
    lowest = [int(channel.min()) for channel in channels]
    span = 1 + max(int(channel.max()) - low for channel, low in zip(channels, lowest))
    grey_levels = np.arange(256, dtype=np.int32)
    cube = np.zeros(channels[0].shape, np.int32)
    for channel, low in zip(channels, lowest):
        cells = (grey_levels - low) * CUBES // max(span, CUBES)
        cube = CUBES * cube + cv2.LUT(channel, cells)
    return cube


def _mean_by_group(group, channels, weights, count):
    """Return the mean colour of each group, (count, 3) float32, and its weight, (count,) float32.

    group: (N,) of each colour. channels: (3, N). weights: (N,), or None for equal ones.
    """
    total = np.bincount(group, weights, minlength=count)
    means = np.empty((count, 3), np.float32)
    for i, channel in enumerate(channels):
        values = channel if weights is None else channel * weights
        means[:, i] = np.bincount(group, values, minlength=count) / np.maximum(total, 1e-9)
    return means, total.astype(np.float32)


def _spread(colors, weights, count):
    """Choose at most so many of colors (N, 3), each where most is badly shown by those before."""
    squares = (colors**2).sum(1)
    doubled = 2 * colors

    def squared_distance(color):
        return squares - doubled @ color + color @ color

    distance = squared_distance((weights @ colors / weights.sum()).astype(np.float32))
    chosen = [int(distance.argmin())]
    distance = squared_distance(colors[chosen[0]])
    while len(chosen) < min(count, len(colors)):
        chosen.append(int((weights * distance).argmax()))
        np.minimum(distance, squared_distance(colors[chosen[-1]]), out=distance)
    return colors[chosen]


def _nearest(colors, palette):
    """Return (N,) the index of the palette's colour that is nearest to each of colors (N, 3)."""
    distance = (palette**2).sum(1) - 2 * colors @ palette.T
    return distance.argmin(1)


def quantize_levels(image: np.ndarray, count: int) -> np.ndarray:
    """Show all values in so many grey levels, split where the variance inside them is least.

    It is Otsu's criterion for several thresholds ("A threshold selection method from gray-level
    histograms", IEEE SMC 1979), approached by Lloyd's method ("Least squares quantization in PCM",
    IEEE Transactions on Information Theory 1982).
    """
    counts = cv2.calcHist([image.ravel()], [0], None, [256], [0, 256])
    histogram = counts.ravel().astype(np.float64)
    grey_levels = np.arange(256)
    values_below = np.concatenate([[0], histogram.cumsum()])
    sum_below = np.concatenate([[0], (histogram * grey_levels).cumsum()])
    # The best thresholds are nearly those that share out the cube root of the histogram.
    shares = np.cbrt(histogram).cumsum()
    middle = shares[-1] * np.arange(1, count) / count
    edges = np.concatenate([[0], np.searchsorted(shares, middle) + 1, [256]])
    for _ in range(THRESHOLD_STEPS):
        values = np.diff(values_below[edges])
        middles = (edges[:-1] + edges[1:] - 1) / 2
        means = np.where(values > 0, np.diff(sum_below[edges]) / np.maximum(values, 1), middles)
        thresholds = np.ceil((means[:-1] + means[1:]) / 2)
        if np.array_equal(thresholds, edges[1:-1]):
            break
        edges[1:-1] = thresholds
    table = to_bytes(means)[np.searchsorted(edges[1:-1], grey_levels, side="right")]
    return cv2.LUT(image, table)


def code_jpeg2000(image: np.ndarray, ratio: float) -> np.ndarray:
    """Encode and decode as JPEG 2000, the wavelet that loses, at this ratio of bytes.

    The ratio is that of an image of KADID's size: see CODING_OVERHEAD.
    """
    height, width = image.shape[:2]
    bottom = max(0, SMALLEST_CODED_SIDE - height)
    right = max(0, SMALLEST_CODED_SIDE - width)
    canvas = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REFLECT_101)
    area = canvas.shape[0] * canvas.shape[1]
    overhead = CODING_OVERHEAD * max(0, 1 - area / KADID_AREA)
    own_ratio = canvas.size / (canvas.size / ratio + overhead)
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(
        buffer,
        "JPEG2000",
        quality_mode="rates",
        quality_layers=[max(1, own_ratio)],
        irreversible=True,
        no_jp2=True,
    )
    with Image.open(buffer, formats=("JPEG2000",)) as coded:
        return np.asarray(coded)[:height, :width]


def scatter_pixels(image: np.ndarray, amount: float, passes: int, rng: ImageRNG) -> np.ndarray:
    """Take each pixel from a random place near it, and do so several times.

    amount: standard deviation of the distance along each axis, pixels.
    """
    height, width = image.shape[:2]
    offsets = amount * rng.normal_like(np.empty((2 * passes, height, width), np.float32))
    columns, rows = _grid(height, width)
    # OpenCV moves four channels in less time than three.
    values = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA).astype(np.float32)
    for i in range(passes):
        source_x = columns + offsets[2 * i]
        source_y = rows + offsets[2 * i + 1]
        border = cv2.BORDER_REPLICATE
        values = cv2.remap(values, source_x, source_y, cv2.INTER_LINEAR, borderMode=border)
    return cv2.cvtColor(to_bytes(values), cv2.COLOR_RGBA2RGB)


@lru_cache(maxsize=8)
def _grid(height, width):
    """Return the column and the row of each pixel, both (H, W) float32."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return columns.astype(np.float32), rows.astype(np.float32)


def block_size(number: float, side: int, height: int, width: int) -> tuple[int, float, float]:
    """Return how many blocks an image gets, and their height and width in pixels.

    number and side are those of an image of KADID's size. Blocks cover the same share of any image:
    there is at least one, and its side makes up for what is lost by the whole number.
    """
    count = max(1, round(number * height * width / KADID_AREA))
    area = number * side**2 / KADID_AREA * height * width / count  # of one block
    block_height = min(math.sqrt(area), height)
    block_width = min(area / block_height, width)
    return count, area / block_width, block_width


def covered_pixels(share: float, length: float, size: int) -> slice:
    """Return the pixels whose centres a part of an axis covers, one at least.

    share: where in 0–1 the part lies between both ends. length: of the part, pixels. size: of the
    axis. A longer part at the same share holds the shorter one.
    """
    start = share * (size - length)
    first = min(math.ceil(start - 0.5), size - 1)
    end = math.ceil(start + length - 0.5)
    return slice(first, max(first + 1, min(end, size)))


def moved_inside(part: slice, distance: float, size: int) -> slice:
    """Return the part moved along its axis, the other way if it would leave, or as far as it can.

    distance, pixels, is rounded. size: of the axis.
    """
    whole = round(distance)
    if not 0 <= part.start + whole <= size - (part.stop - part.start):
        whole = -whole
    start = min(max(0, part.start + whole), size - (part.stop - part.start))
    return slice(start, start + part.stop - part.start)


def shown_pixels(size: int, side: float, origin: float) -> np.ndarray:
    """Return (size,) int64: which pixel of an axis each shows, the middle one of its block."""
    block = np.floor((np.arange(size) + 0.5 - origin) / side)
    middle = origin + (block + 0.5) * side
    return np.floor(middle).clip(0, size - 1).astype(np.int64)


def raise_tones(values: Any, amount: Any) -> Any:
    """Raise values in 0–1 by a parabola that keeps 0 and 1, and lifts 0.5 by half the amount."""
    return values + 2 * amount * values * (1 - values)
