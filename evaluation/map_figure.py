"""Draw where an image is bad, and what is wrong there."""

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
from utils.images import to_rgb as to_rgb_image

LOW_QUALITY = 80  # below this a place's distortion is named
SMALLEST_SHARE = 0.01  # of the image, of a distortion in the legend
MOST_PIXELS = 1200  # of an image's side in the figure; of a larger one, every n-th is drawn
_COLOR_MAP = "viridis"  # rises in brightness, so colour-blind people read it too
_OVERLAY = 0.7  # how much of a colour laid over the image is seen
_LUMA = np.array([0.299, 0.587, 0.114])


def plot_quality_map(
    image: Image.Image | np.ndarray, quality_map: QualityMap, title: str = ""
) -> Figure:
    """Draw an image (H, W, 3) uint8, its quality, and the distortion where quality is low.

    Quality and distortion are laid over the image in pale grey. A distortion is drawn where quality
    is below LOW_QUALITY and no class has a larger probability, pristine included; without a type
    head this panel is left out.
    """
    pixels = np.asarray(to_rgb_image(image) if isinstance(image, Image.Image) else image)
    height, width = pixels.shape[:2]
    every = -(-max(height, width) // MOST_PIXELS)
    pixels = pixels[::every, ::every]
    quality = quality_map.quality[::every, ::every]
    has_types = quality_map.type_probabilities.size > 0
    panels = 3 if has_types else 2

    panel_width = 3.6 * min(1.6, max(0.7, width / height))
    panel_height = panel_width * height / width
    size = (panels * panel_width + 1, panel_height + 1.4)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, panels)
    grey = 0.35 + 0.65 * (pixels @ _LUMA) / 255
    show_image(axes[0], pixels, "the image")
    scores = matplotlib.colormaps[_COLOR_MAP](quality / 100)[..., :3]
    show_image(axes[1], _lay_over(grey, scores), f"quality, {quality.mean():.0f} on average")
    scale = ScalarMappable(Normalize(0, 100), _COLOR_MAP)
    bar = figure.colorbar(scale, ax=axes[1], location="bottom", fraction=0.05, pad=0.02)
    bar.ax.tick_params(labelsize=8)
    bar.set_label("quality (100 is pristine)", fontsize=8)
    if has_types:
        cell_side = quality_map.cell_side / every
        found = find_types(quality, quality_map.type_probabilities, cell_side)
        colors = type_colors(quality_map.types)
        painted = _paint(grey, found, list(colors.values()))
        show_image(axes[2], painted, f"distortion where quality is below {LOW_QUALITY}")
        _add_legend(axes[2], found, colors)
    set_titles(figure, title or "Where the image is bad, and what is wrong there", "")
    return figure


def find_types(quality: np.ndarray, type_probabilities: np.ndarray, cell_side: float) -> np.ndarray:
    """Return (H, W) the most probable distortion's index; −1 where quality (H, W) is not low.

    It is −1 too where pristine, the last of type_probabilities (rows, columns, T + 1), is the most
    probable. Probabilities are interpolated between cells, which are so many pixels apart.
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
        handles=patches,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.01),
        ncols=2,
        fontsize=8,
        frameon=False,
    )
