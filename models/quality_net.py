"""The network: a ResNet (He et al., CVPR 2016), an embedding, and two heads on it.

One head reads the quality from the embedding, the other the distortion type.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from utils.errors import UserError

BACKBONES = ("resnet18", "resnet34", "resnet50")
STEMS = ("small", "imagenet")
# Image side, pixels, up to which the last strided convolutions see a single pixel. There oneDNN,
# which does a CPU's convolutions, leaves some bfloat16 gradients unset (seen in torch 2.15).
SINGLE_PIXEL_SIDE = {"small": 8, "imagenet": 16}
CELL_SIDE = {"small": 16, "imagenet": 32}  # pixels between two cells of the last feature map
# Side of a stem's filters: orders of the cosines that they start from, in brightness and in colour.
STEM_ORDERS = {3: ((0, 1, 2), (0, 1, 2)), 7: ((0, 1, 2, 4, 6), (0,))}
SMALL_IMAGE = 64  # pixels; below this a ResNet's own stem throws most of the image away
_MEAN = (0.485, 0.456, 0.406)  # ImageNet's, per channel of [0, 1]
_STD = (0.229, 0.224, 0.225)


class Output(NamedTuple):
    """The network's answer for a batch."""

    quality: torch.Tensor  # (B,) float32 in 0–100, higher is better
    embedding: torch.Tensor  # (B, D) float32
    type_logits: torch.Tensor | None  # (B, types + pristine), where there is a type head


class QualityNet(nn.Module):
    """Map images (B, 3, H, W) uint8, with sides of 8 pixels or more, to an Output."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        backbone: str,
        stem: str,
        embedding_dim: int,
        type_count: int = 0,
        pretrained: bool = False,
        cosine_stem: bool = True,
        stages: int = 4,
        joined_stages: int = 1,
    ):
        super().__init__()
        self.backbone = _make_backbone(backbone, stem, pretrained, cosine_stem)
        self.stages = stages
        self.joined_stages = joined_stages
        for unused in range(stages + 1, 5):
            setattr(self.backbone, f"layer{unused}", nn.Identity())
        # A stage has twice the channels of the one before, and half the cells along a side.
        self.cell_side = CELL_SIDE[stem] >> (4 - stages)  # pixels from a cell to the next
        last = self.backbone.fc.in_features >> (4 - stages)  # channels of the last stage
        self.channels = sum(last >> i for i in range(joined_stages))
        self.backbone.fc = nn.Identity()
        self.embed = nn.Linear(self.feature_count(), embedding_dim)
        self.quality_head = nn.Linear(embedding_dim, 1)
        self.type_head = nn.Linear(embedding_dim, type_count) if type_count else None
        self.register_buffer("mean", _per_channel(_MEAN), persistent=False)
        self.register_buffer("std", _per_channel(_STD), persistent=False)

    def forward(self, images: torch.Tensor) -> Output:
        """Return the Output of images (B, 3, H, W) uint8."""
        cells = self.feature_map(images)
        return self.read(self.backbone.avgpool(cells).flatten(1))

    def feature_count(self) -> int:
        """Return how many features the heads read."""
        return self.channels

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        """Return features (B, C, rows, columns) of images (B, 3, H, W) uint8, not yet averaged.

        Cell (i, j) sees what is around pixel (s · i, s · j), where s is `cell_side`. With joined
        stages, the features of the stages before the last are averaged over each cell.
        """
        return self.join_stages((images.float() - self.mean) / self.std)

    def join_stages(self, values: torch.Tensor) -> torch.Tensor:
        """Return the feature map of standardised pixels."""
        network = self.backbone
        values = network.maxpool(network.relu(network.bn1(network.conv1(values))))
        joined = []
        for stage in range(1, self.stages + 1):
            values = getattr(network, f"layer{stage}")(values)
            if stage > self.stages - self.joined_stages:
                finer = 2 ** (self.stages - stage)  # times the cells of the last stage, a side
                joined.append(F.avg_pool2d(values, finer, ceil_mode=True) if finer > 1 else values)
        return torch.cat(joined, dim=1) if len(joined) > 1 else values

    def read(self, features: torch.Tensor) -> Output:
        """Return the Output of features (B, C), averaged over any cells."""
        with torch.autocast(features.device.type, enabled=False):
            embedding = self.embed(features.float())
        return self.read_embedding(embedding)

    def read_embedding(self, embedding: torch.Tensor) -> Output:
        """Return the Output of embeddings (B, D) float32."""
        # The heads are cheap, and bfloat16 would round scores.
        with torch.autocast(embedding.device.type, enabled=False):
            quality = 100 * torch.sigmoid(self.quality_head(embedding)[:, 0])
            type_logits = self.type_head(embedding) if self.type_head else None
        return Output(quality, embedding, type_logits)


NETWORKS: dict[str, type[QualityNet]] = {"plain": QualityNet}


def resolve_stem(stem: str, image_size: int) -> str:
    """Return the stem that 'auto' stands for at this image size."""
    if stem == "auto":
        return "small" if image_size < SMALL_IMAGE else "imagenet"
    return stem


def _per_channel(values):
    """Return (1, 3, 1, 1), in grey levels of 255."""
    return torch.tensor(values).view(1, 3, 1, 1) * 255


def _make_backbone(name, stem, pretrained, cosine_stem):
    """Return a ResNet of torchvision. The small stem is 3×3, stride 1, and keeps the max-pool."""
    from torchvision.models import get_model  # a slow import, not needed for --help

    if pretrained and stem != "imagenet":
        raise UserError(
            "--pretrained needs --stem imagenet: the weights were learned with that stem"
        )
    try:
        network = get_model(name, weights="IMAGENET1K_V1" if pretrained else None)
    except (OSError, RuntimeError) as problem:
        raise UserError(
            f"--pretrained: ImageNet weights of {name} could not be downloaded ({problem})"
        ) from problem
    if stem == "small":
        network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    if cosine_stem and not pretrained:
        start_from_cosines(network.conv1.weight)
    return network


@torch.no_grad()
def start_from_cosines(weight: torch.Tensor) -> None:
    """Replace the first 54 random filters of a stem (64, 3, K, K) by cosines and their negatives.

    They are products of a row and a column of the cosine basis of K pixels, in brightness and in
    two colour differences. Batch norm then brings the weak fine detail, in which distortions show,
    to the strength of the coarse.
    """
    side = weight.shape[-1]
    brightness, *differences = _unit_rows([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [1.0, 1.0, -2.0]])
    fine, coarse = (_cosine_products(side, orders) for orders in STEM_ORDERS[side])
    filters = [torch.einsum("c,nyx->ncyx", brightness, fine)]
    filters += [torch.einsum("c,nyx->ncyx", color, coarse) for color in differences]
    basis = torch.cat(filters)  # (27, 3, K, K), orthonormal
    basis = basis * weight[0].numel() ** 0.5 * weight.std()
    weight[: 2 * len(basis)] = torch.cat([basis, -basis])


def _cosine_products(side, orders):
    """Return (N², side, side): products of the cosines of these orders, along y and along x."""
    places = (torch.arange(side, dtype=torch.float64) + 0.5) * torch.pi / side
    cosines = _unit_rows([torch.cos(order * places).tolist() for order in orders])
    return torch.einsum("iy,jx->ijyx", cosines, cosines).flatten(0, 1)


def _unit_rows(rows):
    matrix = torch.tensor(rows)
    return matrix / matrix.norm(dim=1, keepdim=True)
