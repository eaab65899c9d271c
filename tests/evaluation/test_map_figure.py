"""The figure of a quality map shows what the map holds."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.contour import QuadContourSet
from PIL import Image

from distortions.figures import type_colors
from evaluation import map_figure
from evaluation.map_figure import find_types, plot_quality_map, plot_quality_maps
from models.quality_map import QualityMap
from utils.errors import UserError

TYPES = ("gaussian_blur", "gaussian_noise")
IMAGE = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)


def make_map(quality, class_of_cells, types=TYPES, height=64, width=96):
    """Return a map of one quality, whose cells (2, 3) are sure of their class."""
    probabilities = np.eye(len(TYPES) + 1, dtype=np.float32)[class_of_cells]
    if not types:
        probabilities = probabilities[..., :0]
    return QualityMap(np.full((height, width), quality, np.float32), probabilities, 32, types)


LEFT_IS_BLURRED = np.array([[0, 1, 2], [0, 1, 2]])  # then noise, then pristine


def test_the_most_probable_type_is_found():
    answer = make_map(30, LEFT_IS_BLURRED)

    found = find_types(answer.quality, answer.type_probabilities, 32)

    assert (found[:, :16] == 0).all()
    assert (found[:, 17:48] == 1).all()
    assert (found[:, 49:] == -1).all()  # pristine


def test_no_type_is_named_where_quality_is_high():
    answer = make_map(90, LEFT_IS_BLURRED)

    assert (find_types(answer.quality, answer.type_probabilities, 32) == -1).all()


def test_the_legend_has_each_distortion_in_its_colour():
    figure = plot_quality_map(IMAGE, make_map(30, LEFT_IS_BLURRED))

    legend = figure.axes[2].get_legend()
    texts = [text.get_text() for text in legend.get_texts()]
    colors = [to_hex(patch.get_facecolor()) for patch in legend.get_patches()]
    assert texts == ["gaussian noise, 33%", "gaussian blur, 18%"]
    assert colors == list(type_colors(reversed(TYPES)).values())


@pytest.mark.parametrize("image", ("photo.jpg", IMAGE[:40], Image.fromarray(IMAGE[:, :40])))
def test_another_image_than_the_maps_is_refused(image):
    with pytest.raises(UserError, match="expected the image that the map was made of, 96×64"):
        plot_quality_map(image, make_map(30, LEFT_IS_BLURRED))


def test_a_regions_outline_is_drawn_over_image_and_map():
    region = np.zeros((64, 96), bool)
    region[16:48, 24:72] = True
    answer = make_map(90, LEFT_IS_BLURRED)  # nothing is named, so that nothing else is outlined

    figure = plot_quality_maps([IMAGE], [answer], ["a part"], regions=[region])

    for axis, count in zip(figure.axes[:3], (1, 1, 0)):
        outlines = [set_ for set_ in axis.collections if isinstance(set_, QuadContourSet)]
        assert len(outlines) == count
        for outline in outlines:
            (left, top), (right, bottom) = outline.get_paths()[0].get_extents().get_points()
            assert (left, top, right, bottom) == pytest.approx((24, 16, 71, 47), abs=1)


def test_the_scale_is_the_same_in_every_figure():
    for quality in (10, 90):
        figure = plot_quality_map(IMAGE, make_map(quality, LEFT_IS_BLURRED))

        bars = [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]
        assert [bar.get_xlim() for bar in bars] == [(0, 100)]


def test_without_a_type_head_there_are_two_panels():
    figure = plot_quality_map(IMAGE, make_map(30, LEFT_IS_BLURRED, types=()))

    assert len(figure.axes) == 3  # the image, its quality, and the colour bar


@pytest.mark.parametrize("kind", ("array", "PIL", "grey PIL"))
def test_any_image_can_be_drawn(kind):
    images = {"array": IMAGE, "PIL": Image.fromarray(IMAGE)}
    images["grey PIL"] = images["PIL"].convert("L")

    figure = plot_quality_map(images[kind], make_map(30, LEFT_IS_BLURRED))

    assert figure.axes[0].get_images()[0].get_array().shape == (64, 96, 3)


def test_of_a_large_image_every_nth_pixel_is_drawn(monkeypatch):
    monkeypatch.setattr(map_figure, "MOST_PIXELS", 40)

    figure = plot_quality_map(IMAGE, make_map(30, LEFT_IS_BLURRED))

    shown = figure.axes[0].get_images()[0].get_array()
    assert np.array_equal(shown, IMAGE[::3, ::3])
    texts = [text.get_text() for text in figure.axes[2].get_legend().get_texts()]
    assert texts == ["gaussian noise, 34%", "gaussian blur, 19%"]
