"""The tables of KADID-10k's distortions, derived from made-up opinions."""

import csv

import pytest

from ablations.anchor_levels import (
    KADID_LEVELS,
    PARAMETERS,
    derive_table,
    main,
    parse_args,
    quality_curve,
    read_opinions,
)
from utils.errors import UserError

QUALITIES = (90, 80, 70, 60, 50)  # of KADID's levels, made up


def opinion(quality):
    return 4.6 - 0.0425 * (100 - quality)


OPINIONS = tuple(map(opinion, QUALITIES))


def write_csv(path, columns, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


@pytest.fixture
def means(tmp_path):
    """Write a table of mean opinions, the same for every type."""
    rows = [
        (name, level, value) for name in PARAMETERS for level, value in zip(KADID_LEVELS, OPINIONS)
    ]
    return write_csv(tmp_path / "means.csv", ("type", "level", "mean_mos"), rows)


def test_a_level_reads_the_parameter_of_its_quality():
    """Level 0.2 has quality 90, which is that of KADID's level 1, and so on."""
    assert derive_table("jpeg", OPINIONS) == (50, (100, 43, 36, 24, 7, 4))
    assert derive_table("white_noise", OPINIONS) == (50, (0, 0.001, 0.002, 0.003, 0.005, 0.01))


def test_ratios_are_read_by_their_logarithm():
    """Factor 1, KADID's level 1, changes nothing, so quality 90 is halfway from 1 to 2."""
    worst_quality, levels = derive_table("color_saturation_2", OPINIONS)

    assert worst_quality == 50
    assert levels == (1, 1.41, 2, 3, 6, 9)


def test_what_passes_through_0_is_read_on_a_line():
    """Its qualities are 95, 85, 65, 45, 40, and those of the levels 88, 76, 64, 52, 40."""
    opinions = tuple(map(opinion, (95, 85, 65, 45, 40)))

    assert derive_table("color_saturation_1", opinions) == (
        40,
        (1, 0.26, 0.155, 0.095, 0.035, -0.4),
    )


def test_the_milder_direction_sets_the_worst_quality():
    """Bright ends at 80, because its level 1 is no worse than its level 2; dark goes on to 50."""
    worst_quality, levels = derive_table("mean_shift", OPINIONS)

    assert worst_quality == 80
    assert levels["bright"] == (0, 0.016, 0.032, 0.048, 0.064, 0.08)
    assert levels["dark"] == (0, -0.008, -0.016, -0.024, -0.032, -0.04)


def test_a_curve_starts_where_people_see_nothing():
    opinions = tuple(map(opinion, (100, 80, 60, 40, 20)))

    worst_quality, levels = derive_table("gaussian_blur", opinions)

    assert worst_quality == 20
    # Quality 84 is 4/5 of the way from sigma 0.1, at quality 100, to 0.5, at 80.
    assert levels[0] == 0
    assert levels[1] == pytest.approx(0.1 * 5**0.8, rel=0.01)


def test_a_stronger_level_that_is_no_worse_is_left_out():
    values, qualities = quality_curve([1, 2, 3], [80, 70, 75], none=0)

    assert values == [0, 1, 2]
    assert qualities == [100, 80, 70]


def test_both_kinds_of_files_are_read_alike(means, tmp_path):
    """Two observers' images, one better and one worse by 0.1, have the same mean."""
    rows = []
    for number in range(1, 26):
        for level, value in zip(KADID_LEVELS, OPINIONS):
            for reference, change in (("I01", 0.1), ("I02", -0.1)):
                name = f"{reference}_{number:02d}_{level:02d}.png"
                rows.append((name, f"{reference}.png", value + change, 0.8))
    path = write_csv(tmp_path / "dmos.csv", ("dist_img", "ref_img", "dmos", "var"), rows)

    of_images = read_opinions(path)

    of_means = read_opinions(means)
    for name in PARAMETERS:
        assert of_images[name] == pytest.approx(of_means[name])


def test_a_line_for_each_type_is_printed(means, capsys):
    main(parse_args(["--opinions", str(means)]))

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 25
    assert lines[9] == "kadid_jpeg: worst_quality=50, levels=(100, 43, 36, 24, 7, 4)"


@pytest.mark.parametrize(
    "text, message",
    (
        ("a,b\n1,2\n", "has the columns a, b, expected type,level,mean_mos"),
        ("", r"has the columns \(none\)"),
        ("type,level,mean_mos\nsepia,1,3\n", "line 2: 'sepia,1,3' is not a type"),
        ("type,level,mean_mos\njpeg,6,3\n", "line 2: 'jpeg,6,3' is not"),
        ("type,level,mean_mos\njpeg,1,55\n", "line 2: 'jpeg,1,55' is not"),
        ("dist_img,dmos\nI01.png,3\n", "line 2: 'I01.png,3' is not"),
        ("dist_img,dmos\nI01_26_01.png,3\n", "line 2: 'I01_26_01.png,3' is not"),
        ("dist_img,dmos\nI01_00_01.png,3\n", "line 2: 'I01_00_01.png,3' is not"),
        ("type,level,mean_mos\ngaussian_blur,1,3\n", "no opinion of gaussian_blur at level 2"),
    ),
)
def test_a_wrong_file_is_refused(text, message, tmp_path):
    path = tmp_path / "wrong.csv"
    path.write_text(text)

    with pytest.raises(UserError, match=message):
        read_opinions(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file; give KADID-10k's dmos.csv"):
        read_opinions(tmp_path / "dmos.csv")


def test_opinions_that_fall_nowhere_are_refused():
    with pytest.raises(UserError, match="no worse than 4.6"):
        derive_table("jpeg", (4.6, 4.7, 4.8, 4.9, 5))
