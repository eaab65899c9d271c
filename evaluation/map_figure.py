"""Draw where an image is bad, and what is wrong there."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from distortions.figures import show_image, type_colors
from models.quality_map import QualityMap, interpolate
from utils.drawing import set_titles, shorten
from utils.errors import UserError
from utils.images import to_rgb as to_rgb_image

LOW_QUALITY = 60  # below this a place's distortion is named
SMALLEST_SHARE = 0.01  # of the image, of a distortion in the legend
TITLE = "Where the image is bad, and what is wrong there"
PANEL_WIDTH = 3.6  # inches
MOST_PIXELS = 1200  # of an image's side in the figure; of a larger one, every n-th is drawn
_COLOR_MAP = "viridis"  # rises in brightness, so colour-blind people read it too
_OVERLAY = 0.7  # how much of a colour laid over the image is seen
_LUMA = np.array([0.299, 0.587, 0.114])


def plot_quality_map(
    image: Image.Image | np.ndarray, quality_map: QualityMap, title: str = TITLE
) -> Figure:
    """Draw an image (H, W, 3) uint8, its quality, and the distortion where quality is low.

    Quality and distortion are laid over the image in pale grey. A distortion is drawn where quality
    is below LOW_QUALITY and no class has a larger probability, pristine included; without a type
    head this panel is left out. Raises UserError where the map is of another image.
    """
    return plot_quality_maps([image], [quality_map], ["the image"], title)


def plot_quality_maps(
    images: Sequence[Image.Image | np.ndarray],
    quality_maps: Sequence[QualityMap],
    captions: Sequence[str],
    title: str = TITLE,
    regions: Sequence[np.ndarray] = (),
) -> Figure:
    """Draw images as plot_quality_map does, one below the other, with a caption each.

    regions: (H, W) bool of each image, whose outlines are drawn in it and in its map; none by
    default.
    """
    has_types = quality_maps[0].type_probabilities.size > 0
    shapes = [quality_map.quality.shape for quality_map in quality_maps]
    heights = [PANEL_WIDTH * height / width for height, width in shapes]
    panels = 3 if has_types else 2
    size = (
        panels * PANEL_WIDTH + (1.9 if has_types else 0.2),
        sum(heights) + 0.4 * len(images) + 1,
    )
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(images), panels, squeeze=False, height_ratios=heights)
    for row, image, quality_map, caption in zip(axes, images, quality_maps, captions):
        _draw_row(row, image, quality_map, caption)
    for row, region in zip(axes, regions):
        for axis in row[:2]:
            axis.contour(_thinned(region), [0.5], colors="white", linestyles="dashed", linewidths=1)
    scale = ScalarMappable(Normalize(0, 100), _COLOR_MAP)
    everywhere = list(axes.ravel())
    bar = figure.colorbar(
        scale, ax=everywhere, location="bottom", shrink=1 / panels, fraction=0.02, pad=0.01
    )
    bar.ax.tick_params(labelsize=8)
    bar.set_label("quality (100 is pristine)", fontsize=8)
    set_titles(figure, title, "")
    return figure


def _draw_row(axes, image, quality_map, caption):
    """Draw an image, its quality and, on a third axis, its distortions."""
    pixels = np.asarray(to_rgb_image(image) if isinstance(image, Image.Image) else image)
    if pixels.shape != (*quality_map.quality.shape, 3):
        height, width = quality_map.quality.shape
        raise UserError(
            f"expected the image that the map was made of, {width}×{height} pixels, "
            f"got {type(image).__name__} {pixels.shape}"
        )
    every = _step(pixels)
    pixels = _thinned(pixels)
    quality = _thinned(quality_map.quality)
    grey = 0.35 + 0.65 * (pixels @ _LUMA) / 255
    show_image(axes[0], pixels, caption)
    scores = matplotlib.colormaps[_COLOR_MAP](quality / 100)[..., :3]
    show_image(axes[1], _lay_over(grey, scores), "quality")
    if len(axes) == 3:
        cell_side = quality_map.cell_side / every
        found = find_types(quality, quality_map.type_probabilities, cell_side)
        colors = type_colors(quality_map.types)
        painted = _paint(grey, found, list(colors.values()))
        show_image(axes[2], painted, f"distortion where quality is below {LOW_QUALITY}")
        for i in np.unique(found[found >= 0]):  # noise's own grey is hard to see on grey
            axes[2].contour(found == i, [0.5], colors="black", linewidths=0.6)
        _add_legend(axes[2], found, colors)


def find_types(quality: np.ndarray, type_probabilities: np.ndarray, cell_side: float) -> np.ndarray:
    """Return (H, W) the most probable distortion's index; −1 where quality (H, W) is not low.

    It is −1 too where pristine, the last of type_probabilities (rows, columns, T + 1), is the
    most probable. Probabilities are interpolated between cells, which are so many pixels apart.
    """
    height, width = quality.shape
    count = type_probabilities.shape[2]
    largest = np.zeros((height, width), np.float32)
    found = np.full((height, width), -1)
    for i in range(count):
        values = interpolate(type_probabilities[..., i], height, width, cell_side)
        found[values > largest] = i
        largest = np.maximum(largest, values)
    found[(found == count - 1) | (quality >= LOW_QUALITY)] = -1
    return found


def _lay_over(grey, colors):
    """Return colours (H, W, 3) in 0–1 laid over an image in grey (H, W), as uint8."""
    mixed = _OVERLAY * colors + (1 - _OVERLAY) * grey[..., None]
    return (255 * mixed).round().astype(np.uint8)


def _paint(grey, found, colors):
    """Return an image in grey (H, W) as uint8, with the colour of each distortion found over it."""
    over = np.repeat(grey[..., None], 3, axis=2)
    for i, color in enumerate(colors):
        over[found == i] = to_rgb(color)
    return _lay_over(grey, over)


def _step(pixels):
    """Return n where every n-th row and column is drawn."""
    return -(-max(pixels.shape[:2]) // MOST_PIXELS)


def _thinned(pixels):
    """Return every n-th row and column of an image's pixels, or of a map of them."""
    every = _step(pixels)
    return pixels[::every, ::every]


def _add_legend(axis, found, colors):
    """List the distortions found, those of most pixels first, with their share of the image."""
    shares = np.bincount(found[found >= 0], minlength=len(colors)) / found.size
    names = list(colors)
    patches = []
    for i in np.argsort(-shares, kind="stable"):
        if shares[i] >= SMALLEST_SHARE:
            label = f"{shorten(names[i].replace('_', ' '))}, {shares[i]:.0%}"
            patches.append(Patch(color=colors[names[i]], label=label))
    if not patches:
        patches.append(Patch(color="none", label="none"))
    axis.legend(
        handles=patches, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False
    )
