"""Draw the README's first figure: python -m docs.scored_photo --experiment NAME

A bundled photograph, as it is and distorted in three ways, each with the run's score and fault.
"""

import argparse

import numpy as np
import torch
from matplotlib.figure import Figure

from distortions.apply import apply_distortion
from distortions.figures import show_image
from distortions.registry import quality_of
from models import Run, load_run
from references.photos import PHOTOS, load_photo
from utils.cli import make_parser, run_script
from utils.drawing import default_style, save_figure
from utils.images import to_nchw
from utils.runs import find_run

PHOTO = "coffee.png"
TYPES = ("jpeg_compression", "gaussian_blur", "gaussian_noise")
LEVEL = 0.6


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--experiment", required=True, help="name or folder of a trained run")
    add("--output", default="docs/img/scored_photo.jpg", help="the figure's file")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Score the photograph's versions, and draw them."""
    run = load_run(find_run(args.experiment))
    with default_style():
        figure = draw(run)
    save_figure(figure, args.output)
    print(args.output)


def draw(run: Run) -> Figure:
    """Return the figure: a panel for each version of the photograph."""
    index = next(i for i, (_, path) in enumerate(PHOTOS) if path.endswith(PHOTO))
    photo = np.array(load_photo(index))
    versions = [("as it is", 100.0, photo)]
    for name in TYPES:
        distorted, _ = apply_distortion(photo, name, LEVEL)
        versions.append((name.replace("_", " "), quality_of(name, LEVEL), np.asarray(distorted)))
    figure = Figure(figsize=(14, 2.95), layout="constrained")
    for axis, (title, true, image) in zip(figure.subplots(1, len(versions)), versions):
        show_image(axis, image, f"{title}: true {true:.0f}\n{describe(run, image)}", title_size=11)
    return figure


def describe(run: Run, image: np.ndarray) -> str:
    """Return the score of an image (H, W, 3) uint8, and its fault with the probability."""
    predictions = run.predict(to_nchw(torch.from_numpy(image[None])))
    names = [*run.config["types"], "pristine"]
    probabilities = predictions.type_probabilities[0]
    fault = names[probabilities.argmax()].replace("_", " ")
    return f"score {predictions.qualities[0]:.0f}, {fault} ({probabilities.max():.0%})"


if __name__ == "__main__":
    run_script(main, parse_args)
