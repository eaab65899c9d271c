"""Several tested runs, such as seeds, as one table of mean ± standard deviation, ready for a paper.

python summarize_runs.py experiments/full_seed0 experiments/full_seed1 experiments/full_seed2
"""

import argparse
from collections.abc import Sequence
from typing import Any

from evaluation.report import IN_POINTS, spread
from evaluation.results import METRIC_TITLES, changes_at_refits, read_metrics
from utils.cli import HelpFormatter, run_script
from utils.errors import UserError

CLUSTER_TITLES = {
    "active": "active clusters",
    "effective": "effective clusters",
    "nmi": "NMI",
    "ari": "ARI",
    "purity": "purity",
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "experiments", nargs="+", help="folders of runs that were tested on the same images"
    )
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Print the tables in Markdown."""
    runs = [read_metrics(folder) for folder in args.experiments]
    if len({run["digest"] for run in runs}) > 1:
        raise UserError(
            "these runs were tested on different images: their numbers cannot be averaged"
        )
    first = runs[0]
    print(
        f"{len(runs)} runs, {first['images']} images of {first['test_references']} held-out "
        f"references, {first['references']}"
    )
    print("\n".join(["", *quality_lines(runs), "", *type_lines(runs), "", *cluster_lines(runs)]))
    changes: list[float] = []
    for folder in args.experiments:
        changes.extend(changes_at_refits(folder).values())
    if changes:
        print(f"| worst change of validation SRCC over a refit epoch | {min(changes):+.3f} |")


def quality_lines(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Return a table of quality measures, with and without pristine images."""
    lines = ["| | all images | without pristine |", "|---|---|---|"]
    for name, title in METRIC_TITLES.items():
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


if __name__ == "__main__":
    run_script(main, parse_args)
