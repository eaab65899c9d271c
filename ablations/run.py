"""What each part of the recipe is worth: ablations over seeds, tested on the same images.

Choose settings by this on images of your own that no reported figure is made of: every row is a
look at the test.

    python -m ablations.run --references path/to/images --ablations main --seeds 0 1 2 --jobs 2
    python -m ablations.run --references path/to/images --ablations both parts --seeds 0 1 \\
        --epochs 15 --name short
    python -m ablations.run --references path/to/images --ablations both \\
        --flags="--train_samples 4000" --name ceiling
    python -m ablations.run --quick

--list shows the ablations, which are in ablations/variants.py. A run lands in
experiments/<name>_<ablation>_seed<seed>. The same command again goes on where it stopped and trains
nothing twice. At the end it writes <output>/<name>.json, the numbers, <name>.md, the tables made
from them, and <name>.png, a figure.
"""

import argparse
import shlex
from pathlib import Path
from typing import Any

from ablations.aggregate import aggregate, aggregate_type_head, paired_difference
from ablations.classical import aggregate_classical
from ablations.jobs import folder_of, folders_of, threads_per_job, train_all
from ablations.tables import (
    Rows,
    cluster_table,
    left_out_table,
    own_cluster_table,
    quality_table,
    refit_table,
    values_of,
)
from ablations.variants import ABLATIONS, GROUPS, WITHOUT
from benchmarks.timing import result_header, write_result
from evaluation import plots
from evaluation.results import read_metrics
from references.sources import resolve_source
from utils.cli import MAX_SEED, int_in_range, make_parser, run_script
from utils.drawing import default_style, save_figure
from utils.images import MIN_SIDE

# Flags of train_with_distortions.py that are set here, and the flag that sets each.
FLAGS_SET_HERE = {
    "experiment_name": "name",
    "references": "references",
    "seed": "seeds",
    "data_root": "data_root",
    "image_size": "image_size",
    "epochs": "epochs",
}
QUICK = {
    "ablations": ["redrawn_plain", "both"],
    "seeds": [0, 1],
    "epochs": 2,
    "test_samples": 24,
    "name": "quick",
    "references": "photos",
}
QUICK_FLAGS = (
    "--train_samples 16 --val_samples 4 --distortions_per_image 2 --n_clusters 3 --refit_interval 1"
)
FIGURE_COLUMNS = {
    "srcc_without_pristine": "SRCC without pristine",
    "nmi": "NMI of clusters and types",
    "unknown": "AUROC of unknown types",
}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    count = int_in_range(1)
    seed = int_in_range(0, MAX_SEED)
    groups = ", ".join(GROUPS)
    same = "as for train_with_distortions.py"
    add("--ablations", nargs="+", default=["main"], help=f"their names, or groups: {groups}")
    add(
        "--seeds", nargs="+", type=seed, default=[0, 1, 2], help="each ablation is trained with all"
    )
    add("--epochs", type=count, default=50, help="of every run; a fifth of it between refits")
    add("--references", default="auto", help=same)
    add("--data_root", default="data", help=same)
    add("--image_size", type=int_in_range(MIN_SIDE), default=32, help=same)
    add(
        "--flags", default="", help='further ones for the training of every run: --flags="--no-amp"'
    )
    add("--test_samples", type=int_in_range(2), default=1017, help="held-out references, at most")
    add(
        "--against", default="both", help="the ablation that others are compared with, if it is run"
    )
    add(
        "--classical",
        type=int_in_range(0),
        default=0,
        metavar="IMAGES",
        help="add rows for BRISQUE's features with a regressor trained on so many redrawn images, "
        "and for a distance from pristine images",
    )
    add("--jobs", type=count, default=1, help="runs at the same time, which share the cores")
    add("--name", default="recipe", help="begins the names of runs and files")
    add("--output", default="results", help="folder of the numbers, tables and figure")
    quick = "two ablations, seeds and epochs of a tiny size: shows that everything works"
    add("--quick", action="store_true", help=quick)
    add("--list", action="store_true", help="show the ablations and stop")
    return parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line, and refuse what would mislead."""
    parser = build_parser()
    args = parser.parse_args(argv)
    for name in args.ablations:
        if name not in ABLATIONS and name not in GROUPS:
            parser.error(f"{name!r} is no ablation or group of ablations; --list shows them")
    if args.against not in ABLATIONS:
        parser.error(f"--against {args.against!r} is no ablation; --list shows them")
    if Path(args.name).name != args.name:
        parser.error(f"--name {args.name!r} begins the names of folders; leave out slashes")
    typed = [flag.split("=")[0] for flag in shlex.split(args.flags)]
    for flag, own_flag in FLAGS_SET_HERE.items():
        if f"--{flag}" in typed:
            parser.error(f"--flags: ablations.run sets --{flag} itself, by --{own_flag}")
    if "--preset" in typed:
        parser.error("--flags: ablations set the recipe, so give a preset's flags in place of it")
    if args.quick:
        vars(args).update(QUICK, flags=f"{QUICK_FLAGS} {args.flags}")
    args.seeds = list(dict.fromkeys(args.seeds))
    return args


def main(args: argparse.Namespace) -> None:
    """Train, test and compare ablations, or list them."""
    if args.list:
        print_list()
        return
    args.references, warning = resolve_source(args.references, args.data_root)
    if warning:
        print(f"warning: {warning}")
    header = result_header(packages=["piq", "scikit-image"])
    header["machine"]["threads"] = threads_per_job(args)
    names = list(
        dict.fromkeys(name for group in args.ablations for name in GROUPS.get(group, [group]))
    )

    # --------------------------------------------------------------------------------- training
    train_all([(name, seed) for seed in args.seeds for name in names], args)

    # ------------------------------------------------------------------------------ aggregation
    rows = aggregate_all(names, args)

    # ---------------------------------------------------------------------------------- results
    tables = make_tables(rows, args.against)
    text = "\n".join("\n".join([*lines, ""]) for lines in tables)
    print(f"\n{text}")
    write_results(args, header, rows, text)


def print_list() -> None:
    """Print every ablation, and the groups."""
    for name, ablation in ABLATIONS.items():
        print(f"{name:28}{ablation.description}")
    for name, group in GROUPS.items():
        print(f"group {name}: {', '.join(group)}")


def aggregate_all(names: list[str], args: argparse.Namespace) -> Rows:
    """Return a row for each ablation, and for what is compared with them."""
    rows = {name: aggregate(folders_of(args, name)) for name in names}
    if "redrawn_type" in rows:
        rows["type_head"] = aggregate_type_head(folders_of(args, "redrawn_type"))
    against = rows.get(args.against)
    if args.classical:
        example = args.against if against else names[0]
        rows.update(aggregate_classical(folders_of(args, example), args.classical))
    for row in rows.values():
        row["difference"] = None
        if against and row is not against and row["digest"] == against["digest"]:
            row["difference"] = paired_difference(row, against)
    return rows


def make_tables(rows: Rows, against: str) -> list[list[str]]:
    """Return the lines of each table."""
    trained = {name: row for name, row in rows.items() if name in ABLATIONS}
    left_out = {name: row for name, row in rows.items() if name in WITHOUT}
    own = own_cluster_table(trained)
    tables = [quality_table(rows, against), cluster_table(rows), refit_table(trained), own]
    return [*tables, left_out_table(left_out)] if left_out else tables


def write_results(args: argparse.Namespace, header: dict[str, Any], rows: Rows, text: str) -> None:
    """Write the numbers, the tables and the figure."""
    first_trained = next(name for name in rows if name in ABLATIONS)
    metrics = read_metrics(folder_of(args, first_trained, args.seeds[0]))
    numbers: dict[str, Any] = {
        "references": metrics["references"],
        "test_references": metrics["test_references"],
        "epochs": args.epochs,
        "seeds": args.seeds,
        "image_size": args.image_size,
        "flags": args.flags,
        "against": args.against,
        "ablations": {},
    }
    for name, row in rows.items():
        numbers["ablations"][name] = dict(row)
        numbers["ablations"][name].pop("tested", None)
    write_result(args.output, args.name, header, numbers)

    tables = Path(args.output) / f"{args.name}.md"
    tables.write_text(text, encoding="utf-8")
    columns = {
        title: [values_of(row, measure) for row in rows.values()]
        for measure, title in FIGURE_COLUMNS.items()
    }
    subtitle = (
        f"{args.epochs} epochs, seeds {', '.join(map(str, args.seeds))}, "
        f"{metrics['images']} held-out images from {metrics['references']}"
    )
    figure = Path(args.output) / f"{args.name}.png"
    with default_style():
        drawn = plots.plot_ablations(list(rows), columns, subtitle)
    save_figure(drawn, figure)
    print(f"{tables}\n{figure}")


if __name__ == "__main__":
    run_script(main, parse_args)
