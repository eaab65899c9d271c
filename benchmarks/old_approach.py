"""The old approach, for history: pristine images labelled with a score of their own brightness, contrast and sharpness.

    python benchmarks/old_approach.py --old experiments/recipe_old_approach_seed0 --ours experiments/recipe_both_seed0

Both networks are judged on both test sets: the distorted images with their qualities, and the pristine ones with the
old labels. (The arm old_approach of recipe.py trains the old one.)
"""

import argparse
from dataclasses import replace

import torch
from tested import held_out_dataset, held_out_references

from command_line import HelpFormatter, run_script
from distorted_dataset import DistortedImageDataset
from metrics import srcc
from models import load_run
from summarize_runs import read_metrics


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    for name, which in (("old", "the arm old_approach"), ("ours", "our own labels")):
        parser.add_argument(f"--{name}", required=True, help=f"a tested run with {which}")
    return parser.parse_args(argv)


def main(args):
    print("| SRCC with | old labels, pristine images | our labels, distorted images |\n|---|---|---|")
    for title, folder in (("the old approach", args.old), ("ours", args.ours)):
        old, ours = judge(folder)
        print(f"| {title} | {old:.3f} | {ours:.3f} |")


def judge(folder):
    """(SRCC on the pristine test images with the old labels, SRCC on the distorted ones with ours) of a tested run."""
    tested = read_metrics(folder)
    run = load_run(folder, tested["checkpoint"])
    pristine, distorted = held_out_references(run, tested).images, held_out_dataset(run, tested)
    on_old = srcc(old_quality(pristine).double().numpy(), run.predict(pristine).qualities)
    images = distorted.images(torch.arange(len(distorted)))
    return on_old, srcc(distorted.labels.quality.double().numpy(), run.predict(images).qualities)


def old_quality(images):
    """(B,) in 0–100 from images (B, 3, H, W) uint8: the mean of closeness to middle grey, standard deviation, and
    strength of the Laplacian, each on its own scale of 0–1."""
    grey = images.float().mean(1) / 255
    brightness = 1 - 2 * (grey.mean((1, 2)) - 0.5).abs()
    contrast = (grey.std((1, 2)) / 0.25).clamp(max=1)
    laplacian = (
        grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] + grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] - 4 * grey[:, 1:-1, 1:-1]
    )
    sharpness = (laplacian.std((1, 2)) / 0.25).clamp(max=1)
    return 100 * torch.stack([brightness, contrast, sharpness]).mean(0)


class OldDataset(DistortedImageDataset):
    """As many images of each reference, all pristine (turned in training), with the old labels."""

    def _draw_labels(self, epoch):
        labels = super()._draw_labels(epoch)
        pristine, old = torch.full_like(labels.type, len(self.types)), old_quality(self.references.images)
        return replace(labels, steps=torch.full_like(labels.steps, -1), type=pristine, quality=old[labels.reference])


if __name__ == "__main__":
    run_script(main, parse_args)
