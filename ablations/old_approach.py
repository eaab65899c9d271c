"""The old approach, for history: pristine images, labelled with a score of their own looks.

    python -m ablations.old_approach --old experiments/recipe_old_approach_seed0 \\
        --ours experiments/recipe_both_seed0

Both networks are tested on both test sets: the pristine images with the old labels, and the
distorted ones with their qualities. The ablation old_approach of ablations.run trains the old one.
"""

import argparse
from dataclasses import replace

import torch

from ablations.tested import tested_dataset
from distorted_dataset import DistortedImageDataset
from evaluation.metrics import srcc
from evaluation.results import read_metrics
from models import load_run
from utils.cli import make_parser, run_script
from utils.images import to_nchw


class OldDataset(DistortedImageDataset):
    """As many images of each reference, none of them distorted, with the references' old labels.

    Images must not be mixed (cutmix), because a mixed one would need a label of its own.
    """

    def set_epoch(self, epoch: int) -> None:
        """Draw the labels of this epoch."""
        super().set_epoch(epoch)
        quality = old_quality(self.references.images[torch.arange(len(self.references))])
        self.labels = replace(
            self.labels,
            type=torch.full_like(self.labels.type, -1),
            quality=quality[self.labels.reference],
        )


def old_quality(images: torch.Tensor) -> torch.Tensor:
    """Return the old score (B,) in 0–100 of images (B, H, W, 3) uint8.

    It is the mean of three measures, each on its own scale of 0–1: closeness to middle grey,
    standard deviation, and strength of the Laplacian.
    """
    grey = images.float().mean(3) / 255
    brightness = 1 - 2 * (grey.mean((1, 2)) - 0.5).abs()
    contrast = (grey.std((1, 2)) / 0.25).clamp(max=1)
    sideways = grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    upright = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1]
    laplacian = sideways + upright - 4 * grey[:, 1:-1, 1:-1]
    sharpness = (laplacian.std((1, 2)) / 0.25).clamp(max=1)
    return 100 * torch.stack([brightness, contrast, sharpness]).mean(0)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("--old", required=True, help="a tested run of the ablation old_approach")
    parser.add_argument("--ours", required=True, help="a tested run with our own labels")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Print a table of two runs and two tests."""
    print("| SRCC with | old labels, pristine images | our labels, distorted images |")
    print("|---|---|---|")
    for title, folder in (("the old approach", args.old), ("ours", args.ours)):
        on_ours = read_metrics(folder)["without_pristine"]["srcc"]
        print(f"| {title} | {srcc_on_old_labels(folder):.3f} | {on_ours:.3f} |")


def srcc_on_old_labels(folder: str) -> float:
    """Return the SRCC of a run's predictions for its pristine test images with the old labels."""
    metrics = read_metrics(folder)
    run = load_run(folder, metrics["checkpoint"])
    references = tested_dataset(run, metrics).references
    pristine = references.images[torch.arange(len(references))]
    predicted = run.predict(to_nchw(pristine)).qualities
    return srcc(old_quality(pristine).double().numpy(), predicted)


if __name__ == "__main__":
    run_script(main, parse_args)
