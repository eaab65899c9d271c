"""What a run is: its recipe, its configuration, and which flags a resumed run may be given."""

import argparse
import platform
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distorted_dataset import DistortedImageDataset
from distortions.registry import DISTORTIONS
from models.quality_net import SINGLE_PIXEL_SIDE, resolve_stem
from references.sizes import NativeCrops
from references.sources import ALL, resolve_source
from utils.checkpoint import convert_config
from utils.device import has_bfloat16
from utils.distributed import get_world_size
from utils.errors import UserError
from utils.files import read_json

# Flags that may differ when a run is resumed. They are not part of config.json.
FREE_FLAGS = ("resume", "overwrite", "device", "cache_dir", "save_interval", "debug")
# What config.json holds beside the flags.
RESOLVED = ("types", "local_types", "references_name", "digest", "recipe", "versions", "git_commit")
# Values of flags that config.json holds as what they came to.
RESOLVED_VALUES = (
    ("references", "auto"),
    ("stem", "auto"),
    ("crop", "auto"),
    ("crops_per_reference", "auto"),
    ("train_samples", ALL),
)
# Where the references are: they may move, because the run's digest tells them by their pixels.
PLACES = ("references", "data_root", "references_name")
# What may differ between config.json and the run's checkpoint.
INFORMATIVE = ("experiment_name", "versions", "git_commit", *PLACES)


@dataclass(frozen=True)
class Recipe:
    """The parts of training that have no flag. An ablation is a changed field."""

    flip: bool = True  # training images start from one of eight orientations of their reference
    cutmix: bool = True  # every second one has a part of another reference in place of its own
    ema_share: float = 0.04  # span of the weights' moving average, of the run's steps; 0: none
    optimizer: str = "muon"  # a name of training.loop.OPTIMIZERS
    cosine_stem: bool = True  # the stem's filters start as cosines, not at random
    quality_loss: str = "huber"  # a name of training.losses.QUALITY_LOSSES
    cluster_loss: str = "balanced"  # a name of training.losses.CLUSTER_LOSSES
    covariance: str = "full"  # of the mixture's components: "full" or "diag"
    match_refits: bool = True  # a refit starts from the last one, and clusters keep their numbers
    stages: int = 4  # of the ResNet; with 3, the last and coarsest is left out
    joined_stages: int = 1  # so many of the last stages are averaged and joined
    network: str = "plain"  # a name of models.quality_net.NETWORKS
    rank_loss_weight: float = 0.0  # of training.losses.rank_loss
    refinement: float = 0.0  # how far labels follow what is visible: distortions/visibility.py
    smallest_scale: float = 1.0  # training crops are shrunk by a factor from this to 1


def describe_run(
    args: argparse.Namespace,
    recipe: Recipe,
    source: str,
    crops: NativeCrops | None,
    train: DistortedImageDataset,
    val: DistortedImageDataset,
    device: torch.device,
) -> dict[str, Any]:
    """Return a run's configuration in plain JSON values.

    It holds the flags, with what 'auto' came to, and what was found: RESOLVED. source is what
    resolve_source made of --references, and crops what --crop came to.
    """
    config = {
        name: value for name, value in vars(args).items() if name not in ("folder", *FREE_FLAGS)
    }
    config["references"] = source
    config["crop"] = "whole" if crops is None else "native"
    config["crops_per_reference"] = 1 if crops is None else crops.per_reference
    if args.train_samples == ALL:
        config["train_samples"] = len(np.unique(train.references.photographs))
    config["stem"] = resolve_stem(args.stem, args.image_size)
    config["amp"] = resolve_amp(args.amp, config["stem"], args.image_size, device)
    config["types"] = list(train.types)
    config["local_types"] = [name for name in train.types if DISTORTIONS[name].local]
    config["references_name"] = train.references.source
    config["digest"] = train.digest() + val.digest()
    config["recipe"] = asdict(recipe)
    config["versions"] = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
    config["git_commit"] = git_commit()
    return config


def resolve_amp(amp: bool | None, stem: str, image_size: int, device: torch.device) -> bool:
    """Tell whether to train in bfloat16: where it was asked for, or by default where it is native.

    On a CPU it is refused where its gradients are not sound.
    """
    is_sound = device.type == "cuda" or image_size > SINGLE_PIXEL_SIDE[stem]
    if amp and not is_sound:
        raise UserError(
            f"--amp: bfloat16 gradients are not sound on a CPU at --image_size {image_size}; "
            "leave it out"
        )
    if amp is None:
        return has_bfloat16(device) and is_sound
    return amp


def git_commit() -> str | None:
    """Return the commit of this code if git knows it, with '+changes' where files differ."""
    folder = Path(__file__).resolve().parent.parent
    describe = ["describe", "--always", "--exclude=*", "--abbrev=40", "--dirty=+changes"]
    command = ["git", "-C", str(folder), *describe]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None  # no git here: a run does not need it
    return answer.stdout.strip() or None


def check_sizes(config: dict[str, Any], train_images: int, val_images: int) -> None:
    """Raise UserError where there are fewer images than clusters, or than processes."""
    fitted_images = min(train_images, config["gmm_samples"])
    processes = get_world_size()
    if min(fitted_images, val_images) < processes:
        raise UserError(
            f"{processes} processes share {train_images} training and {val_images} validation "
            "images; start fewer"
        )
    n_clusters = config["n_clusters"]
    if n_clusters != "auto" and fitted_images < n_clusters:
        raise UserError(
            f"--n_clusters {n_clusters} needs at least {n_clusters} training images, "
            f"got {fitted_images}; lower it, or train on more"
        )
    if config["batch_size"] % processes:
        raise UserError(
            f"{processes} processes share each batch, so --batch_size {config['batch_size']} must "
            f"be a multiple of {processes}"
        )


def check_recipe(folder: Path, config: dict[str, Any]) -> None:
    """Raise UserError where a run that is resumed was begun with another recipe."""
    begun = convert_config(read_json(folder / "config.json", "--overwrite starts the run anew"))
    for name, value in config["recipe"].items():
        if begun["recipe"][name] != value:
            raise UserError(
                f"--resume: {folder} was begun with {name}={begun['recipe'][name]!r} in its "
                f"recipe, not {value!r}; go on with what began it, such as python -m ablations.run"
            )


def resume_args(
    args: argparse.Namespace,
    parse: Callable[[argparse.Namespace], argparse.Namespace],
    error: Callable[[str], Any],
    takes: Callable[[str, Any], bool],
) -> argparse.Namespace:
    """Return a resumed run's own flags.

    A flag that was typed must agree with them, or be the 'auto' that they came from.
    parse(defaults) reads the command line again over other defaults, error(message) ends the
    program, and takes(name, value) tells whether a flag can have a value.
    """
    path = args.folder / "config.json"
    if not path.is_file():
        error(
            f"--resume: {args.folder} has no config.json, so no run to go on with; "
            "--overwrite starts one"
        )
    config = convert_config(read_json(path, "--overwrite starts the run anew"))
    flags = vars(args).keys() - {"folder", *FREE_FLAGS}
    differing = config.keys() ^ (flags | set(RESOLVED))
    if differing:
        raise UserError(
            f"--resume: {path} is of another version of this code, by "
            f"{', '.join(sorted(differing))}; go on with the code that began the run, or start it "
            "anew with --overwrite"
        )
    saved = {name: value for name, value in config.items() if name in flags}
    del saved["experiment_name"]  # a copied or renamed run goes on too
    for name, value in saved.items():
        if not takes(name, value):
            raise UserError(
                f"--resume: {path} has {name} {value!r}, which --{name} does not take; put the "
                "value back that the run began with, or start it anew with --overwrite"
            )
    resumed = parse(argparse.Namespace(**saved))
    for name, value in saved.items():
        typed = getattr(resumed, name)
        if (name, typed) in RESOLVED_VALUES:
            setattr(resumed, name, value)
        elif name == "references" and typed != value:
            resumed.references, _ = resolve_source(typed, resumed.data_root)
        elif name not in PLACES and typed != value:
            error(
                f"--resume: --{name} {typed} differs from the run's {value}; "
                "leave it out, or start a new run under another --experiment_name"
            )
    resumed.folder = args.folder
    return resumed
