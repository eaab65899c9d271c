"""Arrays in, matplotlib Figures out."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from distortions.figures import bar_style, show_image, type_colors, type_markers
from utils.drawing import set_titles, shorten

_CLUSTER_COLORS = (
    "#4e79a7 #f28e2b #e15759 #76b7b2 #59a14f #edc948 #b07aa1 #ff9da7 #9c755f "
    "#bab0ac #1b9e77 #d95f02 #7570b3 #e7298a #66a61e #e6ab02 #a6761d #666666 "
    "#8dd3c7 #fb8072 #80b1d3 #fdb462 #b3de69 #bc80bd"
).split()
_BESIDE: dict[str, Any] = {"loc": "outside right center", "fontsize": 9}  # a legend's place
_OUTLINE = withStroke(linewidth=2.5, foreground="white")  # of text among dots
_SHAPE_FACTOR = 3  # areas of a shape to one of a circle, in a cloud of dots
_TRUE_COLOR = "#bbbbbb"
_PREDICTED_COLOR = "#4e79a7"
_MEAN_COLOR = "#e15759"


def plot_predicted_vs_true(
    true: np.ndarray,
    predicted: np.ndarray,
    types: np.ndarray,
    class_names: Sequence[str],
    srcc: float,
    interval: Sequence[float],
    subtitle: str,
) -> Figure:
    """Draw predicted against true quality (N,), a dot for each image."""
    figure = Figure(figsize=(8.2, 6), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 100], [0, 100], color="black", linewidth=0.8, linestyle="--", label="perfect")
    order = np.random.default_rng(0).permutation(len(true))  # so that no type lies on top
    points = np.stack([true[order], predicted[order]], axis=1)
    _scatter_types(axis, points, types[order], class_names, s=6, alpha=0.5)
    axis.set(
        xlim=(0, 102),
        ylim=(0, 102),
        xlabel="true quality (100 is pristine)",
        ylabel="predicted quality",
    )
    low, high = interval
    title = f"Predicted against true quality: SRCC {srcc:.3f} [{low:.3f}, {high:.3f}]"
    set_titles(figure, title, subtitle)
    figure.legend(handles=_type_dots(class_names), **_BESIDE)
    return figure


def plot_srcc_by_type(
    values: np.ndarray, names: Sequence[str], overall: float, subtitle: str
) -> Figure:
    """Draw how well images are ordered inside each type. `overall` is without pristine images."""
    height = max(4.2, 0.27 * len(names) + 1.2)
    figure = Figure(figsize=(7.4, height), layout="constrained")
    axis = figure.subplots()
    order = np.argsort(np.nan_to_num(values, nan=-1))
    ordered_names = [names[i] for i in order]
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    for place, i in enumerate(order):
        bar = axis.barh(place, values[i], **bar_style(names[i]))
        axis.bar_label(bar, fmt="%.2f", padding=3, bbox=box, zorder=3)
    axis.set_yticks(range(len(order)), [shorten(name) for name in ordered_names])
    axis.axvline(
        overall,
        color="black",
        linestyle="--",
        linewidth=1,
        label=f"all distorted images: {overall:.2f}",
    )
    axis.set(
        xlim=(min(0, np.nanmin(values) - 0.2), 1.08),
        xlabel="SRCC inside the type (1 orders every level)",
    )
    axis.legend(loc="lower right")
    set_titles(figure, "Which distortions' levels are told apart", subtitle)
    return figure


def plot_quality_vs_level(
    levels: np.ndarray,
    predicted: np.ndarray,
    types: np.ndarray,
    names: Sequence[str],
    worst: Sequence[float],
    subtitle: str,
) -> Figure:
    """Draw median predicted quality against the level, a panel for each type.

    The band holds the middle 80 % of images of about one level, and the dashed line is the true
    quality. Where there are too few for any band, each image is a dot.
    """
    columns = 4
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(12, 2.9 * rows + 0.6), layout="constrained")
    title = (
        "Does predicted quality fall with the level? "
        "Dashed is true, the band holds the middle 80 % of images"
    )
    set_titles(figure, title, subtitle)
    edges = np.linspace(levels[levels > 0].min(initial=0.2), 1, 9)
    colors = type_colors(names)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for i, (axis, name) in enumerate(zip(axes, names)):
        inside = types == i
        axis.plot([0, 1], [100, worst[i]], color="black", linestyle="--", linewidth=1)
        _draw_band(axis, levels[inside], predicted[inside], edges, colors[name])
        axis.set(title=shorten(name), xlim=(0, 1.02), ylim=(0, 102))
    for axis in axes[len(names) :]:
        axis.axis("off")
    figure.supxlabel("level")
    figure.supylabel("predicted quality")
    return figure


def _draw_band(axis, levels, predicted, edges, color):
    """Draw the median and the middle 80 % of predictions in each bin with three images or more.

    Without such a bin, draw each image.
    """
    bins = np.clip(np.digitize(levels, edges) - 1, 0, len(edges) - 2)
    centers = []
    bands = []
    for b in range(len(edges) - 1):
        inside = predicted[bins == b]
        if len(inside) >= 3:
            centers.append((edges[b] + edges[b + 1]) / 2)
            bands.append(np.percentile(inside, [10, 50, 90]))
    if bands:
        low, median, high = np.array(bands).T
        axis.fill_between(centers, low, high, color=color, alpha=0.25, linewidth=0)
        axis.plot(centers, median, color=color, marker="o", markersize=3)
    else:
        axis.plot(levels, predicted, color=color, linestyle="none", marker=".", alpha=0.7)


def plot_cluster_distribution(
    counts: np.ndarray, class_names: Sequence[str], cluster_labels: Sequence[str], subtitle: str
) -> Figure:
    """Draw what is in each cluster: images stacked by type. counts: (K, T) int."""
    figure = Figure(figsize=(11.5, 0.62 * len(counts) + 2.2), layout="constrained")
    axis = figure.subplots()
    left = np.zeros(len(counts))
    for t, name in enumerate(class_names):
        axis.barh(range(len(counts)), counts[:, t], left=left, **bar_style(name))
        left += counts[:, t]
    labels = [_wrap(label, 33) for label in cluster_labels]
    axis.set_yticks(range(len(counts)), labels, fontsize=8.5)
    axis.set_ylim(len(counts) - 0.4, -0.6)
    axis.set_xlabel("images")
    set_titles(figure, "What is wrong with the images of each cluster", subtitle)
    patches = [Patch(label=shorten(name), **bar_style(name)) for name in class_names]
    figure.legend(handles=patches, handleheight=1.2, **_BESIDE)
    return figure


def plot_cluster_by_type(counts: np.ndarray, class_names: Sequence[str], subtitle: str) -> Figure:
    """Draw where each type goes: shares of a type over clusters, which add up to 100 %.

    counts: (K, T) int.
    """
    shares = 100 * counts / np.maximum(1, counts.sum(0))
    size = (max(5.5, len(class_names) + 2.2), 0.55 * len(counts) + 2.4)
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    labels = [_wrap(name.replace("_", " "), 12) for name in class_names]
    axis.set_xticks(range(len(class_names)), labels, fontsize=9)
    axis.set_yticks(range(len(counts)), [f"cluster {k}" for k in range(len(counts))])
    for k, t in np.ndindex(*counts.shape):
        color = "white" if shares[k, t] > 55 else "black"
        axis.text(t, k, f"{shares[k, t]:.0f}", ha="center", va="center", color=color)
    figure.colorbar(image, label="% of the type's images")
    set_titles(figure, "Where the images of each type go", subtitle)
    return figure


def plot_quality_by_cluster(
    true: np.ndarray, predicted: np.ndarray, clusters: np.ndarray, n_clusters: int, subtitle: str
) -> Figure:
    """Draw true and predicted quality of each cluster's images, as boxes of quartiles.

    Whiskers are at 5 and 95 %.
    """
    figure = Figure(figsize=(0.9 * n_clusters + 2.5, 4.6), layout="constrained")
    axis = figure.subplots()
    _draw_boxes(axis, true, clusters, n_clusters, -0.18, _TRUE_COLOR, "true")
    _draw_boxes(axis, predicted, clusters, n_clusters, 0.18, _PREDICTED_COLOR, "predicted")
    labels = [f"{k}\n({(clusters == k).sum()})" for k in range(n_clusters)]
    axis.set_xticks(range(n_clusters), labels)
    axis.set(xlabel="cluster (images)", ylabel="quality", ylim=(0, 102))
    axis.legend(loc="lower left")
    set_titles(figure, "Quality inside each cluster", subtitle)
    return figure


def _draw_boxes(axis, values, clusters, n_clusters, shift, color, name):
    inside = [values[clusters == k] for k in range(n_clusters)]
    boxes = axis.boxplot(
        inside,
        positions=np.arange(n_clusters) + shift,
        widths=0.3,
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
    )
    for box in boxes["boxes"]:
        box.set_facecolor(color)
    boxes["boxes"][0].set_label(name)
    for median in boxes["medians"]:
        median.set_color("black")


def plot_embedding(
    points: np.ndarray,
    types: np.ndarray,
    class_names: Sequence[str],
    clusters: np.ndarray,
    n_clusters: int,
    true: np.ndarray,
    method: str,
    subtitle: str,
    axis_names: tuple[str, str] = ("", ""),
) -> Figure:
    """Draw a plane of embeddings (N, 2) three times: coloured by type, cluster and true quality."""
    columns = 4 if max(map(len, class_names)) < 20 else 2
    legend_rows = -(-max(len(class_names), n_clusters) // columns)
    height = 6.2 + 0.17 * max(0, legend_rows - 3)
    figure = Figure(figsize=(16, height), layout="constrained")
    title = f"{method} of the embeddings: neighbours look alike to the network"
    set_titles(figure, title, subtitle)
    by_type, by_cluster, by_quality = figure.subplots(1, 3)
    dots: dict[str, Any] = {"s": 7, "alpha": 0.7, "linewidths": 0}
    below: dict[str, Any] = {
        "loc": "upper center",
        "bbox_to_anchor": (0.5, -0.06),
        "ncol": columns,
        "fontsize": 8,
        "frameon": False,
    }
    x, y = points.T
    _scatter_types(by_type, points, types, class_names, **dots)
    by_type.legend(handles=_type_dots(class_names), **below)
    colors = [_CLUSTER_COLORS[k % len(_CLUSTER_COLORS)] for k in range(n_clusters)]
    by_cluster.scatter(x, y, c=[colors[k] for k in clusters], **dots)
    for k in np.unique(clusters):
        center = np.median(points[clusters == k], axis=0)
        by_cluster.text(
            *center, str(k), ha="center", va="center", fontsize=8, path_effects=[_OUTLINE]
        )
    names = [f"cluster {k}" for k in range(n_clusters)]
    by_cluster.legend(handles=list(map(_legend_dot, names, colors)), **below)
    qualities = by_quality.scatter(x, y, c=true, cmap="viridis", vmin=0, vmax=100, **dots)
    figure.colorbar(qualities, ax=by_quality, label="true quality")
    panels = {"by true type": by_type, "by cluster": by_cluster, "by true quality": by_quality}
    for panel_title, axis in panels.items():
        axis.set(title=panel_title, xticks=[], yticks=[])
        axis.set(xlabel=axis_names[0], ylabel=axis_names[1])
    return figure


def plot_samples(
    images: Mapping[int, np.ndarray],
    captions: Mapping[int, str],
    rows: Mapping[str, np.ndarray],
    subtitle: str,
) -> Figure:
    """Draw images {index: (H, W, 3) uint8} in rows {label: indices}, with a caption for each."""
    columns = max(len(indices) for indices in rows.values())
    size = (1.95 * columns + 1.2, 2.75 * len(rows) + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    set_titles(figure, "Held-out images: what the network says, and what is true", subtitle)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (label, indices) in zip(axes, rows.items()):
        for axis in line[len(indices) :]:
            axis.axis("off")
        for axis, i in zip(line, indices):
            show_image(axis, images[i], captions[i])
        line[0].set_ylabel(shorten(label), fontsize=11)
    return figure


def plot_training_curves(log: Sequence[Mapping[str, Any]], subtitle: str) -> Figure:
    """Draw losses, validation correlations and cluster measures by epoch, refits marked.

    log: a dict for each epoch.
    """
    figure = Figure(figsize=(15, 4.4), layout="constrained")
    set_titles(figure, "Training: a dotted line is a refit of the mixture", subtitle)
    losses, scores, groups = figure.subplots(1, 3)
    _draw_curves(losses, log, ("quality_loss", "cluster_loss", "rank_loss", "type_loss"))
    _draw_curves(scores, log, ("srcc", "plcc"))
    _draw_curves(groups, log, ("nmi", "kept"))
    losses.set(title="training losses, unweighted", yscale="log")
    scores.set_title("validation correlations")
    title = "validation NMI with the types; share that\nkept its cluster at a refit"
    groups.set(title=title, ylim=(0, 1.02))
    return figure


def _draw_curves(axis, log, names):
    epochs = np.array([line["epoch"] + 1 for line in log])
    is_refit = np.array([line["refit"] for line in log], bool)
    for name in names:
        values = np.array([line.get(name, np.nan) for line in log], float)
        is_known = np.isfinite(values)
        if name == "kept":
            is_known &= is_refit  # between refits it only repeats
        if is_known.any():
            axis.plot(epochs[is_known], values[is_known], marker="o", markersize=2.5, label=name)
    for epoch in epochs[is_refit]:
        axis.axvline(epoch - 0.5, color="grey", linestyle=":", linewidth=1)
    axis.set(xlabel="epoch", xlim=(0, epochs[-1] + 1))
    if axis.get_legend_handles_labels()[0]:
        axis.legend()


def plot_ablations(
    names: Sequence[str], columns: Mapping[str, Sequence[Sequence[float]]], subtitle: str
) -> Figure:
    """Draw a row for each ablation, a panel for each measure, and a dot for each seed.

    columns: {measure: [the values of each ablation]}.
    """
    size = (3.2 * len(columns) + 2.6, 0.32 * len(names) + 1.6)
    figure = Figure(figsize=size, layout="constrained")
    title = "What each part of the recipe is worth: a dot for each seed, a bar for their mean"
    set_titles(figure, title, subtitle)
    axes = np.atleast_1d(figure.subplots(1, len(columns), sharey=True))
    for axis, (measure, rows) in zip(axes, columns.items()):
        for place, values in enumerate(rows):
            height = np.full(len(values), place)
            axis.plot(values, height, "o", color=_PREDICTED_COLOR, alpha=0.6, markersize=5)
            mean = np.mean(values)
            axis.plot(mean, place, "|", color=_MEAN_COLOR, markersize=14, markeredgewidth=2)
        axis.set_yticks(range(len(names)), [shorten(name, 40) for name in names])
        axis.set_title(measure, fontsize=10)
        axis.grid(axis="x", alpha=0.3)
        axis.locator_params(axis="x", nbins=6)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    return figure


def _scatter_types(axis, points, types, class_names, s, **options):
    """Draw points (N, 2) in the colour and the shape of their types (N,).

    s is the area of circles. Other shapes are larger, or they could not be told apart.
    """
    colors = type_colors(class_names)
    markers = type_markers(class_names)
    point_colors = np.array([colors[name] for name in class_names])[types]
    point_markers = np.array([markers[name] for name in class_names])[types]
    for marker in np.unique(point_markers):
        inside = point_markers == marker
        x, y = points[inside].T
        area = s if marker == "o" else _SHAPE_FACTOR * s
        axis.scatter(x, y, s=area, c=point_colors[inside], marker=str(marker), **options)


def _type_dots(class_names):
    """Return a legend's handles, in the colours and the shapes of the types."""
    colors = type_colors(class_names)
    markers = type_markers(class_names)
    return [_legend_dot(name, colors[name], markers[name]) for name in class_names]


def _legend_dot(name, color, marker="o"):
    dot = Line2D([], [], marker=marker, linestyle="", color=color, markersize=6)
    dot.set_label(shorten(name))
    return dot


def _wrap(text, length):
    """Return text in at most three lines of about this length."""
    lines = [shorten(line, length) for line in textwrap.wrap(text, length) or [""]]
    return "\n".join(lines[:3])
