"""Train a network to score distorted images, with a Gaussian mixture refitted over its embeddings as it learns.

    python train_with_distortions.py --experiment_name resnet18_distorted
    python train_with_distortions.py --experiment_name mine --references path/to/images --epochs 20

The run lands in experiments/<experiment_name>; test it with test_with_viz.py.
"""

import argparse
import os
import platform
import sys
from pathlib import Path

from utils.cli import (
    AGAIN,
    MAX_SEED,
    HelpFormatter,
    real,
    run_script,
    tell_interrupt,
    whole,
    whole_or_auto,
)

os.environ.setdefault(
    "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
)  # or CUDA's matrix products are not reproducible
if __name__ == "__main__":
    sys.excepthook = tell_interrupt  # for the imports, which take seconds

import numpy as np
import torch

from distorted_dataset import DistortedImageDataset
from distortions.standard import MIN_SIDE, select_types
from models.inference import build
from models.quality_net import BACKBONES, STEMS, resolve_stem
from references.sources import absolute, load_training_references, resolve_source
from training import checkpointing
from training.loop import (
    FINAL_BATCH_NORM_IMAGES,
    evaluate,
    explained,
    make_deterministic,
    predict,
    refit,
    resolve_amp,
    settle_batch_norm,
    start_training,
    train_one_epoch,
)
from utils import distributed
from utils.checkpoint import load_checkpoint, load_states
from utils.device import choose_device
from utils.errors import UserError
from utils.files import read_json, without_nan

# Flags that may differ when a run is resumed.
ANY_TIME = ("resume", "overwrite", "device", "cache_dir", "save_interval")
FOUND = ("types", "references_name", "digest", "versions")  # in config.json beside the flags
TIE = 0.01  # of validation SRCC, a margin for chance over 100 references: of two epochs this close the later is kept
TURN, JOIN = (
    True,
    True,
)  # in training references are turned and mirrored, and parts of two are joined


def build_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add, switch = parser.add_argument, argparse.BooleanOptionalAction
    add("--experiment_name", required=True, help="name of the run's folder under experiments/")
    add(
        "--references",
        default="auto",
        help="'cifar10', 'photos', a folder of images, or 'auto': cifar10, else photos",
    )
    add("--data_root", default="data", help="folder that holds CIFAR-10, or gets it")
    add(
        "--cache_dir",
        help="pack a folder's images into a file here, once, and read them from it (default: from memory)",
    )
    add("--image_size", type=whole(MIN_SIDE), default=32, help="side of a reference, pixels")
    add("--train_samples", type=whole(1), default=500, help="references to train on")
    add("--val_samples", type=whole(2), default=100, help="references that choose best.pt")
    add(
        "--distortions",
        default="default",
        help="'default' (the eight), 'all', or names separated by commas",
    )
    add(
        "--distortions_per_image",
        type=whole(1),
        default=5,
        help="distorted images a reference, beside the pristine",
    )
    add(
        "--compose",
        type=whole(1),
        default=1,
        help="up to this many different distortions one after another",
    )
    add(
        "--redistort",
        action=switch,
        default=True,
        help="new distortions every epoch, or the same for the whole run",
    )
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
        type=whole(2, 512),
        default=32,
        help="dimensions of the embedding, 16 to 64 are good",
    )
    add(
        "--n_clusters",
        type=whole_or_auto(2),
        default=8,
        help="components of the mixture; 'auto': from 2 to 24, by the Bayesian information criterion at each refit",
    )
    add(
        "--gmm_samples",
        type=whole(2),
        default=20000,
        help="images that the mixture is fitted to, at most",
    )
    add(
        "--refit_interval",
        type=whole(1),
        default=10,
        help="epochs from one fit of the mixture to the next",
    )
    add(
        "--cluster_loss_weight",
        type=real(0),
        default=0.5,
        help="weight of the pull to clusters (its formula: models/losses.py); 0 turns it off",
    )
    add(
        "--type_loss_weight",
        type=real(0),
        default=0.1,
        help="weight of predicting the type; 0 removes that head",
    )
    add("--epochs", type=whole(1), default=50, help="passes over all images")
    add("--batch_size", type=whole(2), default=128, help="images a step, of all processes together")
    add("--lr", type=real(0), default=1e-3, help="peak of the one-cycle learning rate")
    add(
        "--seed",
        type=whole(0, MAX_SEED),
        default=0,
        help="of the weights, the batch order and the training draws",
    )
    add(
        "--data_seed",
        type=whole(0, MAX_SEED),
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
    add(
        "--save_interval",
        type=real(0),
        default=30,
        help="least seconds from one checkpoint to the next; --resume goes on from the last; 0: one after every epoch",
    )
    add(
        "--resume",
        action="store_true",
        help="go on with this run from its last.pt; its flags are taken from the run",
    )
    add("--overwrite", action="store_true", help="replace the run of this name")
    return parser


def parse_args(argv=None):
    parser = build_parser()
    args = parser.parse_args(argv)
    args.folder = Path("experiments") / args.experiment_name
    if args.folder.parent != Path("experiments") or args.experiment_name in (".", ".."):
        parser.error(
            f"--experiment_name {args.experiment_name!r} must be a plain name, without / or .."
        )
    if args.resume and args.overwrite:
        parser.error("--resume goes on with the run, --overwrite replaces it: give one of them")
    if args.resume:
        return resumed_args(parser, args, argv)
    return args


def resumed_args(parser, args, argv):
    """The run's own flags. A flag that was typed must agree with them, or be the 'auto' that they came from."""
    path = args.folder / "config.json"
    if not path.is_file():
        parser.error(
            f"--resume: {args.folder} has no config.json, so no run to go on with; --overwrite starts one"
        )
    config = read_json(path, "--overwrite starts the run anew")
    flags = vars(args).keys() - {"folder", *ANY_TIME}
    strange = config.keys() ^ (flags | set(FOUND))
    if strange:
        raise UserError(
            f"--resume: {path} is of another version of this code, by {', '.join(sorted(strange))}; "
            "go on with the code that began the run, or start it anew with --overwrite"
        )
    saved = {name: value for name, value in config.items() if name in flags}
    del saved["experiment_name"]  # a copied or renamed run goes on too
    resumed = parser.parse_args(argv, argparse.Namespace(**saved))
    for name, value in saved.items():
        typed = getattr(resumed, name)
        resolved = typed == "auto" and name in ("references", "stem")
        if (absolute(typed) if name == "references" else typed) != value and not resolved:
            parser.error(
                f"--resume: --{name} {typed} differs from the run's {value}; "
                "leave it out, or start a new run under another --experiment_name"
            )
        setattr(resumed, name, value)
    resumed.folder = args.folder
    return resumed


def main(args):
    device = distributed.join(choose_device(args.device))
    fresh = not (args.resume or args.overwrite)
    if fresh:
        checkpointing.refuse_to_mix(args.folder)
    types = select_types(args.distortions)
    args.stem = resolve_stem(args.stem, args.image_size)
    args.amp = resolve_amp(args, device)
    where = (args.image_size, args.data_root, args.data_seed)
    with distributed.first_before_others():  # it downloads or packs what is missing
        args.references, warning = resolve_source(args.references, args.data_root)
        train_references, val_references = load_training_references(
            args.references, args.train_samples, args.val_samples, *where, args.cache_dir
        )
    how = (types, args.distortions_per_image)
    train = DistortedImageDataset(
        train_references,
        *how,
        args.seed,
        "train",
        args.compose,
        args.redistort,
        turn=TURN,
        join=JOIN,
    )
    val = DistortedImageDataset(
        val_references, *how, args.data_seed, "val", args.compose, redistort=False
    )
    refuse_too_few(args, train, val)
    config, digests = (
        describe(args, types, train, val),
        train_references.digests + val_references.digests,
    )
    distributed.refuse_to_differ(config["digest"])
    announce(config, warning, device)

    make_deterministic(args.seed)
    pretrained = args.pretrained and not (args.resume and checkpointing.has_begun(args.folder))
    model, mixture = build(config, pretrained)
    with explained("at the start", args):
        model = distributed.share_batch_norm(model).to(
            device, memory_format=torch.channels_last
        )  # convolutions are faster
        state = start_training(model, mixture.to(device), args, len(train))
    with checkpointing.locked(args.folder) as lock:
        if fresh:
            checkpointing.refuse_to_mix(args.folder)  # another process may have begun it since
        log = []
        if args.resume and checkpointing.has_begun(args.folder):  # likewise
            log = restore(state, args.folder, config)
        else:
            checkpointing.start(args.folder, config, args.resume)
        saver = checkpointing.Saver(args.folder, args.save_interval)
        args.resume = True  # from here on, that is how an interrupted run goes on

        for epoch in range(len(log), args.epochs):
            with explained(f"epoch {epoch + 1}", args):
                train.set_epoch(epoch)
                refits = is_refit_epoch(epoch, args.refit_interval)
                if refits:
                    refit(mixture, state.averaged.module, train, args)
                    explain_choice(mixture)
                losses, images_per_second = train_one_epoch(state, train, epoch, args)
                settle_batch_norm(state.averaged.module, train, epoch, args)
                scores = evaluate(state.averaged.module, mixture, val)
            checkpointing.refuse_if_lost(args.folder, lock)
            log.append(log_epoch(args, epoch, refits, losses, scores, images_per_second))
            tested = {"config": config, "reference_digests": digests, "epoch": epoch, "finished": False,
                      "model": state.averaged.module.state_dict(), "mixture": mixture.state_dict()}  # fmt: skip
            trained = {**state.state_dicts(), "log": log}
            saver.keep(tested, trained, best=is_best(log), final=len(log) == args.epochs)

        with explained("after the last epoch", args):
            for name in (
                "last",
                "best",
            ):  # last.pt first: a best.pt that was damaged cannot be finished
                checkpointing.refuse_if_lost(args.folder, lock)
                scores = finish(name, state.averaged.module, mixture, train, val, args)
                print(f"{name}.pt: {in_words(scores)}")
    print(f"test it: python test_with_viz.py --experiment {args.folder}")


def refuse_too_few(args, train, val):
    """Raise UserError where there are fewer images than clusters, or than processes."""
    images, processes = min(len(train), args.gmm_samples), distributed.count()
    if min(images, len(val)) < processes:
        raise UserError(
            f"{processes} processes share {len(train)} training and {len(val)} validation images; start fewer"
        )
    if args.n_clusters != "auto" and images < args.n_clusters:
        raise UserError(
            f"--n_clusters {args.n_clusters} needs at least {args.n_clusters} training images, got {images}"
        )
    if args.batch_size % processes:
        raise UserError(
            f"{processes} processes share each batch, so --batch_size {args.batch_size} must be a multiple of {processes}"
        )


def is_refit_epoch(epoch, refit_interval):
    """The mixture is refitted before epochs interval, 2 × interval, … (counted from 0)."""
    return epoch > 0 and epoch % refit_interval == 0


def is_best(log):
    """Whether the last epoch's validation SRCC comes within TIE of the highest."""
    scores = [-1.0 if line["srcc"] is None else line["srcc"] for line in log]
    return scores[-1] >= max(scores) - TIE


def finish(name, model, mixture, train, val, args):
    """Settle the checkpoint's batch-norm statistics on more images, and fit the mixture to its own embeddings, once."""
    path = args.folder / f"{name}.pt"
    state = load_checkpoint(path)
    load_states({"model": model, "mixture": mixture}, state, path)
    if not state["finished"]:
        train.set_epoch(state["epoch"])
        settle_batch_norm(model, train, state["epoch"], args, FINAL_BATCH_NORM_IMAGES)
        refit(mixture, model, train, args)
        mixture.calibrate(predict(model, val)[1])
        explain_choice(mixture)
        for at, value in model.state_dict().items():
            state["model"][at].copy_(value)  # in place: last.pt has it twice, and stores it once
        checkpointing.save(
            args.folder, name, {**state, "mixture": mixture.state_dict(), "finished": True}
        )
    return {"epoch": state["epoch"] + 1, **evaluate(model, mixture, val)}


def explain_choice(mixture):
    """Where --n_clusters is 'auto': the criterion of each number, as the distance to the best."""
    if mixture.bic:
        best = min(mixture.bic.values())
        distances = "  ".join(f"{k}: +{value - best:.0f}" for k, value in mixture.bic.items())
        print(
            f"{len(mixture.weights)} clusters have the lowest Bayesian information criterion; {distances}"
        )


def restore(state, folder, config):
    """Everything as last.pt left it. Returns the log's lines up to then."""
    with (
        distributed.first_before_others()
    ):  # it puts last.prev.pt in the place of a damaged last.pt
        if distributed.is_first():
            checkpointing.remove_temporary(folder)
        saved = checkpointing.load_last(folder)
    if saved["config"]["digest"] != config["digest"]:
        raise UserError(
            f"--resume: the references of {folder}, or the code that draws its images, have changed since it began; "
            "put them back, or start a new run"
        )
    for name in config.keys() - {"experiment_name", "versions"}:
        if saved["config"].get(name) != config[name]:
            raise UserError(
                f"--resume: {folder} has {name} {config[name]} in config.json but {saved['config'].get(name)} in "
                "last.pt; put config.json back, or start the run anew with --overwrite"
            )
    load_states(vars(state), saved, folder / "last.pt")
    checkpointing.put_back_log(folder, saved["log"])
    return saved["log"]


def log_epoch(args, epoch, refit, losses, scores, images_per_second):
    """The same values as a line for people and a line of JSON, which is returned as a dict."""
    values = in_words({**losses, **scores})
    print(
        f"epoch {epoch + 1:3d}/{args.epochs}  {values}  {images_per_second:.0f} images/s",
        flush=True,
    )
    line = {
        "epoch": epoch,
        "refit": refit,
        **losses,
        **scores,
        "images_per_second": images_per_second,
    }
    checkpointing.append_log(args.folder, line)
    return without_nan(line)


def in_words(values):
    return "  ".join(
        f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )


def describe(args, types, train, val):
    """What a run is: its flags, what they came to, and the versions. Plain JSON values."""
    flags = {name: value for name, value in vars(args).items() if name not in ("folder", *ANY_TIME)}
    versions = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
    found = list(types), train.references.source, train.digest() + val.digest(), versions
    return {**flags, **dict(zip(FOUND, found))}


def announce(config, warning, device):
    if warning:
        print(f"warning: {warning}")
    hidden = ("versions", "types")
    print("  ".join(f"{name}={value}" for name, value in config.items() if name not in hidden))
    versions = "  ".join(f"{name} {value}" for name, value in config["versions"].items())
    images = config["train_samples"] * (config["distortions_per_image"] + 1)
    print(f"device {device}  {versions}")
    print(
        f"{images} images an epoch from {config['references_name']}, types {', '.join(config['types'])}",
        flush=True,
    )


def how_to_go_on(args):
    """What to do after an interruption or a failing disk; args is None where it came before they were read."""
    if args is None or not args.resume or not (args.folder / "config.json").is_file():
        return AGAIN
    launcher = "python" if distributed.count() == 1 else "torchrun …"
    return f"{launcher} train_with_distortions.py --experiment_name {args.experiment_name} --resume"


if __name__ == "__main__":
    run_script(main, parse_args, how_to_go_on)
