"""Scores of whole photographs, distorted by each of a run's types at every level.

    python -m ablations.whole_images --experiment NAME --references path/to/photographs \\
        --output whole.json

Each photograph is distorted whole, at the levels 0.2 to 1 in each direction, and scored at its own
resolution. Of a folder with a test part of its own, only that is used. Several experiments, such
as seeds, give mean ± std.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from ablations.photographs import (
    add_flags,
    choose_photographs,
    describe_choice,
    load_photograph,
    predict_qualities,
    write_numbers,
)
from benchmarks.timing import markdown
from distortions.apply import distort_alike
from distortions.registry import DISTORTIONS, LEVELS, quality_of
from evaluation.metrics import rmse, srcc
from evaluation.report import spread
from models import Run, load_run
from utils.cli import make_parser, run_script
from utils.errors import UserError
from utils.rng import fold_in
from utils.runs import find_run

GOOD = 85  # points: a pristine photograph should have so many
TITLES = {
    "srcc": "SRCC",
    "srcc_without_pristine": "SRCC without pristine",
    "rmse": "RMSE",
    "pristine": "mean predicted quality of pristine photographs",
    "pristine_good": f"share of pristine photographs with {GOOD} or more",
    "falling": "types whose mean prediction falls from each level to the next",
}


class Row(NamedTuple):
    """One type in one direction, at LEVELS but the first: predictions are (photographs, 5)."""

    type: str
    direction: int
    predictions: np.ndarray


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--experiment", nargs="+", required=True, help="names or folders of runs of equal types")
    add_flags(parser)
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Score every distorted photograph, and print the tables."""
    folders = [find_run(text) for text in args.experiment]
    runs = [load_run(folder) for folder in folders]
    check_equal_types(runs, folders)
    paths = choose_photographs(runs, args.references, args.images)
    photographs = [load_photograph(path, args.working_size) for path in paths]
    measured = [measure(*predict_levels(run, photographs)) for run in runs]
    print(f"{len(photographs)} photographs of {args.references}, {len(folders)} run(s)")
    print("\n".join(["", *measure_lines(measured), "", *level_lines(measured)]))
    if args.output:
        numbers = {**describe_choice(args, paths), "runs": measured}
        write_numbers(args.output, folders, numbers, runs[0].device)


def check_equal_types(runs: Sequence[Run], folders: Sequence[Path]) -> None:
    """Raise UserError where runs were trained on different types."""
    for run, folder in zip(runs, folders):
        if run.config["types"] != runs[0].config["types"]:
            raise UserError(
                f"--experiment {folder.name}: it was trained on other types than "
                f"{folders[0].name}; measure runs of equal types together"
            )


def predict_levels(run: Run, photographs: Sequence[torch.Tensor]) -> tuple[np.ndarray, list[Row]]:
    """Return the predicted quality of each photograph as it is, and a Row a type and direction."""
    kinds = []
    for name in run.config["types"]:
        for direction in (-1, 1) if DISTORTIONS[name].directions else (1,):
            kinds.append((name, direction))
    pristine = np.zeros(len(photographs))
    predictions = np.zeros((len(kinds), len(photographs), len(LEVELS) - 1))
    images = len(photographs) * (1 + len(kinds) * (len(LEVELS) - 1))
    with tqdm(total=images, desc="photographs", unit="image") as bar:
        for i, photograph in enumerate(photographs):
            pristine[i] = predict_qualities(run, photograph[None]).item()
            bar.update(1)
            for k, (name, direction) in enumerate(kinds):
                distorted = distort_at_levels(photograph, name, direction, key=fold_in(i, k))
                predictions[k, i] = predict_qualities(run, distorted)
                bar.update(len(distorted))
    return pristine, [Row(*kind, values) for kind, values in zip(kinds, predictions)]


def distort_at_levels(
    photograph: torch.Tensor, name: str, direction: int, key: torch.Tensor
) -> torch.Tensor:
    """Return (5, H, W, 3): a photograph at LEVELS but the first, with the same random numbers."""
    levels = torch.tensor(LEVELS[1:])
    copies = photograph.expand(len(levels), *photograph.shape).contiguous()
    return distort_alike(copies, name, levels, direction, key.expand(len(levels)))


def measure(pristine: np.ndarray, rows: Sequence[Row]) -> dict[str, Any]:
    """Compare predictions with the qualities that type and level stand for.

    pristine: (N,) of photographs as they are. "by_type" holds each type's SRCC over its distorted
    photographs, its mean prediction by level, and whether that falls.
    """
    levels = np.array(LEVELS[1:])
    by_type: dict[str, Any] = {}
    all_true = [np.full(len(pristine), 100.0)]
    all_predicted = [pristine]
    for name in dict.fromkeys(row.type for row in rows):
        of_type = np.concatenate([row.predictions for row in rows if row.type == name])
        true = np.broadcast_to(quality_of(name, levels), of_type.shape)
        means = [pristine.mean(), *of_type.mean(0)]
        by_type[name] = {
            "srcc": srcc(true.ravel(), of_type.ravel()),
            "predicted": [float(mean) for mean in means],
            "falls": bool((np.diff(means) < 0).all()),
        }
        all_true.append(true.ravel())
        all_predicted.append(of_type.ravel())
    true = np.concatenate(all_true)
    predicted = np.concatenate(all_predicted)
    is_distorted = np.arange(len(true)) >= len(pristine)
    return {
        "srcc": srcc(true, predicted),
        "srcc_without_pristine": srcc(true[is_distorted], predicted[is_distorted]),
        "rmse": rmse(true, predicted),
        "pristine": float(pristine.mean()),
        "pristine_good": float((pristine >= GOOD).mean()),
        "pristine_predicted": pristine.tolist(),
        "falling": sum(row["falls"] for row in by_type.values()),
        "by_type": by_type,
    }


def measure_lines(measured: Sequence[dict[str, Any]]) -> list[str]:
    """Return a table of the measures over all images, mean ± std over runs."""
    rows = []
    for name, title in TITLES.items():
        digits = 1 if name in ("rmse", "pristine", "falling") else 3
        rows.append([title, spread([run[name] for run in measured], digits)])
    return markdown(["", "mean ± std"], rows)


def level_lines(measured: Sequence[dict[str, Any]]) -> list[str]:
    """Return a table of each type: SRCC inside it, and the mean prediction by level."""
    rows = []
    for name in measured[0]["by_type"]:
        of_runs = [run["by_type"][name] for run in measured]
        means = np.mean([row["predicted"] for row in of_runs], axis=0)
        rows.append(
            [name, spread([row["srcc"] for row in of_runs], 2), *(f"{mean:.0f}" for mean in means)]
        )
    levels = ["pristine", *(f"level {level}" for level in LEVELS[1:])]
    return markdown(["mean prediction", "SRCC inside", *levels], rows)


if __name__ == "__main__":
    run_script(main, parse_args)
