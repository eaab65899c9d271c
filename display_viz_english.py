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


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--experiment", help="the run's folder (default: the newest tested run under experiments/)"
    )
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Show the run, or say which command tests one."""
    folder = Path(args.experiment) if args.experiment else newest_tested_run()
    path = folder / "visualizations" / "metrics.json" if folder else None
    if path is None or not path.is_file():
        name = args.experiment or "experiments/<name>"
        print(f"nothing tested yet; run: python test_with_viz.py --experiment {name}")
        return
    way_out = f"test the run again: python test_with_viz.py --experiment {folder}"
    metrics = read_json(path, way_out, REQUIRED_METRICS)
    images = [path.with_name(name) for name in metrics["figures"]]
    if is_notebook():
        show_inline(metrics, images)
    else:
        print("\n".join([*table(metrics), "", *map(str, images)]))


def newest_tested_run() -> Path | None:
    """Return the folder of the run that was tested last, if there is one."""
    tested = list(Path("experiments").glob("*/visualizations/metrics.json"))
    if not tested:
        return None
    newest = max(tested, key=lambda path: path.stat().st_mtime)
    return newest.parent.parent


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
