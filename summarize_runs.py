"""Several tested runs, such as seeds, as one table of mean ± standard deviation, ready for a paper or a README.

python summarize_runs.py experiments/full_seed0 experiments/full_seed1 experiments/full_seed2
"""

import argparse

from evaluation.report import TITLES, spread
from training.checkpointing import changes_at_refits, read_metrics
from utils.cli import HelpFormatter, run_script
from utils.errors import UserError

CLUSTER_TITLES = {
    "active": "active clusters",
    "effective": "effective clusters",
    "nmi": "NMI",
    "ari": "ARI",
    "purity": "purity",
}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "experiments", nargs="+", help="folders of runs that were tested on the same images"
    )
    return parser.parse_args(argv)


def main(args):
    runs = [read_metrics(folder) for folder in args.experiments]
    if len({run["digest"] for run in runs}) > 1:
        raise UserError(
            "these runs were tested on different images: their numbers cannot be averaged"
        )
    print(f"{len(runs)} runs, {runs[0]['images']} images of {runs[0]['test_references']} held-out references, "
          f"{runs[0]['references']}\n")  # fmt: skip
    print("| | all images | without pristine |\n|---|---|---|")
    for name, title in TITLES.items():
        digits = 1 if name in ("rmse", "mae") else 3
        cells = (
            spread([run[name] for run in part], digits)
            for part in (runs, [run["without_pristine"] for run in runs])
        )
        print(f"| {title} | {' | '.join(cells)} |")
    print("\n| SRCC inside | |\n|---|---|")
    for name in runs[0]["by_type"]:
        print(f"| `{name}` | {spread([run['by_type'][name]['srcc'] for run in runs])} |")
    print("\n| clusters | |\n|---|---|")
    for name, title in CLUSTER_TITLES.items():
        digits = 1 if name in ("active", "effective") else 3
        print(f"| {title} | {spread([run['clusters'][name] for run in runs], digits)} |")
    changes = [
        change for folder in args.experiments for change in changes_at_refits(folder).values()
    ]
    if changes:
        print(f"| worst change of validation SRCC over a refit epoch | {min(changes):+.3f} |")


if __name__ == "__main__":
    run_script(main, parse_args)
