"""Show a tested run: its numbers, its clusters' names and its figures, in a notebook or a terminal.

    %run display_viz_english.py
    %run display_viz_english.py --experiment experiments/resnet18_distorted

Without --experiment it shows the run that was tested last.
"""

import argparse
from pathlib import Path

from evaluation.report import METRICS, table
from utils.cli import HelpFormatter, run_script
from utils.files import read_json


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "--experiment", help="the run's folder (default: the newest tested run under experiments/)"
    )
    return parser.parse_args(argv)


def main(args):
    folder = Path(args.experiment) if args.experiment else newest_tested_run()
    path = folder / "visualizations" / "metrics.json" if folder else None
    if path is None or not path.is_file():
        name = args.experiment or "experiments/<name>"
        print(f"nothing tested yet; run: python test_with_viz.py --experiment {name}")
        return
    metrics = read_json(
        path, f"test the run again: python test_with_viz.py --experiment {folder}", METRICS
    )
    images = [path.with_name(name) for name in metrics["figures"]]
    if in_notebook():
        show_inline(metrics, images)
    else:
        print("\n".join([*table(metrics), "", *map(str, images)]))


def newest_tested_run():
    tested = sorted(
        Path("experiments").glob("*/visualizations/metrics.json"),
        key=lambda path: path.stat().st_mtime,
    )
    return tested[-1].parent.parent if tested else None


def in_notebook():
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return hasattr(get_ipython(), "kernel")


def show_inline(metrics, images):
    from IPython.display import Image, display

    print("\n".join(table(metrics)))
    for image in images:
        display(Image(filename=str(image)))


if __name__ == "__main__":
    run_script(main, parse_args)
