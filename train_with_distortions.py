"""Train a network to score distorted images, with a Gaussian mixture refitted over its embeddings as it learns.

    python train_with_distortions.py --experiment_name resnet18_distorted
    python train_with_distortions.py --experiment_name mine --references path/to/images --epochs 20

The run lands in experiments/<experiment_name>; test it with test_with_viz.py.
"""

import argparse
import json
import math
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or CUDA's matrix products are not reproducible

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from tqdm import tqdm

import run_folder
from command_line import MAX_SEED, HelpFormatter, real, run_script, whole, whole_or_auto
from distorted_dataset import DistortedImageDataset
from distortions import MIN_SIDE, select_types
from draws import FIXED, PARTS, permutation
from errors import UserError
from metrics import cluster_measures, plcc, srcc
from models.checkpoint import load_checkpoint, save_checkpoint
from models.losses import cluster_loss, quality_loss, type_loss
from models.muon import Muon
from models.quality_net import BACKBONES, SINGLE_PIXEL, STEMS, resolve_stem
from models.run import PIXELS_AT_ONCE, build, choose_device, forward
from references import absolute, load_training_references, resolve_source

ANY_TIME = ("resume", "overwrite", "device", "cache_dir")  # flags that may differ when a run is resumed
WEIGHT_DECAY = 0.1
TIE = 0.01  # of validation SRCC, a margin for chance over 100 references: of two epochs this close the later is kept
WARM_UP = 0.2  # share of the steps in which the learning rate rises to --lr
AVERAGED_SHARE = 0.04  # of a run's steps: the span of the exponential mean of the weights that is validated and kept
TURN, JOIN = True, True  # in training references are turned and mirrored, and parts of two are joined
BATCH_NORM_IMAGES = 512  # settle the batch-norm statistics of the averaged weights


def build_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add, switch = parser.add_argument, argparse.BooleanOptionalAction
    add("--experiment_name", required=True, help="name of the run's folder under experiments/")
    add("--references", default="auto", help="'cifar10', 'photos', a folder of images, or 'auto': cifar10, else photos")
    add("--data_root", default="data", help="folder that holds CIFAR-10, or gets it")
    add("--cache_dir", help="pack a folder's images into a file here, once, and read them from it, not from memory")
    add("--image_size", type=whole(MIN_SIDE), default=32, help="side of a reference, pixels")
    add("--train_samples", type=whole(1), default=500, help="references to train on")
    add("--val_samples", type=whole(2), default=100, help="references that choose best.pt")
    add("--distortions", default="default", help="'default' (the eight), 'all', or names separated by commas")
    add("--distortions_per_image", type=whole(1), default=5, help="distorted images a reference, beside the pristine")
    add("--compose", type=whole(1), default=1, help="up to this many different distortions one after another")
    add("--redistort", action=switch, default=True, help="new distortions every epoch, or the same for the whole run")
    add("--backbone", choices=BACKBONES, default="resnet18", help="the network")
    add("--stem", choices=("auto", *STEMS), default="auto", help="its first layer; auto: small under 64 pixels")
    add("--pretrained", action=switch, default=False, help="start from ImageNet's weights; needs --stem imagenet")
    add("--embedding_dim", type=whole(2, 512), default=32, help="dimensions of the embedding, 16 to 64 are good")
    add(
        "--n_clusters",
        type=whole_or_auto(2),
        default=8,
        help="components of the mixture; 'auto': from 2 to 24, by the Bayesian information criterion at each refit",
    )
    add("--refit_interval", type=whole(1), default=10, help="epochs from one fit of the mixture to the next")
    add(
        "--cluster_loss_weight",
        type=real(0),
        default=0.5,
        help="weight of the pull to clusters (its formula: models/losses.py); 0 turns it off",
    )
    add("--type_loss_weight", type=real(0), default=0.1, help="weight of predicting the type; 0 removes that head")
    add("--epochs", type=whole(1), default=50, help="passes over all images")
    add("--batch_size", type=whole(2), default=128, help="images a step")
    add("--lr", type=real(0), default=1e-3, help="peak of the one-cycle learning rate")
    add("--seed", type=whole(0, MAX_SEED), default=0, help="of the weights, the batch order and the training draws")
    add(
        "--data_seed",
        type=whole(0, MAX_SEED),
        default=0,
        help="of the choice of references, the splits and validation's draws",
    )
    add("--device", default="auto", help="'cpu', 'cuda', 'cuda:1', or 'auto': cuda where there is one")
    add("--amp", action=switch, default=None, help="bfloat16 arithmetic; by default where the hardware has it")
    add("--resume", action="store_true", help="go on with this run from its last.pt; its flags are taken from the run")
    add("--overwrite", action="store_true", help="replace the run of this name")
    return parser


def parse_args(argv=None):
    parser = build_parser()
    args = parser.parse_args(argv)
    args.folder = Path("experiments") / args.experiment_name
    if args.folder.parent != Path("experiments") or args.experiment_name in (".", ".."):
        parser.error(f"--experiment_name {args.experiment_name!r} must be a plain name, without / or ..")
    if args.resume and args.overwrite:
        parser.error("--resume goes on with the run, --overwrite replaces it: give one of them")
    if args.resume:
        return resumed_args(parser, args, argv)
    return args


def resumed_args(parser, args, argv):
    """The run's own flags. A flag that was typed must agree with them, or be the 'auto' that they came from."""
    path = args.folder / "config.json"
    if not path.is_file():
        parser.error(f"--resume: {args.folder} has no config.json, so no run to go on with; --overwrite starts one")
    saved = {name: value for name, value in json.loads(path.read_text()).items() if hasattr(args, name)}
    del saved["experiment_name"]  # a copied or renamed run goes on too
    resumed = parser.parse_args(argv, argparse.Namespace(**{k: v for k, v in saved.items() if k not in ANY_TIME}))
    for name in saved.keys() - set(ANY_TIME):
        typed, value = getattr(resumed, name), saved[name]
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
    device = choose_device(args.device)
    if not (args.resume or args.overwrite):
        run_folder.refuse_to_mix(args.folder)
    types = select_types(args.distortions)
    args.references, warning = resolve_source(args.references, args.data_root)
    args.stem = resolve_stem(args.stem, args.image_size)
    args.amp = resolve_amp(args, device)
    where = (args.image_size, args.data_root, args.data_seed)
    train_references, val_references = load_training_references(
        args.references, args.train_samples, args.val_samples, *where, args.cache_dir
    )
    how = (types, args.distortions_per_image)
    train = DistortedImageDataset(
        train_references, *how, args.seed, "train", args.compose, args.redistort, turn=TURN, join=JOIN
    )
    val = DistortedImageDataset(val_references, *how, args.data_seed, "val", args.compose, redistort=False)
    if args.n_clusters != "auto" and len(train) < args.n_clusters:
        raise UserError(
            f"--n_clusters {args.n_clusters} needs at least {args.n_clusters} training images, got {len(train)}"
        )
    config, digests = describe(args, types, train, val), train_references.digests() + val_references.digests()
    announce(config, warning, device)

    make_deterministic(args.seed)
    goes_on = args.resume and run_folder.has_begun(args.folder)
    model, mixture = build(config, args.pretrained and not goes_on)
    model = model.to(device, memory_format=torch.channels_last)  # convolutions are faster
    state = start_training(model, mixture.to(device), args, len(train))
    start_epoch, best_srcc = 0, -math.inf
    if goes_on:
        start_epoch, best_srcc = restore(state, args.folder, config, device)
    else:
        run_folder.start(args.folder, config)

    for epoch in range(start_epoch, args.epochs):
        train.set_epoch(epoch)
        refit = is_refit_epoch(epoch, args.refit_interval)
        if refit:
            mixture.refit(predict(state.averaged.module, train)[1], args.seed)
            explain_choice(mixture)
        losses, images_per_second = train_one_epoch(state, train, epoch, args)
        settle_batch_norm(state.averaged, train, epoch, args)
        scores = evaluate(state.averaged.module, mixture, val)
        log_epoch(args, epoch, refit, losses, scores, images_per_second)
        tested = {"config": config, "reference_digests": digests, "epoch": epoch, "finished": False,
                  "model": state.averaged.module.state_dict(), "mixture": mixture.state_dict()}  # fmt: skip
        score = -1.0 if math.isnan(scores["srcc"]) else scores["srcc"]
        best_srcc = max(best_srcc, score)
        if score >= best_srcc - TIE:
            save_checkpoint(args.folder / "best.pt", tested)
        save_checkpoint(args.folder / "last.pt", {**tested, **state.state_dicts(), "best_srcc": best_srcc})

    for name in ("best", "last"):
        scores = finish(args.folder / f"{name}.pt", state.averaged.module, mixture, train, val, args.seed, device)
        print(f"{name}.pt: {in_words(scores)}")
    print(f"test it: python test_with_viz.py --experiment {args.folder}")


@dataclass
class TrainingState:
    """What changes while training, apart from the mixture."""

    online: torch.nn.Module  # takes the gradient steps
    averaged: AveragedModel  # the exponential mean of its weights: validated, clustered and kept
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    mixture: torch.nn.Module

    def state_dicts(self):
        return {name: part.state_dict() for name, part in vars(self).items()}


def start_training(model, mixture, args, images):
    """A fresh TrainingState: Muon on a one-cycle schedule that spans the whole run. The schedule is fixed beforehand:
    steering it by validation would end runs of different seeds at different rates, which cannot be compared."""
    steps = max(2, args.epochs * math.ceil(images / args.batch_size))
    optimizer = Muon(model, args.lr, WEIGHT_DECAY)
    warm_up = max(WARM_UP, 1.5 / steps)  # one step at least
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, steps, pct_start=warm_up, cycle_momentum=False)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(1 - 1 / max(1, AVERAGED_SHARE * steps)))
    return TrainingState(model, averaged, optimizer, schedule, mixture)


def is_refit_epoch(epoch, refit_interval):
    """The mixture is refitted before epochs interval, 2 × interval, … (counted from 0)."""
    return epoch > 0 and epoch % refit_interval == 0


def train_one_epoch(state, dataset, epoch, args):
    """One pass in a random order. Returns ({name of a loss: its mean}, images per second)."""
    model, mixture = state.online.train(), state.mixture
    device = next(model.parameters()).device
    labels, totals, seen, started = dataset.labels, 0, 0, time.perf_counter()
    batches = training_batches(dataset, epoch_order(dataset, epoch, args.seed), args.batch_size, device)
    title = f"epoch {epoch + 1}/{args.epochs}"
    with tqdm(total=len(dataset), desc=title, unit="image", leave=False, mininterval=0.5) as bar:
        for images, indices in batches:
            with torch.autocast(device.type, torch.bfloat16, enabled=args.amp):
                output = model(images)
            qualities, types = labels.quality[indices].to(device), labels.type[indices].to(device)
            losses = {"quality_loss": quality_loss(output.quality, qualities)}
            loss = losses["quality_loss"]
            if mixture.fitted and args.cluster_loss_weight:
                losses["cluster_loss"] = cluster_loss(mixture, output.embedding)
                loss = loss + args.cluster_loss_weight * losses["cluster_loss"]
            if output.type_logits is not None:
                losses["type_loss"] = type_loss(output.type_logits, types)
                loss = loss + args.type_loss_weight * losses["type_loss"]
            state.optimizer.zero_grad()
            loss.backward()
            state.optimizer.step()
            state.schedule.step()
            state.averaged.update_parameters(model)
            totals = totals + len(images) * torch.stack([loss, *losses.values()]).detach()
            seen += len(images)
            bar.update(len(images))
    means = (totals / seen).tolist()
    if not np.isfinite(means).all():
        raise UserError(f"the loss of epoch {epoch + 1} is not finite; start again with an --lr below {args.lr}")
    return dict(zip(("loss", *losses), means)), seen / (time.perf_counter() - started)


def epoch_order(dataset, epoch, seed):
    """A random order of this epoch's images, (N,) int64."""
    return permutation(len(dataset), seed, PARTS.index("train"), epoch, FIXED)


def training_batches(dataset, order, batch_size, device):
    """The dataset's batches but for a last one of a single image, from which batch norm cannot learn."""
    return ((images, indices) for images, indices in dataset.batches(order, batch_size, device) if len(indices) > 1)


def settle_batch_norm(averaged, dataset, epoch, args):
    """Measure the averaged weights' own batch-norm statistics: those of the trained weights do not fit them."""
    device = next(averaged.parameters()).device
    order = epoch_order(dataset, epoch, args.seed)[:BATCH_NORM_IMAGES]
    with torch.autocast(device.type, torch.bfloat16, enabled=args.amp):
        update_bn((images for images, _ in training_batches(dataset, order, args.batch_size, device)), averaged)


def predict(model, dataset):
    """(qualities (N,), embeddings (N, D)) of a dataset's images in their order, numpy."""
    device, pixels = next(model.parameters()).device, math.prod(dataset.references.images.shape[2:])
    batches = dataset.batches(torch.arange(len(dataset)), min(256, max(1, PIXELS_AT_ONCE // pixels)), device)
    qualities, embeddings = (torch.cat(values) for values in zip(*(forward(model, images) for images, _ in batches)))
    return qualities.double().cpu().numpy(), embeddings.cpu().numpy()


def evaluate(model, mixture, dataset):
    """Validation scores: correlations, and the clusters where a mixture has been fitted."""
    qualities, embeddings = predict(model, dataset)
    true = dataset.labels.quality.double().numpy()
    scores = {"srcc": srcc(true, qualities), "plcc": plcc(true, qualities)}
    if mixture.fitted:
        measures = cluster_measures(mixture.assign(embeddings), dataset.labels.type.numpy(), len(mixture.weights))
        scores |= {"clusters": len(mixture.weights)} if mixture.auto else {}
        scores |= {"active_clusters": measures["active"], "nmi": measures["nmi"]}
        if not mixture.kept.isnan():
            scores["kept"] = mixture.kept.item()
    return scores


def finish(path, model, mixture, train, val, seed, device):
    """Fit the mixture to the checkpoint's own weights, once, so that clusters and embeddings belong together."""
    state = load_checkpoint(path, device)
    model.load_state_dict(state["model"])
    mixture.load_state_dict(state["mixture"])
    if not state["finished"]:
        train.set_epoch(state["epoch"])
        mixture.refit(predict(model, train)[1], seed)
        mixture.calibrate(predict(model, val)[1])
        explain_choice(mixture)
        save_checkpoint(path, {**state, "mixture": mixture.state_dict(), "finished": True})
    return {"epoch": state["epoch"] + 1, **evaluate(model, mixture, val)}


def explain_choice(mixture):
    """Where --n_clusters is 'auto': the criterion of each number, as the distance to the best."""
    if mixture.bic:
        best = min(mixture.bic.values())
        distances = "  ".join(f"{k}: +{value - best:.0f}" for k, value in mixture.bic.items())
        print(f"{len(mixture.weights)} clusters have the lowest Bayesian information criterion; {distances}")


def restore(state, folder, config, device):
    """Everything as last.pt left it. Returns (next epoch, best validation SRCC so far)."""
    saved = load_checkpoint(folder / "last.pt", device)
    if saved["config"]["digest"] != config["digest"]:
        raise UserError(f"--resume: the references of {folder} have changed since it began; start a new run")
    for name, part in vars(state).items():
        part.load_state_dict(saved[name])
    run_folder.trim_log(folder, saved["epoch"] + 1)
    return saved["epoch"] + 1, saved["best_srcc"]


def log_epoch(args, epoch, refit, losses, scores, images_per_second):
    """The same values as a line for people and a line of JSON."""
    values = in_words({**losses, **scores})
    print(f"epoch {epoch + 1:3d}/{args.epochs}  {values}  {images_per_second:.0f} images/s", flush=True)
    line = {"epoch": epoch, "refit": refit, **losses, **scores, "images_per_second": images_per_second}
    run_folder.append_log(args.folder, line)


def in_words(values):
    return "  ".join(
        f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


def describe(args, types, train, val):
    """What a run is: its flags, what they came to, and the versions. Plain JSON values."""
    flags = {name: value for name, value in vars(args).items() if name not in ("folder", *ANY_TIME)}
    found = {
        "types": list(types),
        "references_name": train.references.source,
        "digest": train.digest() + val.digest(),
    }
    versions = {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}
    return {**flags, **found, "versions": versions}


def announce(config, warning, device):
    if warning:
        print(f"warning: {warning}")
    hidden = ("versions", "types")
    print("  ".join(f"{name}={value}" for name, value in config.items() if name not in hidden))
    versions = "  ".join(f"{name} {value}" for name, value in config["versions"].items())
    images = config["train_samples"] * (config["distortions_per_image"] + 1)
    print(f"device {device}  {versions}")
    print(f"{images} images an epoch from {config['references_name']}, types {', '.join(config['types'])}", flush=True)


def make_deterministic(seed):
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False


def resolve_amp(args, device):
    """bfloat16 where it was asked for, or by default where it is native; on a CPU, only where it is sound."""
    if device.type == "cuda":
        native, sound = torch.cuda.is_bf16_supported(including_emulation=False), True
    else:
        native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
        sound = args.image_size > SINGLE_PIXEL[args.stem]
    if args.amp and not sound:
        raise UserError(
            f"--amp: bfloat16 gradients are not sound on a CPU at --image_size {args.image_size}; leave it out"
        )
    return bool(native and sound) if args.amp is None else args.amp


if __name__ == "__main__":
    run_script(main, parse_args, "go on with the same --experiment_name and --resume")
