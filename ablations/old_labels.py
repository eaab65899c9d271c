"""The labels of the old approach: a pristine image's own brightness, contrast and sharpness."""

from dataclasses import replace

import torch

from distorted_dataset import DistortedImageDataset


def old_quality(images):
    """(B,) in 0–100 from images (B, 3, H, W) uint8: the mean of closeness to middle grey, standard deviation, and
    strength of the Laplacian, each on its own scale of 0–1."""
    grey = images.float().mean(1) / 255
    brightness = 1 - 2 * (grey.mean((1, 2)) - 0.5).abs()
    contrast = (grey.std((1, 2)) / 0.25).clamp(max=1)
    laplacian = (
        grey[:, 1:-1, :-2]
        + grey[:, 1:-1, 2:]
        + grey[:, :-2, 1:-1]
        + grey[:, 2:, 1:-1]
        - 4 * grey[:, 1:-1, 1:-1]
    )
    sharpness = (laplacian.std((1, 2)) / 0.25).clamp(max=1)
    return 100 * torch.stack([brightness, contrast, sharpness]).mean(0)


class OldDataset(DistortedImageDataset):
    """As many images of each reference, none of them distorted, with the old labels of the references."""

    def __init__(self, *args, **kwargs):
        super().__init__(
            *args, **kwargs | {"join": False}
        )  # joined references would need labels of their own

    def _draw_labels(self, epoch):
        labels = super()._draw_labels(epoch)
        pristine, old = (
            torch.full_like(labels.type, len(self.types)),
            old_quality(self.references.images),
        )
        return replace(
            labels,
            steps=torch.full_like(labels.steps, -1),
            type=pristine,
            quality=old[labels.reference],
        )
