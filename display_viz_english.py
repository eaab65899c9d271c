"""Show a tested run: its numbers, its clusters' names and its figures, in a notebook or a terminal.

    %run display_viz_english.py
    %run display_viz_english.py --experiment experiments/resnet18_distorted

Without --experiment it shows the run that was tested last.
"""

import sys

if __name__ == "__main__":
    try:
        from utils.startup import explain_import_errors
    except ImportError as problem:  # -I, -P or PYTHONSAFEPATH, or another folder's `utils`
        sys.exit(f"error: {problem}; run it as: python '{__file__}', without -I and -P")
    explain_import_errors()  # of the imports below, which take seconds

import argparse
from pathlib import Path
from typing import Any

from evaluation.report import table
from evaluation.results import REQUIRED_METRICS
from utils.cli import make_parser, run_script
from utils.files import read_json
from utils.runs import (
    EXPERIMENTS,
    PROJECTS_EXPERIMENTS,
    all_runs,
    command_to_test,
    command_to_train,
    find_run,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--experiment",
        help="the run's name or folder (default: the newest tested run under experiments/)",
    )
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Show the run, or say which command tests one."""
    folder = find_run(args.experiment) if args.experiment else newest_tested_run()
    if folder is None:
        print(f"nothing tested yet; run: {first_step()}")
        return
    path = folder / "visualizations" / "metrics.json"
    if not path.is_file():
        print(f"{folder} was not tested yet; run: {command_to_test(folder)}")
        return
    metrics = read_json(path, f"test the run again: {command_to_test(folder)}", REQUIRED_METRICS)
    images = [path.with_name(name) for name in metrics["figures"]]
    if is_notebook():
        show_inline(metrics, images)
    else:
        print("\n".join([*table(metrics), "", *map(str, images)]))


def newest_tested_run() -> Path | None:
    """Return the folder of the run that was tested last, if there is one."""
    for experiments in (EXPERIMENTS, PROJECTS_EXPERIMENTS):
        tested = list(experiments.glob("*/visualizations/metrics.json"))
        if tested:
            newest = max(tested, key=lambda path: path.stat().st_mtime)
            return newest.parent.parent
    return None


def first_step() -> str:
    """Return the command that tests the run that was trained last, or else one that trains."""
    runs = all_runs()
    if not runs:
        return command_to_train("my_run")
    return command_to_test(max(runs, key=lambda folder: folder.stat().st_mtime))


def is_notebook() -> bool:
    """Tell whether this runs in a notebook, which can show figures."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return hasattr(get_ipython(), "kernel")


def show_inline(metrics: dict[str, Any], images: list[Path]) -> None:
    """Show the table and the figures in the cell's output."""
    from IPython.display import Image, display

    print("\n".join(table(metrics)))
    for image in images:
        display(Image(filename=str(image)))


if __name__ == "__main__":
    run_script(main, parse_args)
