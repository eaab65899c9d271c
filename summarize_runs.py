"""Summarize several tested runs, such as seeds, in tables of mean ± standard deviation.

    python summarize_runs.py experiments/seed0 experiments/seed1
    python summarize_runs.py experiments/seed0 experiments/seed1 --output results/seeds.json

The runs must have been tested on the same images.
"""

import sys

if __name__ == "__main__":
    try:
        from utils.startup import explain_import_errors
    except ImportError as problem:  # -I, -P or PYTHONSAFEPATH, or another folder's `utils`
        sys.exit(f"error: {problem}; run it as: python '{__file__}', without -I and -P")
    explain_import_errors()  # of the imports below, which take seconds

import argparse
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from evaluation.report import IN_POINTS, spread
from evaluation.results import METRIC_TITLES, changes_at_refits, late_stability, read_metrics
from utils.cli import command_line, make_parser, run_script
from utils.errors import UserError
from utils.files import read_json, write_json
from utils.runs import find_run

PATH_FLAGS = ("references", "data_root")  # of config.json: folders on the machine that trained
CLUSTER_TITLES = {
    "active": "active clusters",
    "effective": "effective clusters",
    "nmi": "NMI",
    "ari": "ARI",
    "purity": "purity",
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "experiments", nargs="+", help="names or folders of runs, tested on the same images"
    )
    parser.add_argument(
        "--output", help="write each run's numbers to this JSON file too (default: no file)"
    )
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Print the tables in Markdown."""
    args.experiments = [str(find_run(text)) for text in args.experiments]
    if len({Path(folder).resolve() for folder in args.experiments}) < len(args.experiments):
        raise UserError(
            f"{' '.join(args.experiments)}: one run stands there twice; name every run once"
        )
    runs = [read_metrics(folder) for folder in args.experiments]
    if len({run["digest"] for run in runs}) > 1:
        raise UserError(
            "these runs were tested on different images: their numbers cannot be averaged"
        )
    first = runs[0]
    title = (
        f"{len(runs)} runs, {first['images']} images of {first['test_references']} held-out "
        f"references, {first['references']}"
    )
    print(title)
    print("\n".join(["", *quality_lines(runs), "", *type_lines(runs), "", *cluster_lines(runs)]))
    for folder, run in zip(args.experiments, runs):
        run["worst_change_at_refit"] = min(changes_at_refits(folder).values(), default=None)
        run["late_stability"] = late_stability(folder)
    changes = [run["worst_change_at_refit"] for run in runs]
    known_changes = [change for change in changes if change is not None]
    if known_changes:
        print(f"| worst change of validation SRCC over a refit epoch | {min(known_changes):+.3f} |")
    shares = [run["late_stability"] for run in runs]
    if None not in shares:
        print(f"| share of images that keep their cluster at a late refit | {spread(shares)} |")
    if args.output:
        write_result(args.output, title, args.experiments, runs)
        print(f"\n{args.output}")


def quality_lines(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Return a table of quality measures, with and without pristine images."""
    lines = ["| | all images | without pristine |", "|---|---|---|"]
    for name, title in METRIC_TITLES.items():
        if any(name not in run for run in runs):
            continue  # tested before there was this measure
        digits = 1 if name in IN_POINTS else 3
        everything = spread([run[name] for run in runs], digits)
        distorted = spread([run["without_pristine"][name] for run in runs], digits)
        lines.append(f"| {title} | {everything} | {distorted} |")
    return lines


def type_lines(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Return a table of SRCC inside each type."""
    lines = ["| SRCC inside | |", "|---|---|"]
    for name in runs[0]["by_type"]:
        lines.append(f"| `{name}` | {spread([run['by_type'][name]['srcc'] for run in runs])} |")
    return lines


def cluster_lines(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Return a table of cluster measures."""
    lines = ["| clusters | |", "|---|---|"]
    for name, title in CLUSTER_TITLES.items():
        digits = 1 if name in ("active", "effective") else 3
        lines.append(f"| {title} | {spread([run['clusters'][name] for run in runs], digits)} |")
    return lines


def write_result(
    path: str, title: str, folders: Sequence[str], runs: Sequence[dict[str, Any]]
) -> None:
    """Write the runs' numbers, and how, where and by which code they were made.

    Commit and versions are those that the runs were trained with. The machine is this one. Paths
    are left out: they are of one machine.
    """
    from utils.device import choose_device, describe_machine  # torch takes seconds to import

    configs = [read_json(Path(folder) / "config.json", "train it again") for folder in folders]
    rows = []
    for run, config in zip(runs, configs):
        row = {name: value for name, value in run.items() if name not in ("test", "figures")}
        flags = {name: value for name, value in config.items() if name not in PATH_FLAGS}
        rows.append({**row, "config": flags})
    result = {
        "title": title,
        "command": command_line(),
        "commit": ", ".join(distinct(config.get("git_commit") or "unknown" for config in configs)),
        "machine": describe_machine(choose_device("auto")),
        "date": date.today().isoformat(),
        "versions": {
            name: ", ".join(distinct(config["versions"].get(name, "unknown") for config in configs))
            for name in configs[0]["versions"]
        },
        "seeds": [config["seed"] for config in configs],
        "runs": rows,
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result)


def distinct(values: Iterable[str]) -> list[str]:
    """Return each value once, in the order of its first appearance."""
    return list(dict.fromkeys(values))


if __name__ == "__main__":
    run_script(main, parse_args)
