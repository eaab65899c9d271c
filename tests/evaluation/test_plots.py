"""Every figure can be drawn, and shows what its arrays hold."""

from collections import Counter
from itertools import combinations

import cv2
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from distortions import figures
from distortions.figures import ExampleRow, bar_style, type_colors, type_markers
from distortions.registry import DISTORTION_TYPES, DISTORTIONS, select_types
from evaluation import plots

# What is seen without red or without green cones (Machado, Oliveira and Fernandes, 2009).
VISIONS = {
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
CLASSES = (*DISTORTION_TYPES, "pristine")
RNG = np.random.default_rng(0)
TYPES = np.repeat(np.arange(9), 20)
TRUE = RNG.uniform(20, 100, 180)
PREDICTED = RNG.uniform(20, 100, 180)
LEVELS = RNG.uniform(0.2, 1, 180)
CLUSTERS = RNG.integers(0, 8, 180)
COUNTS = RNG.integers(1, 50, (8, 9))
POINTS = RNG.normal(size=(180, 2))
IMAGES = RNG.integers(0, 256, (180, 8, 8, 3), dtype=np.uint8)
WORST = [DISTORTIONS[name].worst_quality for name in DISTORTION_TYPES]


def make_log(epochs, refits, **values):
    """Return lines of a log, with the same values in every epoch."""
    lines = []
    for epoch in range(epochs):
        lines.append({"epoch": epoch, "refit": epoch in refits, "srcc": 0.5, "plcc": 0.5, **values})
    return lines


LOG = make_log(4, refits=(2,), quality_loss=0.1, nmi=0.4)
EXAMPLES = [ExampleRow("contrast", "low", list(IMAGES[:5]))]
ROWS = {"best": np.array([1, 2, 3]), "worst": np.array([4])}
COLUMNS = {"SRCC": [[0.8, 0.81], [0.7, 0.75]]}

FIGURES = {
    "examples": lambda: figures.plot_distortion_examples(IMAGES[0], EXAMPLES, "s"),
    "pair": lambda: figures.plot_pair(IMAGES[0], IMAGES[1], "t"),
    "predicted": lambda: plots.plot_predicted_vs_true(
        TRUE, PREDICTED, TYPES, CLASSES, 0.8, (0.7, 0.9), "s"
    ),
    "srcc": lambda: plots.plot_srcc_by_type(
        np.array([0.5, np.nan]), ("contrast", "pixelation"), 0.6, "s"
    ),
    "level": lambda: plots.plot_quality_vs_level(
        LEVELS, PREDICTED, TYPES, DISTORTION_TYPES, WORST, "s"
    ),
    "distribution": lambda: plots.plot_cluster_distribution(COUNTS, CLASSES, list("abcdefgh"), "s"),
    "heatmap": lambda: plots.plot_cluster_by_type(COUNTS, CLASSES, "s"),
    "quality": lambda: plots.plot_quality_by_cluster(TRUE, PREDICTED, CLUSTERS, 9, "s"),
    "embedding": lambda: plots.plot_embedding(
        POINTS, TYPES, CLASSES, CLUSTERS, 8, TRUE, "PCA", "s"
    ),
    "samples": lambda: plots.plot_samples(dict(enumerate(IMAGES)), ["c"] * 180, ROWS, "s"),
    "curves": lambda: plots.plot_training_curves(LOG, "s"),
    "ablations": lambda: plots.plot_ablations(["both", "plain"], COLUMNS, "s"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_a_title_and_is_drawn(name, tmp_path):
    figure = FIGURES[name]()

    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "figure.png")
    assert figure.get_suptitle() or any(axis.get_title() for axis in figure.axes)


def test_a_type_has_one_colour_in_every_figure():
    everything = type_colors([*DISTORTIONS, "pristine"])

    some = type_colors(["rain", "contrast"])

    assert some == {name: everything[name] for name in ("rain", "contrast")}


def test_no_two_types_share_a_colour():
    colors = type_colors([*DISTORTIONS, "pristine"])

    assert len(set(colors.values())) == len(colors)


def test_the_default_eight_are_plain_bars_and_circles():
    """As they have been drawn since they have their colours."""
    for name in CLASSES:
        assert bar_style(name) == {"color": type_colors([name])[name]}
        assert type_markers([name]) == {name: "o"}


def test_kadids_types_of_one_sign_differ_in_colour_for_colour_blind_people():
    """Their signs are shared by at most three types, and not with pristine images."""
    names = select_types("kadid")
    markers = type_markers(names)
    hatches = {name: bar_style(name)["hatch"] for name in names}
    colors = type_colors(names)

    for signs in (markers, hatches):
        assert max(Counter(signs.values()).values()) == 3
    assert "o" not in markers.values()
    for first, second in combinations(names, 2):
        if markers[first] == markers[second] or hatches[first] == hatches[second]:
            for vision in VISIONS.values():
                seen = [see(colors[name], vision) for name in (first, second)]
                assert np.linalg.norm(seen[0] - seen[1]) > 12, (first, second)


def see(color: str, vision: np.ndarray) -> np.ndarray:
    """Return the CIELAB (3,) of a colour as people of this vision see it."""
    values = np.array(to_rgb(color))
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    linear = (vision @ linear).clip(0, 1)
    seen = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(seen[None, None].astype(np.float32), cv2.COLOR_RGB2LAB)[0, 0]


def test_scattered_types_have_their_colours_and_shapes():
    """Circles of pristine images are a collection, and each other shape is one."""
    classes = ("kadid_jpeg", "kadid_jitter", "kadid_lens_blur", "pristine")
    types = np.arange(4)

    figure = plots.plot_embedding(
        points=POINTS[:4],
        types=types,
        class_names=classes,
        clusters=types,
        n_clusters=4,
        true=TRUE[:4],
        method="PCA",
        subtitle="s",
    )

    by_type, by_cluster = figure.axes[:2]
    drawn = {
        to_hex(color): tuple(place)
        for dots in by_type.collections
        for color, place in zip(dots.get_facecolors(), dots.get_offsets())
    }
    colors = type_colors(classes)
    assert drawn == {colors[name]: tuple(point) for name, point in zip(classes, POINTS)}
    assert len(by_type.collections) == len(set(type_markers(classes).values()))
    assert [text.get_text() for text in by_cluster.texts] == ["0", "1", "2", "3"]


def test_stacked_bars_hold_the_counts_in_their_colours():
    counts = COUNTS[:3]

    axis = plots.plot_cluster_distribution(counts, CLASSES, list("abc"), "s").axes[0]

    colors = type_colors(CLASSES)
    for t, bars in enumerate(axis.containers):
        assert [bar.get_width() for bar in bars] == counts[:, t].tolist()
        assert to_hex(bars[0].get_facecolor()) == colors[CLASSES[t]]


def test_heatmap_columns_are_shares_of_a_type():
    counts = np.array([[30, 0], [10, 5]])

    figure = plots.plot_cluster_by_type(counts, ("contrast", "pristine"), "s")

    assert figure.axes[0].images[0].get_array().tolist() == [[75, 0], [25, 100]]


def test_refits_are_marked_in_the_training_curves():
    axis = plots.plot_training_curves(LOG, "s").axes[1]

    dotted = [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == ":"]

    assert dotted == [2.5]


def test_label_stability_is_drawn_at_refits_alone():
    log = make_log(6, refits=(2, 4), quality_loss=0.1, kept=0.9)

    axis = plots.plot_training_curves(log, "s").axes[2]

    (kept,) = [line for line in axis.lines if line.get_label() == "kept"]
    assert kept.get_xdata().tolist() == [3, 5]
