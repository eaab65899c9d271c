"""Any name of a run, a folder or a type leaves the axes their width, and shows."""

import warnings

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from distortions.registry import DISTORTION_TYPES, DISTORTIONS
from evaluation import plots
from utils import drawing
from utils.drawing import LONGEST_NAME, default_style, drawable, save_figure, shorten

RNG = np.random.default_rng(0)
COUNT = 60
TRUE = RNG.uniform(20, 100, COUNT)
PREDICTED = RNG.uniform(20, 100, COUNT)
LEVELS = RNG.uniform(0.2, 1, COUNT)
POINTS = RNG.normal(size=(COUNT, 2))
IMAGES = RNG.integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
LOG = [{"epoch": i, "refit": i == 1, "srcc": 0.5, "quality_loss": 0.1} for i in range(3)]
NAMES = {
    "short": "a",
    "24 letters": "resnet18_distorted_photo",
    "70 letters": "x" * 70,
    "300 letters": "long_name_" * 30,
    "words": "my very own run " * 12,
    "Chinese": "图片质量实验" * 8,
    "Arabic": "تجربة جودة الصور " * 5,
    "emoji": "🙂🧪🎉" * 10,
    "dollars": "price_$5_to_$10",
    "formula": r"$\frac{1}{0}$ and $",
    "backslashes": r"C:\Users\me\%TEMP%",
    "underscore": "_hidden",
    "new line": "two\nlines",
    "braces": "{x} 100 % <b>",
}
LONG_TYPES = tuple(f"a_distortion_with_a_rather_long_name_{i:02d}" for i in range(30))


def plot_all(name, n_clusters, types):
    """Return {figure's name: what draws it}."""
    class_names = (*types, "pristine")
    kinds = RNG.integers(0, len(class_names), COUNT)
    clusters = RNG.integers(0, n_clusters, COUNT)
    counts = RNG.integers(0, 9, (n_clusters, len(class_names)))
    short = shorten(name, LONGEST_NAME)
    subtitle = f"{short}, 3000 held-out images from {short}"
    labels = [f"{k}: {types[0]} 52 %, {types[-1]} 31 %, quality 20–80" for k in range(n_clusters)]
    rows = {"by true quality": np.arange(8), "best scored": np.arange(8)}
    captions = dict.fromkeys(range(COUNT), f"{shorten(types[0], 20)} 0.52\npredicted 40, true 41")
    return {
        "predicted": lambda: plots.plot_predicted_vs_true(
            TRUE, PREDICTED, kinds, class_names, 0.8, (0.7, 0.9), subtitle
        ),
        "srcc": lambda: plots.plot_srcc_by_type(
            RNG.uniform(-1, 1, len(types)), types, 0.6, subtitle
        ),
        "level": lambda: plots.plot_quality_vs_level(
            LEVELS, PREDICTED, kinds, types, [40] * len(types), subtitle
        ),
        "distribution": lambda: plots.plot_cluster_distribution(
            counts, class_names, labels, subtitle
        ),
        "heatmap": lambda: plots.plot_cluster_by_type(counts, class_names, subtitle),
        "quality": lambda: plots.plot_quality_by_cluster(
            TRUE, PREDICTED, clusters, n_clusters, subtitle
        ),
        "embedding": lambda: plots.plot_embedding(
            POINTS, kinds, class_names, clusters, n_clusters, TRUE, "PCA", subtitle
        ),
        "samples": lambda: plots.plot_samples(dict(enumerate(IMAGES)), captions, rows, subtitle),
        "curves": lambda: plots.plot_training_curves(LOG, subtitle),
    }


PLOTS = tuple(plot_all("a", 8, DISTORTION_TYPES))


def measure(function, path):
    """Draw and save; return the share of the width that the axes take, and the titles' places."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with default_style():
            figure = function()
        save_figure(figure, path)
        with default_style():
            renderer = FigureCanvasAgg(figure).get_renderer()
            titles = [*figure.texts, *(axis.title for axis in figure.axes)]
            boxes = [text.get_window_extent(renderer) for text in titles if text.get_text()]
    rows = {}
    for axis in figure.axes:
        box = axis.get_position()
        rows.setdefault(round(box.y0, 2), []).append(box.width)
    return max(map(sum, rows.values())), boxes, figure.bbox


# Every figure with the longest names, and one figure with every name: titles are made alike.
CASES = [(name, plot) for name in ("300 letters", "Chinese") for plot in PLOTS]
CASES += [(name, "predicted") for name in NAMES]


@pytest.mark.slow
@pytest.mark.parametrize("name, plot", CASES)
def test_axes_keep_their_width_with_any_name(tmp_path, name, plot):
    function = plot_all(NAMES[name], 8, DISTORTION_TYPES)[plot]

    share, boxes, page = measure(function, tmp_path / "figure.png")

    assert share >= 0.6
    for box in boxes:
        assert box.x0 >= page.x0 - 2
        assert box.x1 <= page.x1 + 2
        assert box.y1 <= page.y1 + 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "n_clusters, types", ((2, DISTORTION_TYPES[:1]), (2, LONG_TYPES[:8]), (24, LONG_TYPES[:8]))
)
@pytest.mark.parametrize("plot", PLOTS)
def test_axes_keep_their_width_with_any_clusters_and_types(
    tmp_path, monkeypatch, n_clusters, types, plot
):
    for type_name in types:
        monkeypatch.setitem(DISTORTIONS, type_name, DISTORTIONS["contrast"])
    function = plot_all("resnet18_distorted", n_clusters, types)[plot]

    share, _, _ = measure(function, tmp_path / "figure.png")

    assert share >= 0.6


def test_characters_that_no_font_has_become_escapes(monkeypatch):
    monkeypatch.setattr(drawing, "font_families", lambda: (drawing.BASE_FONT,))

    assert drawable("run 图1") == r"run \u56fe1"
    assert drawable("été") == "été"
    assert drawable("🧪") == r"\U0001f9ea"


def test_an_installed_font_is_used_for_its_characters(monkeypatch):
    monkeypatch.setattr(drawing, "FALLBACK_FONTS", ("DejaVu Serif", "A Font That Is Not There"))
    drawing.font_families.cache_clear()

    families = drawing.font_families()
    drawing.font_families.cache_clear()

    assert families == (drawing.BASE_FONT, "DejaVu Serif")


def test_dollars_are_drawn_as_they_are():
    assert drawable("price_$5_to_$10") == r"price_\$5_to_\$10"


def test_names_are_shortened_in_their_middle():
    assert shorten("abcdefghij", 7) == "abc…hij"
    assert shorten("abc", 7) == "abc"
    assert shorten("two\nlines") == r"two\nlines"


@pytest.mark.parametrize(
    "settings",
    (
        {"text.usetex": True},
        {"font.size": 40, "figure.dpi": 300},
        {"font.family": "A Font That Is Not There"},
        {"axes.titlesize": 60, "figure.constrained_layout.use": False},
    ),
)
def test_a_users_settings_change_nothing(tmp_path, settings):
    import matplotlib

    function = plot_all("a", 8, DISTORTION_TYPES)["srcc"]
    rng_state = RNG.bit_generator.state
    measure(function, tmp_path / "expected.png")
    RNG.bit_generator.state = rng_state
    with matplotlib.rc_context(settings):
        measure(function, tmp_path / "found.png")

    assert (tmp_path / "found.png").read_bytes() == (tmp_path / "expected.png").read_bytes()
