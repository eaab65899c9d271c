"""Settings that belong together: `--preset NAME` sets flags and a recipe. A typed flag wins."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from training.config import Recipe


@dataclass(frozen=True)
class Preset:
    """Defaults of flags, and a recipe."""

    flags: dict[str, Any]
    recipe: Recipe


PRESETS = {
    "photographs": Preset(
        flags={
            "crop": "native",
            "image_size": 96,
            "train_samples": "all",
            "val_samples": 20,
            "crops_per_reference": 4,
            "epochs": 60,
            "refit_interval": 5,  # so that few images change their cluster at a refit
        },
        recipe=Recipe(stages=3, joined_stages=2, rank_loss_weight=0.2),
    )
}


def preset_named(argv: Sequence[str] | None) -> str | None:
    """Return the preset that a command line names, or None.

    It is asked before the whole line is read, because it changes the defaults of other flags.
    """
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--preset")
    try:
        name = parser.parse_known_args(argv)[0].preset
    except argparse.ArgumentError:
        return None  # the parser of all flags says what is wrong
    return name if name in PRESETS else None


def recipe_of(preset: str | None) -> Recipe:
    """Return the recipe of a preset, or the default one."""
    return PRESETS[preset].recipe if preset else Recipe()


def describe_preset(name: str, flags: Mapping[str, Any]) -> str:
    """Return the line that says what a preset sets, and which of its flags have other values."""
    preset = PRESETS[name]
    words = [f"--{flag} {value}" for flag, value in preset.flags.items() if flags[flag] == value]
    typed = [
        f"--{flag} {flags[flag]}" for flag in preset.flags if flags[flag] != preset.flags[flag]
    ]
    instead = f" (but {' '.join(typed)}, as typed)" if typed else ""
    default = asdict(Recipe())
    changed = [
        f"{part} {value}" for part, value in asdict(preset.recipe).items() if value != default[part]
    ]
    recipe = ", ".join(changed) or "the default"
    return f"preset {name}: {' '.join(words)}{instead}; recipe: {recipe}"
