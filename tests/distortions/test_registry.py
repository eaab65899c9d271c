"""The registry: tables by level, functions of one image, and which types are selected."""

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import distortions.standard
from distortions.registry import (
    DISTORTION_TYPES,
    DISTORTIONS,
    LEVELS,
    REFUSED,
    distortion,
    interpolate,
    missing_type_hint,
    per_image,
    quality_of,
    select_types,
)
from tests.helpers import distort_all
from utils.errors import UserError

EXTRA = ("rain", "fog", "lens_distortion", "chromatic_aberration")
GREY = torch.full((2, 8, 8, 3), 100, dtype=torch.uint8)


@pytest.fixture(autouse=True)
def restored_registry():
    """Forget what a test registers."""
    before = dict(DISTORTIONS)
    yield
    DISTORTIONS.clear()
    DISTORTIONS.update(before)
    REFUSED.clear()


@given(st.floats(0, 1, width=32))
def test_interpolate_agrees_with_numpy(level):
    table = (1, 2.08, 2.97, 3.86, 5.37, 8.67)

    value = interpolate(torch.tensor([level]), table).item()

    expected = np.interp(level, np.linspace(0, 1, 6), table)
    assert value == pytest.approx(expected, abs=1e-5)


def test_a_table_gives_the_function_its_parameter():
    @distortion(worst_quality=50, parameter="shift", levels=(0, 1, 2, 3, 4, 5), dtype="uint8")
    def shift_up(images, shift, rng):
        return images + shift.byte()

    shifted = distort_all("shift_up", GREY, torch.tensor([0.4, 1.0]))

    assert shifted[0].unique().tolist() == [102]
    assert shifted[1].unique().tolist() == [105]
    assert DISTORTIONS["shift_up"].tables == ((0, 1, 2, 3, 4, 5),)


def test_directions_have_tables_of_their_own():
    @distortion(
        worst_quality=50,
        parameter="shift, 255ths",
        levels={"down": (0, -1, -2, -3, -4, -5), "up": (0, 10, 20, 30, 40, 50)},
    )
    def shift(images, shift, rng):
        return images + shift / 255

    assert DISTORTIONS["shift"].directions == ("down", "up")
    assert distort_all("shift", GREY, 1.0, -1).unique().tolist() == [95]
    assert distort_all("shift", GREY, 1.0, 1).unique().tolist() == [150]


def test_without_a_table_level_and_direction_are_given():
    @distortion(worst_quality=50, directions=("down", "up"))
    def step_all(images, level, direction, rng):
        return images + 10 * level * direction / 255

    assert DISTORTIONS["step_all"].tables == ()
    assert distort_all("step_all", GREY, 0.5, 1).unique().tolist() == [105]
    assert distort_all("step_all", GREY, 1.0, -1).unique().tolist() == [90]


@pytest.mark.parametrize("name", DISTORTIONS)
def test_every_table_is_complete(name):
    """It holds a value at each of the levels, and there is one for each direction, or none."""
    entry = DISTORTIONS[name]

    assert all(len(table) == len(LEVELS) for table in entry.tables)
    assert len(entry.tables) in (0, len(entry.directions) or 1)
    assert bool(entry.parameter) == bool(entry.tables)


def test_per_image_takes_a_level_and_a_direction():
    @distortion(worst_quality=50, directions=("down", "up"))
    @per_image
    def step(image, level, direction, rng):
        return image + np.uint8(10 * level) if direction > 0 else image - np.uint8(10 * level)

    assert distort_all("step", GREY, 0.5, 1).unique().tolist() == [105]
    assert distort_all("step", GREY, 0.5, -1).unique().tolist() == [95]


def test_per_image_takes_a_parameter():
    @distortion(worst_quality=50, parameter="shift", levels=(0, 1, 2, 3, 4, 5))
    @per_image
    def shift_one(image, shift, rng):
        return image + np.uint8(shift)

    assert distort_all("shift_one", GREY, 0.6).unique().tolist() == [103]


def test_quality_is_a_line_down_to_the_worst():
    assert quality_of("motion_blur", 0.5) == 67.5
    assert quality_of("jpeg_compression", 1) == 20


def test_types_are_selected_by_name():
    assert select_types("default") == DISTORTION_TYPES
    assert select_types("all") == (*DISTORTION_TYPES, *EXTRA)
    assert select_types("rain, fog") == ("rain", "fog")
    assert select_types("gaussian_blur,kadid_jpeg2000") == ("gaussian_blur", "kadid_jpeg2000")


def test_no_selection_but_names_mixes_the_families():
    """A fault under two names could not be told apart."""
    kadid = select_types("kadid")

    assert len(kadid) == 25
    assert all(name.startswith("kadid_") for name in kadid)
    assert not set(kadid) & set(select_types("all"))
    assert {*kadid, *select_types("all")} == set(DISTORTIONS)


@pytest.mark.parametrize(
    "names, message",
    (
        (
            "rain,sepia",
            "unknown distortion 'sepia'; choose from gaussian_blur, .*, "
            "or kadid \\(25 types\\), or add it to .*extra.py$",
        ),
        ("gausian_blur", "unknown distortion 'gausian_blur'; did you mean gaussian_blur\\?$"),
        ("Gaussian-Noise", "did you mean gaussian_noise"),
        ("blur", "did you mean gaussian_blur or motion_blur?"),
        ("jpeg", "did you mean jpeg_compression\\?$"),
        ("jpeg2000", "did you mean kadid_jpeg2000\\?$"),
        ("kadid_blur", "did you mean kadid_.*blur\\?$"),
        ("rain,rain", "named twice"),
        ("", "a name is missing"),
        ("rain,", "a name is missing in 'rain,'"),
        ("default,rain", "'default' stands alone"),
        ("default,kadid", "'default' stands alone"),
        ("rain,kadid", "'kadid' stands alone; name every distortion that you want"),
    ),
)
def test_a_wrong_selection_is_refused(names, message):
    with pytest.raises(UserError, match=message):
        select_types(names)


FAULTY = """
@distortion(worst_quality={quality})
def snow(images, level, direction, rng):
    return images
"""


def run_as_extra(text):
    """Run a text as if it stood in distortions/extra.py."""
    exec(text, {"__name__": "distortions.extra", "distortion": distortion, "per_image": per_image})


@pytest.mark.parametrize(
    "text",
    (
        FAULTY.format(quality=120),
        FAULTY.replace("(worst_quality={quality})", ""),
        FAULTY.format(quality=50).replace("@dist", "@per_image\n@dist"),
    ),
    ids=("argument", "no parentheses", "wrong order"),
)
def test_a_file_of_the_package_is_refused_when_types_are_selected(text):
    """While it is imported, no script has begun that could print one line."""
    run_as_extra(text)

    assert "snow" not in DISTORTIONS
    for names in ("default", "all", "rain"):
        with pytest.raises(UserError, match="^distortion 'snow' "):
            select_types(names)
    assert missing_type_hint("snow").startswith("; distortion 'snow' (")

    run_as_extra(FAULTY.format(quality=50))

    assert "snow" in select_types("all")


def test_nothing_of_the_package_is_refused():
    """Otherwise the tests of every law would not see it."""
    assert REFUSED == {}


def test_reading_the_default_eight_again_is_no_change():
    """As %autoreload does in a notebook."""
    before = list(DISTORTIONS)

    importlib.reload(distortions.standard)

    assert list(DISTORTIONS) == before
    assert all(DISTORTIONS[name].is_standard for name in DISTORTION_TYPES)
