"""Where the rest is lost: what a run's SRCC would be if the qualities of one type were known, what is taken for what,
and which cells of type and level are taken for pristine, beside their difference of colour from the reference.

    python -m ablations.ceiling experiments/resnet18_distorted
    python -m ablations.ceiling experiments/recipe_both_seed0 experiments/ceiling_both_seed0

The last one's confusions and cells are shown.
"""

import argparse

import numpy as np
import torch
from skimage.color import deltaE_cie76, rgb2lab
from tqdm import tqdm

from ablations.tested import read_columns, tested_dataset
from evaluation.metrics import srcc
from models import load_run
from training.checkpointing import read_metrics
from utils.cli import HelpFormatter, run_script
from utils.errors import UserError

LEVELS = np.linspace(0.2, 1.0, 5)  # borders of the cells


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("experiments", nargs="+", help="folders of tested runs")
    return parser.parse_args(argv)


def main(args):
    for folder in args.experiments:
        print("\n".join([f"{folder}:", *if_known(folder), ""]))
    folder = args.experiments[-1]
    if not load_run(folder).config["type_loss_weight"]:
        raise UserError(
            f"{folder} has no type head, so no confusions between types: it was trained without a type loss"
        )
    print("\n".join([*confusions(folder), "", *cells(folder)]))


def if_known(folder):
    """A row a type: SRCC inside it, and SRCC over all if its qualities were known."""
    true, predicted, types = read_columns(folder, "quality", "predicted_quality", "type")
    lines = ["| type | SRCC inside | SRCC if it were known | gain |", "|---|---|---|---|"]
    overall = srcc(true, predicted)
    for name in dict.fromkeys(types):
        inside = types == name
        known = srcc(true, np.where(inside, true, predicted))
        own = "–" if name == "pristine" else f"{srcc(true[inside], predicted[inside]):.3f}"
        lines.append(f"| {name} | {own} | {known:.3f} | {known - overall:+.3f} |")
    return lines


def confusions(folder):
    """A row a true type: the share of its images, in %, that the type head takes for each type."""
    types, guesses = read_columns(folder, "type", "predicted_type")
    names = list(dict.fromkeys([*read_metrics(folder)["by_type"], "pristine"]))
    lines = [f"| taken for, % | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for name in names:
        shares = [100 * (guesses[types == name] == other).mean() for other in names]
        lines.append(f"| {name} | {' | '.join(f'{share:.0f}' for share in shares)} |")
    return lines


def cells(folder):
    """A row a type and direction, a column a span of levels: the share taken for pristine, and the mean difference of
    colour from the reference in CIELAB units. Side by side and on flat patches, 2.3 are just noticeable (Mahy et al.,
    "Evaluation of uniform color spaces developed after the adoption of CIELAB and CIELUV", Color Research and
    Application 1994)."""
    types, guesses, levels, directions = read_columns(
        folder, "type", "predicted_type", "level", "direction"
    )
    differences = color_differences(folder)
    spans = [f"{low:.1f}–{high:.1f}" for low, high in zip(LEVELS, LEVELS[1:])]
    lines = [f"| taken for pristine, % (ΔE) | {' | '.join(spans)} |"]
    lines.append("|---" * (len(spans) + 1) + "|")
    for name in read_metrics(folder)["by_type"]:
        for direction in np.unique(directions[types == name]):
            row = (types == name) & (directions == direction)
            span = np.digitize(levels, LEVELS[1:-1])
            texts = [
                cell(guesses[row & (span == i)], differences[row & (span == i)])
                for i in range(len(spans))
            ]
            lines.append(
                f"| {name}{ {-1: ', less', 1: ', more'}.get(int(direction), '') } | {' | '.join(texts)} |"
            )
    return lines


def cell(guesses, differences):
    if len(guesses) == 0:
        return "–"
    return f"{100 * (guesses == 'pristine').mean():.0f} ({differences.mean():.1f})"


def color_differences(folder):
    """(N,) mean CIELAB difference of each test image from its reference."""
    tested = read_metrics(folder)
    dataset = tested_dataset(load_run(folder, tested["checkpoint"], "cpu"), tested)
    values = np.empty(len(dataset))
    with tqdm(total=len(dataset), desc="colour differences", unit="image", leave=False) as bar:
        for images, indices in dataset.batches(torch.arange(len(dataset)), 256):
            references = dataset.references.images[dataset.labels.reference[indices]]
            labs = (rgb2lab(part.permute(0, 2, 3, 1).numpy()) for part in (images, references))
            values[indices] = deltaE_cie76(*labs).mean((1, 2))
            bar.update(len(indices))
    return values


if __name__ == "__main__":
    run_script(main, parse_args)
