"""Several tested runs, such as seeds, as one table of mean ± standard deviation, ready for a paper or a README.

python summarize_runs.py experiments/full_seed0 experiments/full_seed1 experiments/full_seed2
"""

import argparse
import json
from pathlib import Path

import numpy as np

from command_line import HelpFormatter, run_script
from errors import UserError
from report import TITLES
from run_folder import read_log

CLUSTER_TITLES = {
    "active": "active clusters",
    "effective": "effective clusters",
    "nmi": "NMI",
    "ari": "ARI",
    "purity": "purity",
}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("experiments", nargs="+", help="folders of runs that were tested on the same images")
    return parser.parse_args(argv)


def main(args):
    runs = [read_metrics(folder) for folder in args.experiments]
    if len({run["digest"] for run in runs}) > 1:
        raise UserError("these runs were tested on different images: their numbers cannot be averaged")
    print(f"{len(runs)} runs, {runs[0]['images']} images of {runs[0]['test_references']} held-out references, "
          f"{runs[0]['references']}\n")  # fmt: skip
    print("| | all images | without pristine |\n|---|---|---|")
    for name, title in TITLES.items():
        digits = 1 if name in ("rmse", "mae") else 3
        cells = (
            spread([run[name] for run in part], digits) for part in (runs, [run["without_pristine"] for run in runs])
        )
        print(f"| {title} | {' | '.join(cells)} |")
    print("\n| SRCC inside | |\n|---|---|")
    for name in runs[0]["by_type"]:
        print(f"| `{name}` | {spread([run['by_type'][name]['srcc'] for run in runs])} |")
    print("\n| clusters | |\n|---|---|")
    for name, title in CLUSTER_TITLES.items():
        digits = 1 if name in ("active", "effective") else 3
        print(f"| {title} | {spread([run['clusters'][name] for run in runs], digits)} |")
    changes = [change for folder in args.experiments for change in changes_at_refits(folder)]
    if changes:
        print(f"| worst change of validation SRCC over a refit epoch | {min(changes):+.3f} |")


def read_metrics(folder):
    path = Path(folder) / "visualizations" / "metrics.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; run: python test_with_viz.py --experiment {folder}")
    return json.loads(path.read_text())


def changes_at_refits(folder):
    """The changes of validation SRCC from the epoch before a refit to the epoch after it."""
    log = read_log(Path(folder))
    pairs = [(before["srcc"], after["srcc"]) for before, after in zip(log, log[1:]) if after["refit"]]
    return [after - before for before, after in pairs if before is not None and after is not None]


def spread(values, digits=3):
    """'mean ± sample standard deviation'; of one value, the value."""
    values = np.array([np.nan if value is None else value for value in values], float)
    deviation = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{deviation}"


if __name__ == "__main__":
    run_script(main, parse_args)
