"""Networks that look at more than the last stage's means: variants of the recipe's `network`."""

import torch
import torch.nn.functional as F

from models.quality_net import NETWORKS, Output, QualityNet

SMALLEST_VARIANCE = 1e-6  # keeps the gradient of a deviation finite


class Deviations(QualityNet):
    """The means and the standard deviations of the last stage."""

    def feature_count(self) -> int:
        """Return how many features the heads read."""
        return 2 * self.channels

    def forward(self, images: torch.Tensor) -> Output:
        """Return the Output of images (B, 3, H, W) uint8."""
        cells = self.feature_map(images)
        variances = cells.float().var(dim=(2, 3), correction=0)
        deviations = (variances + SMALLEST_VARIANCE).sqrt()
        return self.read(torch.cat([self.backbone.avgpool(cells).flatten(1), deviations], dim=1))


class TwoScales(QualityNet):
    """The means of the last stage for the image, and for the image at half its size."""

    def feature_count(self) -> int:
        """Return how many features the heads read."""
        return 2 * self.channels

    def forward(self, images: torch.Tensor) -> Output:
        """Return the Output of images (B, 3, H, W) uint8."""
        values = (images.float() - self.mean) / self.std
        means = []
        for scale in (values, F.avg_pool2d(values, 2)):
            means.append(self.backbone.avgpool(self.join_stages(scale)).flatten(1))
        return self.read(torch.cat(means, dim=1))


NETWORKS["deviations"] = Deviations
NETWORKS["two_scales"] = TwoScales
