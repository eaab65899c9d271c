"""Presets: defaults of flags that belong together, and a recipe."""

import pytest

import train_with_distortions as script
from training.config import Recipe
from training.presets import PRESETS, describe_preset, preset_named, recipe_of

REQUIRED = ["--experiment_name", "any"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_sets_flags(name):
    args = script.parse_args([*REQUIRED, "--preset", name])

    assert {flag: getattr(args, flag) for flag in PRESETS[name].flags} == PRESETS[name].flags


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_flags_can_be_typed(name):
    """So that a value is one that the flag takes, and not a misspelled one."""
    typed = [f"--{flag}={value}" for flag, value in PRESETS[name].flags.items()]

    assert script.parse_args([*REQUIRED, *typed])


@pytest.mark.parametrize("order", ((0, 1), (1, 0)), ids=("flag last", "flag first"))
def test_a_typed_flag_wins(order):
    parts = (["--preset=photographs"], ["--epochs", "3"])

    args = script.parse_args([*REQUIRED, *parts[order[0]], *parts[order[1]]])

    assert args.epochs == 3
    assert args.image_size == PRESETS["photographs"].flags["image_size"]


def test_a_flags_beginning_names_a_preset_too():
    """As argparse takes it; half a preset, such as its recipe alone, would be a trap."""
    args = script.parse_args([*REQUIRED, "--pres", "photographs"])

    assert args.preset == "photographs"
    assert args.image_size == PRESETS["photographs"].flags["image_size"]


def test_without_a_preset_the_defaults_stay():
    args = script.parse_args(REQUIRED)

    assert args.preset is None
    assert args.image_size == 32
    assert recipe_of(args.preset) == Recipe()


def test_an_unknown_preset_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        script.parse_args([*REQUIRED, "--preset", "portraits"])

    assert stop.value.code == 2
    assert "invalid choice: 'portraits'" in capsys.readouterr().err


@pytest.mark.parametrize("argv", (["--preset"], ["--preset", "portraits"], []))
def test_only_a_known_preset_is_named(argv):
    assert preset_named(argv) is None


def test_what_a_preset_sets_is_said():
    args = script.parse_args([*REQUIRED, "--preset", "photographs", "--epochs", "3"])

    line = describe_preset("photographs", vars(args))

    assert line.startswith("preset photographs: --crop native")
    assert "(but --epochs 3, as typed)" in line
    assert "stages 3" in line
