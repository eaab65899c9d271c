"""Where a run's score is lost, by type and level.

    python -m ablations.ceiling experiments/resnet18_distorted
    python -m ablations.ceiling experiments/recipe_both_seed0 experiments/ceiling_both_seed0

For each run: what its SRCC would be if the qualities of one type were known. For the last one also:
which type is taken for which, and which types and levels are taken for pristine, beside their
colour difference from the reference.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from skimage.color import deltaE_cie76, rgb2lab
from tqdm import tqdm

from ablations.tested import tested_dataset
from benchmarks.timing import markdown
from distortions.registry import PRISTINE
from evaluation.metrics import srcc
from evaluation.results import read_columns, read_metrics
from models import load_run
from utils.cli import make_parser, run_script
from utils.errors import UserError
from utils.runs import find_run

LEVEL_EDGES = np.linspace(0.2, 1.0, 5)
DIRECTION_WORDS = {-1: ", less", 1: ", more"}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("experiments", nargs="+", help="names or folders of tested runs")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Print a table for each run, and two more of the last one."""
    folders = [find_run(text) for text in args.experiments]
    for folder in folders:
        print("\n".join([f"{folder}:", *known_type_table(folder), ""]))
    folder = folders[-1]
    if not load_run(folder).config["type_loss_weight"]:
        raise UserError(
            f"{folder} has no type head, so no confusions between types: "
            "it was trained without a type loss"
        )
    print("\n".join([*confusion_table(folder), "", *level_table(folder)]))


def known_type_table(folder: str | Path) -> list[str]:
    """Return a table: for each type, SRCC inside it, and over all if its qualities were known."""
    true, predicted, types = read_columns(folder, "quality", "predicted_quality", "type")
    overall = srcc(true, predicted)
    rows = []
    for name in dict.fromkeys(types):
        is_type = types == name
        own = "–" if name == PRISTINE else f"{srcc(true[is_type], predicted[is_type]):.3f}"
        known = srcc(true, np.where(is_type, true, predicted))
        rows.append([name, own, f"{known:.3f}", f"{known - overall:+.3f}"])
    return markdown(["type", "SRCC inside", "SRCC if it were known", "gain"], rows)


def confusion_table(folder: str | Path) -> list[str]:
    """Return a table: for each type, the share in % that the type head takes for each type."""
    types, guesses = read_columns(folder, "type", "predicted_type")
    names = list(dict.fromkeys([*read_metrics(folder)["by_type"], PRISTINE]))
    rows = []
    for name in names:
        own_guesses = guesses[types == name]
        cells = [name]
        for other in names:
            cells.append(f"{100 * (own_guesses == other).mean():.0f}")
        rows.append(cells)
    return markdown(["taken for, %", *names], rows)


def level_table(folder: str | Path) -> list[str]:
    """Return a table of the share taken for pristine, by type, direction and span of levels.

    Beside it stands the mean colour difference from the reference in CIELAB units. Side by side and
    on flat patches 2.3 are just noticeable (Mahy et al., "Evaluation of uniform color spaces
    developed after the adoption of CIELAB and CIELUV", Color Research and Application 1994).
    """
    columns = ("type", "predicted_type", "level", "direction")
    types, guesses, levels, directions = read_columns(folder, *columns)
    differences = color_differences(folder)
    span_of_image = np.digitize(levels, LEVEL_EDGES[1:-1])
    spans = [f"{low:.1f}–{high:.1f}" for low, high in zip(LEVEL_EDGES, LEVEL_EDGES[1:])]
    rows = []
    for name in read_metrics(folder)["by_type"]:
        for direction in np.unique(directions[types == name]):
            in_row = (types == name) & (directions == direction)
            cells = []
            for i in range(len(spans)):
                inside = in_row & (span_of_image == i)
                cells.append(level_cell(guesses[inside], differences[inside]))
            rows.append([f"{name}{DIRECTION_WORDS.get(int(direction), '')}", *cells])
    return markdown(["taken for pristine, % (ΔE)", *spans], rows)


def level_cell(guesses: np.ndarray, differences: np.ndarray) -> str:
    """Return 'share in % (mean difference)' of some images, or a dash of none."""
    if len(guesses) == 0:
        return "–"
    return f"{100 * (guesses == PRISTINE).mean():.0f} ({differences.mean():.1f})"


def color_differences(folder: str | Path) -> np.ndarray:
    """Return (N,) the mean CIELAB difference of each test image from its reference."""
    metrics = read_metrics(folder)
    dataset = tested_dataset(load_run(folder, metrics["checkpoint"], "cpu"), metrics)
    differences = np.empty(len(dataset))
    with tqdm(total=len(dataset), desc="colour differences", unit="image", leave=False) as bar:
        for images, indices in dataset.batches(torch.arange(len(dataset)), 256):
            references = dataset.references.images[dataset.labels.reference[indices]]
            lab = rgb2lab(images.permute(0, 2, 3, 1).numpy())
            difference = deltaE_cie76(lab, rgb2lab(references.numpy()))
            differences[indices] = difference.mean((1, 2))
            bar.update(len(indices))
    return differences


if __name__ == "__main__":
    run_script(main, parse_args)
