"""Arrays in, matplotlib Figures out. One colour a distortion, everywhere."""

import textwrap

import numpy as np
from matplotlib.colors import hsv_to_rgb, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from distortions.standard import DISTORTIONS

# Colours of the registered types in their order: the default eight, then those chosen by name.
_HUES = ("#1f77b4", "#17becf", "#7f7f7f", "#d62728", "#9467bd", "#8c564b", "#ff7f0e", "#e377c2",
         "#393b79", "#bcbd22", "#637939", "#843c39", "#ad494a", "#7b4173")  # fmt: skip
_PRISTINE_HUE = "#2ca02c"
_CLUSTER_HUES = ("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f",
                 "#bab0ac", "#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d", "#666666",
                 "#8dd3c7", "#fb8072", "#80b1d3", "#fdb462", "#b3de69", "#bc80bd")  # fmt: skip


def type_colors(names):
    """{name: colour} by a type's place in the registry, so that a type has the same colour in every figure."""
    colors = dict(zip(DISTORTIONS, _HUES))
    for i, name in enumerate(list(DISTORTIONS)[len(_HUES) :]):
        colors[name] = to_hex(hsv_to_rgb(((0.1 + 0.618 * i) % 1, 0.9, 0.45)))
    return {name: colors.get(name, _PRISTINE_HUE) for name in names}


def plot_distortion_examples(reference, rows, subtitle):
    """Every type and direction (rows) at rising levels (columns), beside the reference. reference (H, W, 3) uint8;
    rows [(type, direction's name, [(image, quality) a level])]."""
    columns = len(rows[0][2]) + 1
    figure = Figure(figsize=(1.75 * columns + 1.6, 1.95 * len(rows) + 0.8), layout="constrained")
    figure.suptitle(
        f"Each row gets worse to the right: every distortion, its levels, the quality left\n{subtitle}"
    )
    axes = figure.subplots(len(rows), columns, squeeze=False)
    colors = type_colors([name for name, _, _ in rows])
    for line, (name, direction, cells) in zip(axes, rows):
        for axis, (image, title) in zip(
            line, [(reference, "reference, 100")] + _level_titles(cells)
        ):
            _show(axis, image, title)
        label = name.replace("_", " ") + (f"\n({direction})" if direction else "")
        line[0].set_ylabel(
            label, rotation=0, ha="right", va="center", color=colors[name], fontsize=11, labelpad=8
        )
    return figure


def _level_titles(cells):
    levels = np.arange(1, len(cells) + 1) / len(cells)
    return [
        (image, f"level {level:.1f}, quality {quality:.0f}")
        for level, (image, quality) in zip(levels, cells)
    ]


def plot_pair(reference, image, title):
    """An image (3, H, W) uint8 beside its reference."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    figure.suptitle(title)
    for axis, pixels, name in zip(
        figure.subplots(1, 2), (reference, image), ("reference", "distorted")
    ):
        _show(axis, pixels.transpose(1, 2, 0), name)
    return figure


def plot_predicted_vs_true(true, predicted, types, class_names, srcc, interval, subtitle):
    """Predicted against true quality, a dot an image. Arrays (N,)."""
    figure = Figure(figsize=(7.4, 6), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 100], [0, 100], color="black", linewidth=0.8, linestyle="--", label="perfect")
    colors = type_colors(class_names)
    order = np.random.default_rng(0).permutation(len(true))  # so that no type lies on top
    axis.scatter(
        true[order],
        predicted[order],
        s=6,
        alpha=0.5,
        c=[colors[class_names[t]] for t in types[order]],
    )
    axis.set(
        xlim=(0, 102),
        ylim=(0, 102),
        xlabel="true quality (100 is pristine)",
        ylabel="predicted quality",
    )
    title = (
        f"Predicted against true quality: SRCC {srcc:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
    )
    _title(axis, title, subtitle)
    _type_legend(figure, class_names)
    return figure


def plot_srcc_by_type(values, names, overall, subtitle):
    """How well images are ordered inside each distortion type; `overall` without the pristine images."""
    figure = Figure(figsize=(7.4, 4.2), layout="constrained")
    axis = figure.subplots()
    order = np.argsort(np.nan_to_num(values, nan=-1))
    colors = type_colors(names)
    bars = axis.barh(
        [names[i] for i in order], values[order], color=[colors[names[i]] for i in order]
    )
    axis.bar_label(
        bars,
        fmt="%.2f",
        padding=3,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        zorder=3,
    )
    axis.axvline(
        overall,
        color="black",
        linestyle="--",
        linewidth=1,
        label=f"all distorted images: {overall:.2f}",
    )
    axis.set(
        xlim=(min(0, np.nanmin(values) - 0.1), 1.08),
        xlabel="SRCC inside the type (1 orders every level)",
    )
    axis.legend(loc="lower right")
    _title(axis, "Which distortions' levels are told apart", subtitle)
    return figure


def plot_quality_vs_level(levels, predicted, types, names, worst, subtitle):
    """Median predicted quality against the level, a panel a type, with the band of the middle 80 %; dashed is true."""
    columns = 4
    count = -(-len(names) // columns)
    figure = Figure(figsize=(12, 2.9 * count + 0.6), layout="constrained")
    _suptitle(
        figure,
        "Does predicted quality fall with the level? Dashed is true, the band holds the middle 80 % of images",
        subtitle,
    )
    edges = np.linspace(levels[levels > 0].min(initial=0.2), 1, 9)
    colors = type_colors(names)
    axes = figure.subplots(count, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for i, (axis, name) in enumerate(zip(axes, names)):
        inside = types == i
        axis.plot([0, 1], [100, worst[i]], color="black", linestyle="--", linewidth=1)
        bins = np.clip(np.digitize(levels[inside], edges) - 1, 0, len(edges) - 2)
        filled = [b for b in range(len(edges) - 1) if (bins == b).sum() >= 3]
        if filled:
            bands = np.array(
                [np.percentile(predicted[inside][bins == b], [10, 50, 90]) for b in filled]
            )
            centers = ((edges[:-1] + edges[1:]) / 2)[filled]
            axis.fill_between(
                centers, bands[:, 0], bands[:, 2], color=colors[name], alpha=0.25, linewidth=0
            )
            axis.plot(centers, bands[:, 1], color=colors[name], marker="o", markersize=3)
        axis.set(title=name, xlim=(0, 1.02), ylim=(0, 102))
    for axis in axes[len(names) :]:
        axis.axis("off")
    figure.supxlabel("level")
    figure.supylabel("predicted quality")
    return figure


def plot_cluster_distribution(counts, class_names, cluster_labels, subtitle):
    """What is in each cluster: images stacked by type. counts (K, T) int."""
    figure = Figure(figsize=(11, 0.62 * len(counts) + 2.2), layout="constrained")
    axis = figure.subplots()
    colors, left = type_colors(class_names), np.zeros(len(counts))
    for t, name in enumerate(class_names):
        axis.barh(range(len(counts)), counts[:, t], left=left, color=colors[name], label=name)
        left += counts[:, t]
    axis.set_yticks(range(len(counts)), [textwrap.fill(label, 40) for label in cluster_labels])
    axis.invert_yaxis()
    axis.set_xlabel("images")
    _title(axis, "What is wrong with the images of each cluster", subtitle)
    _type_legend(figure, class_names)
    return figure


def plot_cluster_by_type(counts, class_names, subtitle):
    """Where each type goes: shares of a type (columns add up to 100 %) over clusters. counts (K, T) int."""
    shares = 100 * counts / np.maximum(1, counts.sum(0))
    figure = Figure(
        figsize=(1.0 * len(class_names) + 2.2, 0.55 * len(counts) + 2.4), layout="constrained"
    )
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axis.set_xticks(
        range(len(class_names)), [name.replace("_", "\n") for name in class_names], fontsize=9
    )
    axis.set_yticks(range(len(counts)), [f"cluster {k}" for k in range(len(counts))])
    for k, t in np.ndindex(*counts.shape):
        axis.text(
            t,
            k,
            f"{shares[k, t]:.0f}",
            ha="center",
            va="center",
            color="white" if shares[k, t] > 55 else "black",
        )
    figure.colorbar(image, label="% of the type's images")
    _title(axis, "Where the images of each type go", subtitle)
    return figure


def plot_quality_by_cluster(true, predicted, clusters, n_clusters, subtitle):
    """True and predicted quality of each cluster's images, as boxes of quartiles with whiskers at 5 and 95 %."""
    figure = Figure(figsize=(0.9 * n_clusters + 2.5, 4.6), layout="constrained")
    axis = figure.subplots()
    for shift, values, color, name in (
        (-0.18, true, "#bbbbbb", "true"),
        (0.18, predicted, "#4e79a7", "predicted"),
    ):
        inside = [values[clusters == k] for k in range(n_clusters)]
        places = np.arange(n_clusters) + shift
        boxes = axis.boxplot(
            inside, positions=places, widths=0.3, whis=(5, 95), showfliers=False, patch_artist=True
        )
        for box in boxes["boxes"]:
            box.set(facecolor=color, label=name if box is boxes["boxes"][0] else None)
        for median in boxes["medians"]:
            median.set_color("black")
    labels = [f"{k}\n({(clusters == k).sum()})" for k in range(n_clusters)]
    axis.set_xticks(range(n_clusters), labels)
    axis.set(xlabel="cluster (images)", ylabel="quality", ylim=(0, 102))
    axis.legend(loc="lower left")
    _title(axis, "Quality inside each cluster", subtitle)
    return figure


def plot_embedding(
    points, types, class_names, clusters, n_clusters, true, method, subtitle, axis_names=("", "")
):
    """A plane of embeddings (N, 2) three times: coloured by type, by cluster and by true quality."""
    figure = Figure(figsize=(16, 6.2), layout="constrained")
    _suptitle(figure, f"{method} of the embeddings: neighbours look alike to the network", subtitle)
    by_type, by_cluster, by_quality = figure.subplots(1, 3)
    colors = type_colors(class_names)
    hues = [_CLUSTER_HUES[k % len(_CLUSTER_HUES)] for k in range(n_clusters)]
    dots = {"s": 7, "alpha": 0.7, "linewidths": 0}
    by_type.scatter(*points.T, c=[colors[class_names[t]] for t in types], **dots)
    by_cluster.scatter(*points.T, c=[hues[k] for k in clusters], **dots)
    shown = by_quality.scatter(*points.T, c=true, cmap="viridis", vmin=0, vmax=100, **dots)
    figure.colorbar(shown, ax=by_quality, label="true quality")
    handles = _handles(class_names, [colors[name] for name in class_names])
    below = {
        "loc": "upper center",
        "bbox_to_anchor": (0.5, -0.06),
        "ncol": 4,
        "fontsize": 8,
        "frameon": False,
    }
    by_type.legend(handles=handles, **below)
    cluster_handles = _handles([f"cluster {k}" for k in range(n_clusters)], hues)
    by_cluster.legend(handles=cluster_handles, **below)
    for axis, title in (
        (by_type, "by true type"),
        (by_cluster, "by cluster"),
        (by_quality, "by true quality"),
    ):
        axis.set(title=title, xlabel=axis_names[0], ylabel=axis_names[1], xticks=[], yticks=[])
    return figure


def plot_samples(images, captions, rows, subtitle):
    """Images {index: (3, H, W) uint8} in labelled rows, a caption each. rows [(label, indices)]."""
    columns = max(len(indices) for _, indices in rows)
    figure = Figure(figsize=(1.95 * columns + 1.2, 2.75 * len(rows) + 0.8), layout="constrained")
    _suptitle(figure, "Held-out images: what the network says, and what is true", subtitle)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (label, indices) in zip(axes, rows):
        for axis in line[len(indices) :]:
            axis.axis("off")
        for axis, i in zip(line, indices):
            _show(axis, images[i].transpose(1, 2, 0), captions[i])
        line[0].set_ylabel(label, fontsize=11)
    return figure


def plot_training_curves(log, subtitle):
    """Losses, validation correlations and cluster measures by epoch, refits marked. log: a dict an epoch."""
    epochs = np.array([line["epoch"] + 1 for line in log])
    refits = epochs[[line["refit"] for line in log]]
    figure = Figure(figsize=(15, 4.4), layout="constrained")
    _suptitle(figure, "Training: a dotted line is a refit of the mixture", subtitle)
    losses, scores, groups = figure.subplots(1, 3)
    for axis, names in (
        (losses, ("quality_loss", "cluster_loss", "type_loss")),
        (scores, ("srcc", "plcc")),
        (groups, ("nmi", "kept")),
    ):
        for name in names:
            shown = (
                line if name != "kept" or line["refit"] else {} for line in log
            )  # between refits it only repeats
            values = np.array([line.get(name, np.nan) for line in shown], float)
            known = np.isfinite(values)
            if known.any():
                axis.plot(epochs[known], values[known], marker="o", markersize=2.5, label=name)
        for epoch in refits:
            axis.axvline(epoch - 0.5, color="grey", linestyle=":", linewidth=1)
        axis.set(xlabel="epoch", xlim=(0, epochs[-1] + 1))
        if axis.lines and axis.get_legend_handles_labels()[0]:
            axis.legend()
    losses.set(title="training losses, unweighted", yscale="log")
    scores.set_title("validation correlations")
    groups.set(
        title="validation NMI with the types; share that\nkept its cluster at a refit",
        ylim=(0, 1.02),
    )
    return figure


def plot_arms(names, columns, subtitle):
    """A row an arm, a panel a measure, a dot a seed. columns {measure: [values of each arm]}."""
    figure = Figure(
        figsize=(3.2 * len(columns) + 2.6, 0.32 * len(names) + 1.6), layout="constrained"
    )
    _suptitle(
        figure, "What each arm of the recipe is worth: a dot a seed, a bar their mean", subtitle
    )
    for axis, (measure, values) in zip(
        np.atleast_1d(figure.subplots(1, len(columns), sharey=True)), columns.items()
    ):
        for place, of_arm in enumerate(values):
            axis.plot(
                of_arm, np.full(len(of_arm), place), "o", color="#4e79a7", alpha=0.6, markersize=5
            )
            axis.plot(
                np.mean(of_arm), place, "|", color="#e15759", markersize=14, markeredgewidth=2
            )
        axis.set_yticks(range(len(names)), names)
        axis.set_title(measure, fontsize=10)
        axis.grid(axis="x", alpha=0.3)
        axis.locator_params(axis="x", nbins=6)
    axis.set_ylim(len(names) - 0.4, -0.6)
    return figure


def _show(axis, image, title):
    axis.imshow(image, interpolation="nearest")
    axis.set_title(title, fontsize=8)
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)


def _title(axis, title, subtitle):
    axis.set_title(f"{title}\n", fontsize=12)
    axis.text(
        0.5, 1.015, subtitle, transform=axis.transAxes, ha="center", fontsize=8.5, color="#555555"
    )


def _suptitle(figure, title, subtitle):
    figure.suptitle(f"{title}\n{subtitle}", fontsize=12)


def _handles(names, colors):
    return [
        Line2D([], [], marker="o", linestyle="", color=color, label=name, markersize=6)
        for name, color in zip(names, colors)
    ]


def _type_legend(figure, class_names):
    colors = type_colors(class_names)
    figure.legend(
        handles=_handles(class_names, [colors[n] for n in class_names]),
        loc="outside right center",
        fontsize=9,
    )
