"""Test a run on references that it never saw: metrics, a table, predictions and figures.

    python test_with_viz.py --experiment experiments/resnet18_distorted
    python test_with_viz.py --experiment experiments/mine --references path/to/images --skip_tsne

Everything lands in the run's visualizations/ folder.
"""

import sys

if __name__ == "__main__":
    try:
        from utils.startup import explain_import_errors
    except ImportError as problem:  # -I, -P or PYTHONSAFEPATH, or another folder's `utils`
        sys.exit(f"error: {problem}; run it as: python '{__file__}', without -I and -P")
    explain_import_errors()  # of the imports below, which take seconds

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distorted_dataset import DistortedImageDataset
from distortions.registry import DISTORTIONS, missing_type_hint
from distortions.sources_changed import stale_warning
from evaluation.evaluate import held_out_dataset, measure, predict, unseen_part
from evaluation.report import table
from evaluation.results import read_log, write_predictions
from models import Run, load_run
from references.sources import BUILTIN, resolve_source
from utils.cli import MAX_SEED, int_in_range, make_parser, run_script
from utils.errors import Failed, UserError, describe_exception
from utils.files import write_json
from utils.runs import find_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add(
        "--experiment",
        required=True,
        help="the run's name or folder, such as experiments/resnet18_distorted",
    )
    add(
        "--checkpoint",
        choices=("best", "last"),
        default="best",
        help="chosen by validation SRCC, or the last epoch's",
    )
    add("--test_samples", type=int_in_range(2), default=500, help="references, at most")
    add(
        "--references",
        help="test on 'cifar10', 'photos' or a folder (default: the run's own source)",
    )
    add(
        "--test_part",
        choices=("auto", "held_out", "all"),
        default="auto",
        help="what of a folder: its held-out images, or all; auto: all of a folder that the run "
        "has not seen and that has no test images of its own",
    )
    add("--data_root", help="folder that holds CIFAR-10, or gets it (default: the run's)")
    add(
        "--cache_dir",
        help="pack a folder's images into a file here, once, and read them from it "
        "(default: from memory)",
    )
    add(
        "--seed",
        type=int_in_range(0, MAX_SEED),
        help="choice of test references and their draws (default: the run's --data_seed)",
    )
    add(
        "--distortions_per_image",
        type=int_in_range(1),
        help="of each held-out reference (default: the run's)",
    )
    add(
        "--crops_per_reference",
        type=int_in_range(1),
        help="crops of each test photograph, where the run was trained on crops at their own "
        "scale (default: the run's)",
    )
    add("--skip_tsne", action="store_true", help="leave out the t-SNE figure, the slowest")
    add(
        "--device",
        default="auto",
        help="'cpu', 'cuda', 'cuda:1', or 'auto': cuda where there is one",
    )
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Test a run and write what was found."""
    from evaluation.figures import list_figures  # a slow import, not needed for --help

    # ------------------------------------------------------------------------------------- load
    args.experiment = str(find_run(args.experiment, args.checkpoint))
    run = load_run(args.experiment, args.checkpoint, args.device)
    log = read_log(args.experiment)
    test = describe_test(args, run)
    dataset = load_dataset(args, run, test)

    # ------------------------------------------------------------------------ predict, measure
    predictions = predict(run, dataset)
    metrics = measure(
        run, dataset, predictions, experiment=args.experiment, checkpoint=args.checkpoint
    )
    metrics["test"] = test

    # ------------------------------------------------------------------------------------ write
    folder = Path(args.experiment) / "visualizations"
    tell_what_is_replaced(folder, test)
    metrics["figures"] = []
    with tempfile.TemporaryDirectory(prefix="test.", dir=args.experiment) as temporary:
        new = Path(temporary)
        write_predictions(new / "predictions.csv", dataset, predictions)
        write_json(new / "metrics.json", metrics)
        replace_results(folder, new)
    figures = list_figures(dataset, predictions, metrics, log, args.skip_tsne)
    failures = write_figures(folder, metrics, figures)
    print_results(folder, metrics)
    if failures:
        reasons = [f"{name} ({describe_exception(failures[name])})" for name in failures]
        raise Failed(
            f"{len(failures)} of {len(figures)} figures failed: {', '.join(reasons)}; "
            "the numbers and the other figures are whole"
        ) from next(iter(failures.values()))


def describe_test(args: argparse.Namespace, run: Run) -> dict[str, Any]:
    """Return which images the run is tested on: its own held-out references, or what flags say."""
    config = run.config
    data_root = args.data_root or config["data_root"]
    references = config["references"]
    if args.references:
        references, warning = resolve_source(args.references, data_root)
        if warning:
            print(f"warning: {warning}")
    elif references not in BUILTIN and not Path(references).exists():
        raise UserError(
            f"{args.experiment} was trained on {references}, which is not there any more; "
            "give its new place, or other images, by --references"
        )
    part = args.test_part
    if part == "auto":
        part = unseen_part(run, references)
    if args.crops_per_reference and config["crop"] == "whole":
        raise UserError(
            f"--crops_per_reference is for crops at their own scale; {args.experiment} was trained "
            "on whole scenes, so leave it out"
        )
    return {
        "references": references,
        "data_root": data_root,
        "seed": config["data_seed"] if args.seed is None else args.seed,
        "samples": args.test_samples,
        "distortions_per_image": args.distortions_per_image or config["distortions_per_image"],
        "part": part,
        "crops_per_reference": args.crops_per_reference or config["crops_per_reference"],
    }


def load_dataset(args: argparse.Namespace, run: Run, test: dict[str, Any]) -> DistortedImageDataset:
    """Return the test images, and print what was left out of them."""
    for name in run.config["types"]:
        if name not in DISTORTIONS:
            raise UserError(
                f"{args.experiment} was trained on {name!r}, which distortions/ does not have"
                f"{missing_type_hint(name)}"
            )
    if warning := stale_warning():
        print(f"warning: {warning}")
    dataset, _ = held_out_dataset(run, test, args.cache_dir)
    if line := dataset.describe_ineffective():
        print(line)
    references = dataset.references
    count = len(references)
    if run.config["crop"] == "native" and test["references"] not in BUILTIN:
        count = len(np.unique(references.photographs))
    if count < args.test_samples:
        print(
            f"{count} test references, all that {references.source} has "
            f"(--test_samples {args.test_samples})"
        )
    return dataset


def tell_what_is_replaced(folder: Path, test: dict[str, Any]) -> None:
    """Print a line where an earlier test of the run was on other images."""
    try:
        earlier = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # there is none, or none that can be read
    if earlier.get("test") not in (None, test):
        print(
            f"this replaces the run's test on {earlier['images']} images of {earlier['references']}"
            f"; copy {folder} to keep it"
        )


def replace_results(folder: Path, new: Path) -> None:
    """Put a test's numbers in the place of an earlier test's, whose figures are removed.

    metrics.json is removed first and put back last: where it is, the other files belong to it.
    """
    folder.mkdir(exist_ok=True)
    for old in (folder / "metrics.json", *folder.glob("*.png")):
        old.unlink(missing_ok=True)
    for name in ("predictions.csv", "metrics.json"):
        os.replace(new / name, folder / name)


def write_figures(
    folder: Path, metrics: dict[str, Any], figures: dict[str, Callable[[], "Figure"]]
) -> dict[str, Exception]:
    """Draw each figure on its own, and return {name: the exception} of those that failed.

    metrics.json lists the figures that are there, also after an interruption.
    """
    from evaluation.figures import draw

    failures = {}
    try:
        for name, function in figures.items():
            path = folder / f"{name}.png"
            try:
                draw(function, path)
            except Exception as problem:
                path.unlink(missing_ok=True)  # what a full disk has left of it
                failures[name] = problem
            else:
                metrics["figures"].append(path.name)
    finally:
        write_json(folder / "metrics.json", metrics)
    return failures


def print_results(folder: Path, metrics: dict[str, Any]) -> None:
    """Print the table, and the paths of the files."""
    print("\n".join(["", *table(metrics), ""]))
    for name in ("metrics.json", "predictions.csv", *metrics["figures"]):
        print(folder / name)


if __name__ == "__main__":
    run_script(main, parse_args)
