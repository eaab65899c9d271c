"""The registry: tables by level, functions of one image, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distortions.registry import (
    DISTORTION_TYPES,
    DISTORTIONS,
    LEVELS,
    distortion,
    interpolate,
    per_image,
    quality_of,
    select_types,
)
from tests.helpers import distort_all
from utils.errors import UserError

GREY = torch.full((2, 8, 8, 3), 100, dtype=torch.uint8)


@pytest.fixture(autouse=True)
def restored_registry():
    """Forget what a test registers."""
    before = dict(DISTORTIONS)
    yield
    DISTORTIONS.clear()
    DISTORTIONS.update(before)


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


@pytest.mark.parametrize(
    "levels",
    ((0, 1, 2), (0, 1, 2, 3, 4, 5, 6), {"down": (0, 1, 2, 3, 4, 5), "up": (0, 1)}),
    ids=("short", "long", "one direction short"),
)
def test_a_table_of_another_length_is_refused(levels):
    with pytest.raises(UserError, match="expected 6 values, at the levels"):
        distortion(worst_quality=50, parameter="sigma", levels=levels)


def test_quality_is_a_line_down_to_the_worst():
    assert quality_of("motion_blur", 0.5) == 67.5
    assert quality_of("jpeg_compression", 1) == 20


def test_types_are_selected_by_name():
    assert select_types("default") == DISTORTION_TYPES
    assert select_types("all") == tuple(DISTORTIONS)
    assert select_types("rain, fog") == ("rain", "fog")


@pytest.mark.parametrize(
    "names, message",
    (("rain,sepia", "unknown distortion 'sepia'"), ("rain,rain", "named twice"), ("", "unknown")),
)
def test_a_wrong_selection_is_refused(names, message):
    with pytest.raises(ValueError, match=message):
        select_types(names)


@pytest.mark.parametrize(
    "output, message",
    (
        (torch.full((2, 8, 8, 3), float("nan")), "not finite"),
        (torch.zeros(2, 9, 8, 3), r"shape \(2, 9, 8, 3\), expected \(2, 8, 8, 3\)"),
    ),
)
def test_a_faulty_distortion_is_named(output, message):
    @distortion(worst_quality=50)
    def faulty(images, level, direction, rng):
        return output

    with pytest.raises(ValueError, match=f"faulty returned .*{message}"):
        distort_all("faulty", GREY, 0.5)


def test_a_per_image_distortion_without_bytes_is_named():
    @distortion(worst_quality=50)
    @per_image
    def faulty(image, level, direction, rng):
        return image / 255

    with pytest.raises(ValueError, match="faulty returned torch.float64, expected uint8"):
        distort_all("faulty", GREY, 0.5)
