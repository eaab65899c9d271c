"""How visible a distortion is in its scene, and the quality that follows for this image.

Noise hides in texture, and blur of a smooth scene is hardly seen, so that one level is not
equally bad in all images. A full-reference measure tells how visible a distortion is. A type's
curve is the measure's mean over many scenes, by level. An image whose measure is that of a higher
level in the average scene has a lower quality than its own level says.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from distortions.apply import distort_alike
from distortions.registry import DISTORTIONS, LEVELS
from utils.images import to_nchw
from utils.rng import fold_in

CURVE_IMAGES = 96  # scenes that a curve is the mean of
# A type's labels are refined only if its levels explain so much of the measure's variance: else
# the measure does not see the distortion.
LEAST_EXPLAINED = 0.4
# Constants of the measure, for grey levels of 255 (Nafchi et al.).
GRADIENT_CONSTANT = 140
FUSED_CONSTANT = 55
CHROMA_CONSTANT = 550
GRADIENT_SHARE = 0.6
LUMA = (0.2989, 0.5870, 0.1140)
CHROMA = ((0.30, 0.04, -0.35), (0.34, -0.60, 0.17))


def dissimilarity(references: Tensor, distorted: Tensor) -> Tensor:
    """Compute how unlike images (B, H, W, 3) uint8 are in local gradients and colour.

    Returns (B,) float32, 0 for equal images and larger for worse. It is the mean of the map of the
    mean deviation similarity index (Nafchi, Shahkolaei, Hedjam and Cheriet, IEEE Access 2016),
    taken from 1. The index itself is the map's deviation, which is small where noise is
    everywhere on a flat scene.
    """
    luma_r, chroma_r = _to_opponent(references)
    luma_d, chroma_d = _to_opponent(distorted)
    gradient_r = _gradient(luma_r)
    gradient_d = _gradient(luma_d)
    gradient_f = _gradient((luma_r + luma_d) / 2)
    similarity = _similarity(gradient_r, gradient_d, GRADIENT_CONSTANT)
    similarity = (
        similarity
        + _similarity(gradient_d, gradient_f, FUSED_CONSTANT)
        - _similarity(gradient_r, gradient_f, FUSED_CONSTANT)
    )
    products = (chroma_r * chroma_d).sum(1, keepdim=True)
    squares = (chroma_r.square() + chroma_d.square()).sum(1, keepdim=True)
    chroma_similarity = (2 * products + CHROMA_CONSTANT) / (squares + CHROMA_CONSTANT)
    both = GRADIENT_SHARE * similarity + (1 - GRADIENT_SHARE) * chroma_similarity
    return 1 - both.mean((1, 2, 3))


def _to_opponent(images):
    """Return luma (B, 1, H, W) and chroma (B, 2, H, W) of images (B, H, W, 3) uint8."""
    values = to_nchw(images).float()
    weights = torch.tensor((LUMA, *CHROMA), device=images.device)
    planes = torch.einsum("kc,bchw->bkhw", weights, values)
    return planes[:, :1], planes[:, 1:]


def _gradient(luma):
    """Return the magnitude of Prewitt's gradient of (B, 1, H, W)."""
    padded = F.pad(luma, (1, 1, 1, 1), mode="replicate")
    rows = F.avg_pool2d(padded, (3, 1), stride=1)
    columns = F.avg_pool2d(padded, (1, 3), stride=1)
    horizontal = rows[..., 2:] - rows[..., :-2]
    vertical = columns[..., 2:, :] - columns[..., :-2, :]
    return (horizontal.square() + vertical.square()).sqrt()


def _similarity(a, b, constant):
    return (2 * a * b + constant) / (a.square() + b.square() + constant)


class VisibilityCurves:
    """The mean of the measure at each level, for every type in each direction."""

    def __init__(self, images: Tensor, types: tuple[str, ...]):
        self.levels = torch.tensor(LEVELS)
        self.curves = torch.zeros(len(types), 2, len(LEVELS))
        self.explained = torch.zeros(len(types), 2)
        for t, name in enumerate(types):
            for d in range(2 if DISTORTIONS[name].directions else 1):
                measured = _measure_levels(images, name, direction=2 * d - 1)
                self.curves[t, d] = measured.mean(0).cummax(0).values
                drawn = measured[:, 1:]  # no image is distorted by level 0
                within = (drawn - drawn.mean(0)).square().mean()
                self.explained[t, d] = 1 - within / (drawn - drawn.mean()).square().mean()

    def refine(
        self, measured: Tensor, type_: Tensor, direction: Tensor, level: Tensor, share: float
    ) -> Tensor:
        """Return (B,) levels that lie `share` of the way to the level the measure stands for.

        measured: (B,) of the measure. type_: (B,) int64. level: (B,) in [0, 1], unchanged where
        the measure does not see the type.
        """
        row = (direction > 0).long()
        curves = self.curves[type_, row]  # (B, L)
        visible = _invert(curves, self.levels, measured)
        is_seen = self.explained[type_, row] >= LEAST_EXPLAINED
        refined = level + share * (visible - level)
        return torch.where(is_seen, refined, level)


def _measure_levels(images, name, direction):
    """Return (N, L): the measure of every image at each of LEVELS."""
    keys = fold_in(1, torch.arange(len(images)))
    columns = []
    for level in LEVELS:
        distorted = distort_alike(images, name, level, direction, keys)
        columns.append(dissimilarity(images, distorted))
    return torch.stack(columns, dim=1)


def _invert(curves, levels, values):
    """Return (B,) levels at which the rising curves (B, L) have these values, at most 1."""
    upper = (curves[:, 1:] < values[:, None]).sum(1).clamp(max=curves.shape[1] - 2) + 1
    rows = torch.arange(len(curves))
    low = curves[rows, upper - 1]
    high = curves[rows, upper]
    fraction = ((values - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    return levels[upper - 1] + fraction * (levels[upper] - levels[upper - 1])
