"""Train a network to score distorted images, with a Gaussian mixture refitted over its embeddings.

    python train_with_distortions.py --experiment_name resnet18_distorted
    python train_with_distortions.py --experiment_name mine --references path/to/images --epochs 20

The run lands in experiments/<experiment_name>; test it with test_with_viz.py.
"""

import sys

if __name__ == "__main__":
    try:
        from utils.startup import explain_import_errors
    except ImportError as problem:  # -I, -P or PYTHONSAFEPATH, or another folder's `utils`
        sys.exit(f"error: {problem}; run it as: python '{__file__}', without -I and -P")
    explain_import_errors()  # of the imports below, which take seconds

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from utils.cli import (
    MAX_SEED,
    TRY_AGAIN,
    float_in_range,
    int_in_range,
    int_or_all,
    int_or_auto,
    make_parser,
    run_script,
)

# Without it, CUDA's matrix products are not reproducible. It is read when CUDA starts.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
import torch

from distorted_dataset import DistortedImageDataset
from distortions.registry import select_types
from distortions.sources_changed import stale_warning
from models.inference import build
from models.mixture import Mixture
from models.quality_net import BACKBONES, STEMS, QualityNet
from references.sizes import NativeCrops, add_crop_flags, check_working_size, choose_crop
from references.sources import load_training_references, resolve_source
from training.checkpointing import OpenRun, ensure_new_run, has_checkpoint, open_run
from training.config import Recipe, check_recipe, check_sizes, describe_run, resume_args
from training.loop import (
    FINAL_BN_IMAGES,
    TrainingState,
    create_state,
    error_context,
    predict,
    refit,
    seed_everything,
    train_one_epoch,
    update_bn_statistics,
    validate,
)
from training.presets import PRESETS, describe_preset, preset_named, recipe_of
from utils.checkpoint import load_states
from utils.device import choose_device
from utils.distributed import (
    convert_batch_norm,
    get_world_size,
    init_distributed,
    main_process_first,
    require_equal,
)
from utils.errors import UserError
from utils.images import MIN_SIDE
from utils.runs import (
    EXPERIMENTS,
    check_experiments_folder,
    check_new_name,
    check_plain_name,
    command_to_test,
    command_to_train,
)

# A margin of validation SRCC for chance, over 100 references: of two epochs this close the later
# is kept.
SRCC_MARGIN = 0.01


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    switch = argparse.BooleanOptionalAction
    seed = int_in_range(0, MAX_SEED)
    add("--experiment_name", required=True, help="name of the run's folder under experiments/")
    add(
        "--preset",
        choices=PRESETS,
        help="photographs: settings for a folder of photographs, by crops at their own scale; they "
        "are printed, and flags beside it win (default: none)",
    )

    # Data
    add(
        "--references",
        default="auto",
        help="'cifar10', 'photos', a folder of images, or 'auto': cifar10, else photos; "
        "builtin:photos where a folder has that name",
    )
    add("--data_root", default="data", help="folder that holds CIFAR-10, or gets it")
    add(
        "--cache_dir",
        help="pack a folder's images into a file here, once, and read them from it "
        "(default: from memory)",
    )
    add("--image_size", type=int_in_range(MIN_SIDE), default=32, help="side of a reference, pixels")
    add_crop_flags(parser)
    add(
        "--crops_per_reference",
        type=int_or_auto(1),
        default="auto",
        help="native crops of each photograph in an epoch; auto: 4",
    )
    add(
        "--train_samples",
        type=int_or_all,
        default=500,
        help="references to train on; all: those that validation leaves of a folder",
    )
    add("--val_samples", type=int_in_range(2), default=100, help="references that choose best.pt")
    add(
        "--distortions",
        default="default",
        help="'default' (the eight), 'kadid' (KADID-10k's 25), 'all' (the eight and those of "
        "distortions/extra.py), or names separated by commas",
    )
    add(
        "--distortions_per_image",
        type=int_in_range(1),
        default=5,
        help="distorted images a reference, beside the pristine",
    )
    add(
        "--compose",
        type=int_in_range(1),
        default=1,
        help="up to this many different distortions one after another",
    )
    add(
        "--redistort",
        action=switch,
        default=True,
        help="new distortions every epoch, or the same for the whole run",
    )

    # Network and mixture
    add("--backbone", choices=BACKBONES, default="resnet18", help="the network")
    add(
        "--stem",
        choices=("auto", *STEMS),
        default="auto",
        help="its first layer; auto: small under 64 pixels",
    )
    add(
        "--pretrained",
        action=switch,
        default=False,
        help="start from ImageNet's weights; needs --stem imagenet",
    )
    add(
        "--embedding_dim",
        type=int_in_range(2, 512),
        default=32,
        help="dimensions of the embedding, 16 to 64 are good",
    )
    add(
        "--n_clusters",
        type=int_or_auto(2),
        default=8,
        help="components of the mixture; 'auto': from 2 to 24, by the Bayesian information "
        "criterion at each refit",
    )
    add(
        "--gmm_samples",
        type=int_in_range(2),
        default=20000,
        help="images that the mixture is fitted to, at most",
    )
    add(
        "--refit_interval",
        type=int_in_range(1),
        default=10,
        help="epochs from one fit of the mixture to the next",
    )
    add(
        "--cluster_loss_weight",
        type=float_in_range(0),
        default=0.5,
        help="weight of the pull to clusters (its formula: training/losses.py); 0 turns it off",
    )
    add(
        "--type_loss_weight",
        type=float_in_range(0),
        default=0.1,
        help="weight of predicting the type; 0 removes that head",
    )

    # Optimisation
    add("--epochs", type=int_in_range(1), default=50, help="passes over all images")
    add(
        "--batch_size",
        type=int_in_range(2),
        default=128,
        help="images a step, of all processes together",
    )
    add("--lr", type=float_in_range(0), default=1e-3, help="peak of the one-cycle learning rate")
    add(
        "--seed",
        type=seed,
        default=0,
        help="of the weights, the batch order and the training draws",
    )
    add(
        "--data_seed",
        type=seed,
        default=0,
        help="of the choice of references, the splits and validation's draws",
    )
    add(
        "--device",
        default="auto",
        help="'cpu', 'cuda', 'cuda:1', or 'auto': cuda where there is one",
    )
    add(
        "--amp",
        action=switch,
        default=None,
        help="bfloat16 arithmetic; by default where the hardware has it",
    )

    # The run's folder
    add(
        "--save_interval",
        type=float_in_range(0),
        default=30,
        help="least seconds from one checkpoint to the next; --resume goes on from the last; "
        "0: one after every epoch",
    )
    add(
        "--resume",
        action="store_true",
        help="go on with this run from its last.pt; its flags are taken from the run",
    )
    add("--overwrite", action="store_true", help="replace the run of this name")
    return parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line, or, with --resume, the run's own flags."""
    parser = build_parser()
    if preset := preset_named(argv):
        parser.set_defaults(**PRESETS[preset].flags)
    args = parser.parse_args(argv)
    check_experiments_folder()
    args.folder = EXPERIMENTS / args.experiment_name
    try:
        check_plain_name(args.experiment_name)
        check_new_name(args.experiment_name)
    except UserError as problem:
        parser.error(str(problem))
    if args.resume and args.overwrite:
        parser.error("--resume goes on with the run, --overwrite replaces it: give one of them")
    if args.resume:
        return resume_args(
            args,
            parse=lambda saved: parser.parse_args(argv, saved),
            error=parser.error,
            takes=lambda name, value: takes_value(build_parser(), name, value),
        )
    return args


def takes_value(parser: argparse.ArgumentParser, name: str, value: Any) -> bool:
    """Tell whether a flag can have a value, such as one that was saved."""
    (action,) = [action for action in parser._actions if action.dest == name]
    if action.nargs == 0:  # a switch
        return isinstance(value, bool)
    if value is None:
        return action.default is None and not action.required
    try:
        parsed = parser._get_value(action, str(value))
        parser._check_value(action, parsed)
    except argparse.ArgumentError:
        return False
    return type(parsed) is type(value) and parsed == value


def main(
    args: argparse.Namespace,
    recipe: Recipe | None = None,
    dataset_class: type[DistortedImageDataset] = DistortedImageDataset,
) -> None:
    """Train a run, or go on with one. The recipe is that of --preset, unless one is given."""
    recipe = recipe or recipe_of(args.preset)
    # ------------------------------------------------------------------------------------- data
    device = init_distributed(choose_device(args.device))
    if not (args.resume or args.overwrite):
        ensure_new_run(args.folder)
    if args.preset:
        print(describe_preset(args.preset, vars(args)))
    train, val, source, crops = load_data(args, recipe, dataset_class)
    config = describe_run(args, recipe, source, crops, train, val, device)
    check_sizes(config, len(train), len(val))
    if args.resume:
        check_recipe(args.folder, config)
    require_equal(config["digest"], "references")
    print_configuration(config, train, device)

    # ---------------------------------------------------------------------- network and mixture
    seed_everything(config["seed"])
    with error_context("at the start", config):
        model, mixture = build_networks(args, config, device)
        state = create_state(model, mixture, config, len(train))

    # ---------------------------------------------------------------------------- training loop
    with open_run(
        args.folder,
        config,
        train.references.digests + val.references.digests,
        resume=args.resume,
        overwrite=args.overwrite,
        save_interval=args.save_interval,
    ) as run:
        run.restore(state)
        args.resume = True  # from here on, that is how an interrupted run goes on
        for epoch in range(run.epochs_done, config["epochs"]):
            with error_context(f"epoch {epoch + 1}", config):
                train.set_epoch(epoch)
                refits = is_refit_epoch(epoch, config["refit_interval"])
                if refits:
                    refit(mixture, state.ema_model, train, config)
                    print_cluster_choice(mixture)
                losses, images_per_second = train_one_epoch(state, train, epoch, config)
                update_bn_statistics(state.ema_model, train, epoch, config)
                scores = validate(state.ema_model, mixture, val)
            line = {"epoch": epoch, "refit": refits, **losses, **scores}
            print_epoch(epoch, config["epochs"], {**losses, **scores}, images_per_second)
            run.log({**line, "images_per_second": images_per_second})
            run.save(state, is_best=is_best(run.lines), is_last=epoch + 1 == config["epochs"])

        # ------------------------------------------------------------------------------- finish
        with error_context("after the last epoch", config):
            # last.pt comes first: a best.pt that was damaged cannot be finished.
            for name in ("last", "best"):
                scores = finish(run, name, state, train, val)
                print(f"{name}.pt: {format_values(scores)}")
    print(f"test it: {command_to_test(args.folder)}")


def load_data(
    args: argparse.Namespace, recipe: Recipe, dataset_class: type[DistortedImageDataset]
) -> tuple[DistortedImageDataset, DistortedImageDataset, str, NativeCrops | None]:
    """Return the training and the validation images, and what --references and --crop came to."""
    types = select_types(args.distortions)
    source, warning = args.references, None
    with main_process_first(), advice_on_moved_references(args):  # one downloads or packs
        if not args.resume:  # a resumed run's is resolved
            source, warning = resolve_source(args.references, args.data_root)
        crops = resolve_crops(args, source)
        train_references, val_references = load_training_references(
            source,
            args.train_samples,
            args.val_samples,
            image_size=args.image_size,
            data_root=args.data_root,
            data_seed=args.data_seed,
            cache_dir=args.cache_dir,
            crops=crops,
        )
    for problem in (warning, stale_warning()):
        if problem:
            print(f"warning: {problem}")
    train = dataset_class(
        train_references,
        types,
        args.distortions_per_image,
        seed=args.seed,
        split="train",
        compose=args.compose,
        redistort=args.redistort,
        flip=recipe.flip,
        cutmix=recipe.cutmix,
        recrop=True,
        refinement=recipe.refinement,
        smallest_scale=recipe.smallest_scale,
    )
    val = dataset_class(
        val_references,
        types,
        args.distortions_per_image,
        seed=args.data_seed,
        split="val",
        compose=args.compose,
        redistort=False,
    )
    for title, dataset in (("training", train), ("validation", val)):
        if line := dataset.describe_ineffective():
            print(f"{title}: {line}")
    return train, val, source, crops


def resolve_crops(args: argparse.Namespace, source: str) -> NativeCrops | None:
    """Return how references are cropped, or None where they are whole scenes; print why."""
    crop = args.crop
    reason = "as the run began" if args.resume else "as --crop says"
    if not args.resume and args.preset and crop == PRESETS[args.preset].flags.get("crop"):
        reason = "as --preset says"
    if crop == "auto":
        crop, reason = choose_crop(source, args.image_size)
    per_reference = args.crops_per_reference
    if crop == "native":
        check_working_size(args.image_size, args.working_size)
    if crop == "whole":
        if per_reference not in ("auto", 1):
            raise UserError(
                f"--crops_per_reference {per_reference} is for --crop native, but references are "
                f"taken whole ({reason}); leave it out, or give --crop native"
            )
        if source != "cifar10":
            print(f"crop: whole scenes, shrunk to {args.image_size} pixels ({reason})")
        return None
    crops = NativeCrops(args.working_size)
    if per_reference != "auto":
        crops = NativeCrops(args.working_size, per_reference)
    if source == "photos":
        print(
            f"crop: native, of {args.image_size} pixels; of the bundled photographs, "
            f"--train_samples and --val_samples count crops ({reason})"
        )
        return crops
    print(
        f"crop: native, {crops.per_reference} of {args.image_size} pixels from each photograph, "
        f"whose shorter side is at most {args.working_size} ({reason})"
    )
    return crops


@contextmanager
def advice_on_moved_references(args: argparse.Namespace) -> Iterator[None]:
    """Say how to go on where a resumed run's references are not where they were."""
    try:
        yield
    except (UserError, FileNotFoundError) as problem:
        if not args.resume:
            raise
        raise UserError(
            f"{problem}. If the images of this run have moved, give their new place: "
            "--resume --references NEW_FOLDER (or --data_root, for CIFAR-10)"
        ) from problem


def build_networks(
    args: argparse.Namespace, config: dict[str, Any], device: torch.device
) -> tuple[QualityNet, Mixture]:
    """Return the network and the mixture on the device, with fresh or ImageNet's weights."""
    is_resumed = args.resume and has_checkpoint(args.folder)
    model, mixture = build(config, pretrained=args.pretrained and not is_resumed)
    convert_batch_norm(model, device)
    model.to(device)
    model.to(memory_format=torch.channels_last)  # convolutions are faster in this layout of memory
    return model, mixture.to(device)


def is_refit_epoch(epoch: int, refit_interval: int) -> bool:
    """Tell whether the mixture is refitted before this epoch, which counts from 0."""
    return epoch > 0 and epoch % refit_interval == 0


def is_best(lines: list[dict[str, Any]]) -> bool:
    """Tell whether the last epoch's validation SRCC comes within SRCC_MARGIN of the highest."""
    scores = [-1.0 if line["srcc"] is None else line["srcc"] for line in lines]
    return scores[-1] >= max(scores) - SRCC_MARGIN


def finish(
    run: OpenRun,
    name: str,
    state: TrainingState,
    train: DistortedImageDataset,
    val: DistortedImageDataset,
) -> dict[str, Any]:
    """Finish best.pt or last.pt, if it is not finished yet, and return its validation scores.

    Its batch-norm statistics are measured on more images, its mixture is fitted to its own
    embeddings, and the threshold for unknown distortions is set.
    """
    model = state.ema_model
    mixture = state.mixture
    checkpoint = run.load(name)
    load_states({"model": model, "mixture": mixture}, checkpoint, run.folder / f"{name}.pt")
    epoch = checkpoint["epoch"]
    if not checkpoint["finished"]:
        train.set_epoch(epoch)
        update_bn_statistics(model, train, epoch, run.config, FINAL_BN_IMAGES)
        refit(mixture, model, train, run.config)
        _, val_embeddings = predict(model, val)
        mixture.calibrate(val_embeddings)
        print_cluster_choice(mixture)
        for key, value in model.state_dict().items():
            # In place, because last.pt refers to these tensors twice and stores them once.
            checkpoint["model"][key].copy_(value)
        finished = {**checkpoint, "mixture": mixture.state_dict(), "finished": True}
        run.replace(name, finished)
    return {"epoch": epoch + 1, **validate(model, mixture, val)}


def print_configuration(
    config: dict[str, Any], train: DistortedImageDataset, device: torch.device
) -> None:
    """Print what the run is, on what, and with which versions."""
    hidden = ("versions", "types", "recipe")
    print("  ".join(f"{name}={value}" for name, value in config.items() if name not in hidden))
    versions = "  ".join(f"{name} {value}" for name, value in config["versions"].items())
    print(f"device {device}  {versions}")
    images = len(train)
    types = ", ".join(config["types"])
    print(f"{images} images an epoch from {config['references_name']}, types {types}", flush=True)


def print_cluster_choice(mixture: Mixture) -> None:
    """Print each number's criterion as its distance from the best, where --n_clusters is 'auto'."""
    if mixture.bic:
        best = min(mixture.bic.values())
        distances = "  ".join(f"{k}: +{value - best:.0f}" for k, value in mixture.bic.items())
        print(
            f"{len(mixture.weights)} clusters have the lowest Bayesian information criterion; "
            f"{distances}"
        )


def print_epoch(epoch: int, epochs: int, values: dict[str, Any], images_per_second: float) -> None:
    """Print an epoch's line for people."""
    rate = f"{images_per_second:.0f} images/s"
    print(f"epoch {epoch + 1:3d}/{epochs}  {format_values(values)}  {rate}", flush=True)


def format_values(values: dict[str, Any]) -> str:
    """Return names and values in one line, floats with four decimals."""
    words = []
    for name, value in values.items():
        words.append(f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}")
    return "  ".join(words)


def how_to_go_on(args: argparse.Namespace | None) -> str:
    """Return the command that comes after an interruption or a failing disk.

    args is None where it came before they were read.
    """
    if args is None or not args.resume or not (args.folder / "config.json").is_file():
        return TRY_AGAIN
    command = command_to_train(args.experiment_name, "--resume")
    if get_world_size() == 1:
        return command
    processes = os.environ.get("LOCAL_WORLD_SIZE", get_world_size())
    return f"torchrun --nproc_per_node {processes} {command.removeprefix('python ')}"


if __name__ == "__main__":
    run_script(main, parse_args, how_to_go_on)
