"""The old approach, for history: pristine images labelled with a score of their own brightness, contrast and sharpness.

    python -m ablations.old_approach --old experiments/recipe_old_approach_seed0 --ours experiments/recipe_both_seed0

Both networks are judged on both test sets: the pristine images with the old labels, and the distorted ones with their
qualities. (The arm old_approach of recipe.py trains the old one.)
"""

import argparse

from ablations.old_labels import old_quality
from ablations.tested import tested_dataset
from evaluation.metrics import srcc
from models import load_run
from training.checkpointing import read_metrics
from utils.cli import HelpFormatter, run_script


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    for name, which in (("old", "the arm old_approach"), ("ours", "our own labels")):
        parser.add_argument(f"--{name}", required=True, help=f"a tested run with {which}")
    return parser.parse_args(argv)


def main(args):
    print(
        "| SRCC with | old labels, pristine images | our labels, distorted images |\n|---|---|---|"
    )
    for title, folder in (("the old approach", args.old), ("ours", args.ours)):
        tested = read_metrics(folder)
        print(
            f"| {title} | {on_old_labels(folder, tested):.3f} | {tested['without_pristine']['srcc']:.3f} |"
        )


def on_old_labels(folder, tested):
    """SRCC of a run's predictions for its pristine test images with the old labels."""
    run = load_run(folder, tested["checkpoint"])
    pristine = tested_dataset(run, tested).references.images
    return srcc(old_quality(pristine).double().numpy(), run.predict(pristine).qualities)


if __name__ == "__main__":
    run_script(main, parse_args)
