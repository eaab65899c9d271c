"""The network: a ResNet (He et al., CVPR 2016), an embedding, and on it a bounded quality head and a type head."""

from typing import NamedTuple

import torch
from torch import nn

from utils.errors import UserError

BACKBONES = ("resnet18", "resnet34", "resnet50")
STEMS = ("small", "imagenet")
# Image side, pixels, up to which the last strided convolutions see a single pixel. There oneDNN, which does a CPU's
# convolutions, leaves some bfloat16 gradients unset (seen in torch 2.15).
SINGLE_PIXEL = {"small": 8, "imagenet": 16}
SMALL_IMAGE = 64  # pixels; below this a ResNet's own stem throws most of the image away
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, per channel of [0, 1]


class Output(NamedTuple):
    quality: torch.Tensor  # (B,) float32 in 0–100, higher is better
    embedding: torch.Tensor  # (B, D) float32
    type_logits: torch.Tensor | None  # (B, types + pristine), where there is a type head


class QualityNet(nn.Module):
    """Images (B, 3, H, W) uint8, sides of 8 pixels or more → Output."""

    def __init__(self, backbone, stem, embedding_dim, type_count=0, pretrained=False):
        super().__init__()
        self.backbone = _backbone(backbone, stem, pretrained)
        self.embed = nn.Linear(self.backbone.fc.in_features, embedding_dim)
        self.backbone.fc = nn.Identity()
        self.quality_head = nn.Linear(embedding_dim, 1)
        self.type_head = nn.Linear(embedding_dim, type_count) if type_count else None
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, images):
        features = self.backbone((images.float() - self.mean) / self.std)
        with torch.autocast(
            images.device.type, enabled=False
        ):  # the heads are cheap, and bfloat16 would round scores
            embedding = self.embed(features.float())
            quality = 100 * torch.sigmoid(self.quality_head(embedding)[:, 0])
            return Output(quality, embedding, self.type_head(embedding) if self.type_head else None)


def resolve_stem(stem, image_size):
    """The stem that 'auto' stands for at this image size."""
    if stem == "auto":
        return "small" if image_size < SMALL_IMAGE else "imagenet"
    return stem


def _backbone(name, stem, pretrained):
    """A ResNet of torchvision. The small stem is 3×3 with stride 1 and keeps the max-pool."""
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
        start_from_cosines(network.conv1.weight)
    return network


@torch.no_grad()
def start_from_cosines(weight):
    """Put the cosine basis of a 3×3 patch, in brightness and two colour differences, and its negative in place of the
    first 54 of the stem's random filters (64, 3, 3, 3), at their size. Batch norm then brings the weak fine detail, in
    which distortions show, to the strength of the coarse."""
    cosines = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    colors = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [1.0, 1.0, -2.0]])
    cosines, colors = (rows / rows.norm(dim=1, keepdim=True) for rows in (cosines, colors))
    basis = torch.einsum("kc,iy,jx->kijcyx", colors, cosines, cosines).flatten(
        0, 2
    )  # (27, 3, 3, 3), orthonormal
    basis = basis * weight[0].numel() ** 0.5 * weight.std()
    weight[: 2 * len(basis)] = torch.cat([basis, -basis])
