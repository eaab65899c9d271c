import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from distortions.registry import DISTORTION_TYPES, DISTORTIONS
from evaluation import plots

CLASSES = (*DISTORTION_TYPES, "pristine")
RNG = np.random.default_rng(0)
TYPES = np.repeat(np.arange(9), 20)
TRUE, PREDICTED = RNG.uniform(20, 100, 180), RNG.uniform(20, 100, 180)
LEVELS, CLUSTERS = RNG.uniform(0.2, 1, 180), RNG.integers(0, 8, 180)
IMAGES = RNG.integers(0, 256, (180, 3, 8, 8), dtype=np.uint8)
LOG = [
    {
        "epoch": e,
        "refit": e == 2,
        "quality_loss": 0.1,
        "srcc": 0.5,
        "plcc": 0.5,
        **({"nmi": 0.4} if e > 1 else {}),
    }
    for e in range(4)
]
WORST = [DISTORTIONS[name].worst_quality for name in DISTORTION_TYPES]

FIGURES = {
    "examples": lambda: plots.plot_distortion_examples(IMAGES[0].transpose(1, 2, 0), [("contrast", "low", [(IMAGES[1].transpose(1, 2, 0), 90.0)] * 5)], "s"),
    "pair": lambda: plots.plot_pair(IMAGES[0], IMAGES[1], "t"),
    "predicted": lambda: plots.plot_predicted_vs_true(TRUE, PREDICTED, TYPES, CLASSES, 0.8, (0.7, 0.9), "s"),
    "srcc": lambda: plots.plot_srcc_by_type(np.array([0.5, np.nan]), ("contrast", "pixelation"), 0.6, "s"),
    "level": lambda: plots.plot_quality_vs_level(LEVELS, PREDICTED, TYPES, DISTORTION_TYPES, WORST, "s"),
    "distribution": lambda: plots.plot_cluster_distribution(RNG.integers(0, 50, (8, 9)), CLASSES, list("abcdefgh"), "s"),
    "heatmap": lambda: plots.plot_cluster_by_type(RNG.integers(0, 50, (8, 9)), CLASSES, "s"),
    "quality": lambda: plots.plot_quality_by_cluster(TRUE, PREDICTED, CLUSTERS, 9, "s"),
    "embedding": lambda: plots.plot_embedding(RNG.normal(size=(180, 2)), TYPES, CLASSES, CLUSTERS, 8, TRUE, "PCA", "s"),
    "samples": lambda: plots.plot_samples(IMAGES, ["c"] * 180, [("best", [1, 2, 3]), ("worst", [4])], "s"),
    "curves": lambda: plots.plot_training_curves(LOG, "s"),
}  # fmt: skip


@pytest.mark.parametrize("name", FIGURES)
def test_every_plot_is_a_titled_figure_that_can_be_drawn(name, tmp_path):
    figure = FIGURES[name]()
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "figure.png")
    assert figure.get_suptitle() or any(axis.get_title() for axis in figure.axes)


def test_a_type_has_one_colour_whatever_else_is_shown_and_no_two_share_one():
    everything = plots.type_colors([*DISTORTIONS, "pristine"])
    assert plots.type_colors(["rain", "contrast"]) == {
        name: everything[name] for name in ("rain", "contrast")
    }
    assert len(set(everything.values())) == len(everything)


def test_stacked_bars_hold_the_counts_in_the_types_colours():
    counts = RNG.integers(1, 50, (3, 9))
    axis = plots.plot_cluster_distribution(counts, CLASSES, list("abc"), "s").axes[0]
    colors = plots.type_colors(CLASSES)
    for t, bars in enumerate(axis.containers):
        assert [bar.get_width() for bar in bars] == counts[:, t].tolist()
        assert to_hex(bars[0].get_facecolor()) == colors[CLASSES[t]]


def test_heatmap_columns_are_shares_of_a_type():
    counts = np.array([[30, 0], [10, 5]])
    image = plots.plot_cluster_by_type(counts, ("contrast", "pristine"), "s").axes[0].images[0]
    assert image.get_array().tolist() == [[75, 0], [25, 100]]


def test_refits_are_marked_in_the_training_curves():
    axis = plots.plot_training_curves(LOG, "s").axes[1]
    dotted = [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == ":"]
    assert dotted == [2.5]


def test_the_share_that_kept_its_cluster_is_drawn_at_refits_alone():
    log = [
        {
            "epoch": e,
            "refit": e in (2, 4),
            "quality_loss": 0.1,
            "srcc": 0.5,
            "plcc": 0.5,
            "kept": 0.9,
        }
        for e in range(6)
    ]
    kept = next(
        line
        for line in plots.plot_training_curves(log, "s").axes[2].lines
        if line.get_label() == "kept"
    )
    assert kept.get_xdata().tolist() == [3, 5]
