"""What a run does not know: how well the mixture's log-likelihood tells distortions that were never trained on.

    python -m ablations.unknown experiments/resnet18_distorted
    python -m ablations.unknown experiments/full_seed0 experiments/full_seed1 experiments/full_seed2

The runs must have been tested. Several are averaged. AUROC is the chance that an image of the unknown distortion is
less likely than one of the test's own: 0.5 is guessing. Flagged: its share below the run's threshold, which flags 5 %
of validation's images falsely.
"""

import argparse

from ablations.judge import judge_unknown
from evaluation.report import spread
from utils.cli import HelpFormatter, run_script


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("experiments", nargs="+", help="folders of tested runs")
    return parser.parse_args(argv)


def main(args):
    runs = [judge_unknown(folder) for folder in args.experiments]
    print("| unknown distortion | AUROC | flagged, % | SRCC inside |\n|---|---|---|---|")
    for name in dict.fromkeys(name for run in runs for name in run):
        rows = [run[name] for run in runs if name in run]
        flagged = spread([100 * row["flagged"] for row in rows], 1)
        cells = (
            spread([row["auroc"] for row in rows]),
            flagged,
            spread([row["srcc"] for row in rows]),
        )
        print(f"| `{name}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    run_script(main, parse_args)
