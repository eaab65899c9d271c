"""Hold a run against people's opinions of KADID-10k's distortions, on photographs of your own.

    python -m ablations.human_cells --experiment resnet18_distorted \\
        --references path/to/photographs --opinions dmos.csv --output cells.json

Each photograph is distorted whole by KADID-10k's own parameters, 25 types at 5 levels. The mean
predicted quality of each of these 125 cells is compared with its mean opinion. Of a folder with a
test part of its own, only that is used. FILE of --opinions is one of those that
ablations.anchor_levels takes. Several experiments, such as seeds, give mean ± std.

The levels of training may come from the same opinions, so it is no clean test of a score. It tells
which faults a run judges otherwise than people do.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ablations.anchor_levels import KADID_LEVELS, PARAMETERS, read_opinions
from ablations.photographs import (
    add_flags,
    choose_photographs,
    describe_choice,
    load_photograph,
    predict_qualities,
    write_numbers,
)
from benchmarks.timing import markdown
from distortions.apply import apply_parameter
from evaluation.metrics import plcc, srcc
from evaluation.report import spread
from models import Run, load_run
from utils.cli import make_parser, run_script
from utils.rng import fold_in
from utils.runs import find_run

# KADID's types whose faults the default eight have too: numbers 01, 03, 07, 08, 10, 11, 16, 17, 18,
# 21 and 25. Their level 5 goes beyond the default eight's tables.
KNOWN_TYPES = (
    "gaussian_blur",
    "motion_blur",
    "color_saturation_1",
    "color_saturation_2",
    "jpeg",
    "white_noise",
    "brighten",
    "darken",
    "mean_shift",
    "pixelate",
    "contrast_change",
)
KNOWN_LEVELS = (1, 2, 3, 4)
# A level of these types is no severity, so that the order inside them is left out of the count.
TYPES_OF_TWO_DIRECTIONS = ("mean_shift", "contrast_change")
WELL_ORDERED = 0.7  # SRCC inside a type from which it counts
TITLES = {
    "srcc": "SRCC, all 125 cells",
    "plcc": "PLCC, all 125 cells",
    "srcc_known": "SRCC, 44 cells: levels 1–4 of the 11 types that the default eight have too",
    "plcc_known": "PLCC, the same 44 cells",
    "well_ordered": f"types with SRCC of {WELL_ORDERED} or more inside, of the 23 of one direction",
    "pristine": "mean predicted quality of pristine photographs",
}
ONE_DIGIT = ("well_ordered", "pristine")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--experiment", nargs="+", required=True, help="names or folders of trained runs")
    add("--opinions", required=True, help="CSV file of KADID-10k's opinions")
    add_flags(parser)
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Predict every cell, and print the tables."""
    opinions = read_opinions(args.opinions)
    folders = [find_run(text) for text in args.experiment]
    runs = [load_run(folder) for folder in folders]
    paths = choose_photographs(runs, args.references, args.images)
    photographs = [load_photograph(path, args.working_size) for path in paths]
    predictions, pristine = predict_cells(runs, photographs)
    measured = [measure(opinions, *of_run) for of_run in zip(predictions, pristine)]
    plural = "s" if len(photographs) > 1 else ""
    print(f"{len(photographs)} photograph{plural} of {args.references}, {len(runs)} run(s)")
    print("\n".join(["", *measure_lines(measured), "", *type_lines(opinions, measured)]))
    if args.output:
        numbers = {**describe_choice(args, paths), "opinions": opinions, "runs": measured}
        write_numbers(args.output, folders, numbers, runs[0].device)


def predict_cells(
    runs: Sequence[Run], photographs: Sequence[torch.Tensor]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean predictions of each run: (runs, 25, 5) of the cells, (runs,) of pristine."""
    levels = len(KADID_LEVELS)
    cells = np.zeros((len(runs), len(PARAMETERS), levels))
    pristine = np.zeros(len(runs))
    images = len(photographs) * (1 + len(PARAMETERS) * levels)
    with tqdm(total=images, desc="photographs", unit="image") as bar:
        for i, photograph in enumerate(photographs):
            pristine += [predict_qualities(run, photograph[None]).item() for run in runs]
            bar.update(1)
            for t, (name, parameter) in enumerate(PARAMETERS.items()):
                distorted = []
                for k, value in enumerate(parameter.values):
                    key = fold_in(i, t, k).view(1)
                    distorted.append(apply_parameter(photograph[None], f"kadid_{name}", value, key))
                cells[:, t] += [predict_qualities(run, torch.cat(distorted)) for run in runs]
                bar.update(levels)
    return cells / len(photographs), pristine / len(photographs)


def measure(
    opinions: dict[str, tuple[float, ...]], predictions: np.ndarray, pristine: float
) -> dict[str, Any]:
    """Compare a run's mean predictions (25, 5) with people's opinions.

    Correlations are over cells. "by_type" holds each type's SRCC and its predictions by level.
    """
    judged = np.array([opinions[name] for name in PARAMETERS])
    is_known = np.array([name in KNOWN_TYPES for name in PARAMETERS])
    known_levels = [level - 1 for level in KNOWN_LEVELS]
    known_opinions = judged[is_known][:, known_levels].ravel()
    known_predictions = predictions[is_known][:, known_levels].ravel()
    by_type = {}
    for name, of_people, of_run in zip(PARAMETERS, judged, predictions):
        by_type[name] = {"srcc": srcc(of_people, of_run), "predicted": of_run.tolist()}
    in_order = [
        row["srcc"] >= WELL_ORDERED
        for name, row in by_type.items()
        if name not in TYPES_OF_TWO_DIRECTIONS
    ]
    return {
        "srcc": srcc(judged.ravel(), predictions.ravel()),
        "plcc": plcc(judged.ravel(), predictions.ravel()),
        "srcc_known": srcc(known_opinions, known_predictions),
        "plcc_known": plcc(known_opinions, known_predictions),
        "well_ordered": sum(in_order),
        "pristine": float(pristine),
        "by_type": by_type,
    }


def measure_lines(measured: Sequence[dict[str, Any]]) -> list[str]:
    """Return a table of the measures over cells, mean ± std over runs."""
    rows = []
    for name, title in TITLES.items():
        digits = 1 if name in ONE_DIGIT else 3
        rows.append([title, spread([run[name] for run in measured], digits)])
    return markdown(["", "mean ± std"], rows)


def type_lines(
    opinions: dict[str, tuple[float, ...]], measured: Sequence[dict[str, Any]]
) -> list[str]:
    """Return a table of each type: SRCC inside it, and 'opinion: mean prediction' by level."""
    rows = []
    for name in PARAMETERS:
        of_runs = [run["by_type"][name] for run in measured]
        means = np.mean([row["predicted"] for row in of_runs], axis=0)
        cells = [f"{opinion:.2f}: {mean:.0f}" for opinion, mean in zip(opinions[name], means)]
        srccs = [row["srcc"] for row in of_runs]
        rows.append([f"kadid_{name}", spread(srccs, 2), *cells])
    levels = [f"level {level}" for level in KADID_LEVELS]
    return markdown(["opinion 1–5: prediction 0–100", "SRCC inside", *levels], rows)


if __name__ == "__main__":
    run_script(main, parse_args)
