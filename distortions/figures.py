"""Figures of distortions, and the colour and the sign that each type has in every figure."""

import textwrap
from collections.abc import Iterable
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb, to_hex, to_rgb
from matplotlib.figure import Figure

from distortions.apply import apply_distortion
from distortions.registry import DISTORTIONS, LEVELS, quality_of
from utils.drawing import LONGEST_LABEL, drawable, set_titles, shorten

# Colours of the types in their order: the default eight, then those of extra.py.
_TYPE_COLORS = (
    "#1f77b4 #17becf #7f7f7f #d62728 #9467bd #8c564b #ff7f0e #e377c2 #393b79 "
    "#bcbd22 #637939 #843c39 #ad494a #7b4173"
).split()
# Colours of KADID-10k's 25 in their order: one hue for each of its groups.
_KADID_COLORS = (
    "#0d3b73 #2272b5 #6aaede "  # blurs
    "#34106c #5a2a9c #7d49c0 #a07ad6 #c0a0e8 "  # colour
    "#7d0a10 #f04a4a "  # compression
    "#003436 #00595e #138079 #43a098 #6fc0b6 "  # noise
    "#9a4c00 #d97f12 #f0b04a "  # brightness
    "#cc2378 #e36fa8 #f29cc4 #63053f #98105f "  # places of pixels
    "#4f2f1f #a98467"  # sharpness and contrast
).split()
_PRISTINE_COLOR = "#2ca02c"
# 25 colours are too many to tell apart, so KADID's types take turns at a shape and a pattern too.
# Types of one group have different ones, and types that share one have very different colours.
_KADID_MARKERS = "s^DvPX*<p"
_KADID_HATCHES = ("//", r"\\", "xx", "..", "--", "||", "++", "oo", "**")
_LUMA = (0.299, 0.587, 0.114)

CELL_SIDE = 1.75  # inches, of an image in the sheet of examples
SMALL_CELL_SIDE = 0.95  # likewise, in a sheet of more than MANY_ROWS
MANY_ROWS = 20


class ExampleRow(NamedTuple):
    """One type in one direction at rising levels."""

    type: str
    direction: str  # its name, or ""
    images: list[np.ndarray]  # (H, W, 3) uint8, at each of LEVELS but 0


def type_colors(names: Iterable[str]) -> dict[str, str]:
    """Return {name: colour}. A type's place in its family decides, so every figure agrees."""
    colors = dict(zip(_family(is_kadid=True), _KADID_COLORS))
    others = _family(is_kadid=False)
    colors.update(zip(others, _TYPE_COLORS))
    for i, name in enumerate(others[len(_TYPE_COLORS) :]):
        hue = (0.1 + 0.618 * i) % 1
        red, green, blue = hsv_to_rgb((hue, 0.9, 0.45))
        colors[name] = to_hex((red, green, blue))
    return {name: colors.get(name, _PRISTINE_COLOR) for name in names}


def type_markers(names: Iterable[str]) -> dict[str, str]:
    """Return {name: shape of its dots}: a circle, but for KADID's types."""
    markers = dict(zip(_family(is_kadid=True), cycle(_KADID_MARKERS)))
    return {name: markers.get(name, "o") for name in names}


def bar_style(name: str) -> dict[str, Any]:
    """Return how a type's bars are filled, as keywords of matplotlib: KADID's have a pattern."""
    color = type_colors([name])[name]
    hatches = dict(zip(_family(is_kadid=True), cycle(_KADID_HATCHES)))
    if name not in hatches:
        return {"color": color}
    is_dark = np.dot(to_rgb(color), _LUMA) < 0.6
    edge_color = "white" if is_dark else "#444444"
    return {"facecolor": color, "hatch": hatches[name], "edgecolor": edge_color, "linewidth": 0.5}


def _family(is_kadid):
    return [name for name, entry in DISTORTIONS.items() if entry.is_kadid == is_kadid]


def example_rows(reference: np.ndarray, types: Iterable[str], seed: int) -> list[ExampleRow]:
    """Distort a reference (H, W, 3) uint8 by each type, in each direction, at each level."""
    rows = []
    for name in types:
        for sign, direction in zip((-1, 1), DISTORTIONS[name].directions or ("",)):
            images = []
            for level in LEVELS[1:]:
                image, _ = apply_distortion(reference, name, level, sign, seed)
                images.append(np.asarray(image))
            rows.append(ExampleRow(name, direction, images))
    return rows


def plot_distortion_examples(
    reference: np.ndarray, rows: list[ExampleRow], subtitle: str
) -> Figure:
    """Draw every type and direction (rows) at rising levels (columns), beside the reference."""
    columns = len(LEVELS)
    is_small = len(rows) > MANY_ROWS
    side = SMALL_CELL_SIDE if is_small else CELL_SIDE
    title_size = 6 if is_small else 8
    size = (side * columns + 1.6, (side + 0.2) * len(rows) + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    title = "Each row gets worse to the right: every distortion, its levels, the quality left"
    set_titles(figure, title, subtitle)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    colors = type_colors(row.type for row in rows)
    for line, row in zip(axes, rows):
        show_image(line[0], reference, "reference, 100", title_size)
        for axis, image, level in zip(line[1:], row.images, LEVELS[1:]):
            quality = quality_of(row.type, level)
            show_image(axis, image, f"level {level:.1f}, quality {quality:.0f}", title_size)
        label = _row_label(row.type)
        if row.direction:
            label += f"\n({shorten(row.direction)})"
        line[0].set_ylabel(
            label,
            rotation=0,
            ha="right",
            va="center",
            color=colors[row.type],
            fontsize=11,
            labelpad=8,
        )
    return figure


def _row_label(name):
    """Return a type's name in one line, or in two where its words allow."""
    words = name.replace("_", " ")
    lines = textwrap.wrap(words, LONGEST_LABEL, break_long_words=False)
    fits = len(lines) == 2 and max(map(len, lines)) <= LONGEST_LABEL
    return "\n".join(map(shorten, lines)) if fits else shorten(words)


def plot_pair(reference: np.ndarray, image: np.ndarray, title: str) -> Figure:
    """Draw an image (H, W, 3) uint8 beside its reference."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    figure.suptitle(drawable(title))
    left, right = figure.subplots(1, 2)
    show_image(left, reference, "reference")
    show_image(right, image, "distorted")
    return figure


def show_image(axis: Axes, image: np.ndarray, title: str, title_size: int = 8) -> None:
    """Show an image (H, W, 3) uint8 in its own pixels, without a frame."""
    axis.imshow(image, interpolation="nearest")
    axis.set_title(title, fontsize=title_size)
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)
