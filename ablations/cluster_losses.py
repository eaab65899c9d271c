"""Cluster losses that were tried and are not the default.

Each takes what training.losses.cluster_loss takes: the mixture and embeddings (B, D).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from models.mixture import Mixture
from training.losses import CLUSTER_STRENGTH, tempered_log_posteriors


class LossVariant(NamedTuple):
    """A cluster loss, and what the tables call it."""

    description: str
    function: Callable[[Mixture, torch.Tensor], torch.Tensor]


def nearest_loss(mixture: Mixture, embeddings: torch.Tensor) -> torch.Tensor:
    """Compute the cross-entropy of the tempered posteriors to the most probable component."""
    log_posteriors = tempered_log_posteriors(mixture, embeddings)
    nearest = log_posteriors.detach().argmax(1)
    return CLUSTER_STRENGTH * F.nll_loss(log_posteriors, nearest).float()


def untempered_loss(mixture: Mixture, embeddings: torch.Tensor) -> torch.Tensor:
    """Compute the same of the mixture's own posteriors, at ten times the strength."""
    log_posteriors = mixture.log_joint(embeddings).log_softmax(1)
    return F.nll_loss(log_posteriors, log_posteriors.detach().argmax(1)).float()


def center_loss(mixture: Mixture, embeddings: torch.Tensor) -> torch.Tensor:
    """Compute Huber's distance to the mean of the most probable component.

    After Wen et al., "A discriminative feature learning approach for deep face recognition", ECCV
    2016.
    """
    nearest = mixture.log_joint(embeddings.detach()).argmax(1)
    standardised = (embeddings - mixture.center.float()) / mixture.scale.float()
    return F.smooth_l1_loss(standardised, mixture.means.float()[nearest])


def sharpened_loss(mixture: Mixture, embeddings: torch.Tensor) -> torch.Tensor:
    """Compute the KL divergence to squared posteriors, a component's divided by its batch sum.

    After Xie, Girshick and Farhadi, "Unsupervised deep embedding for clustering analysis", ICML
    2016.
    """
    log_posteriors = tempered_log_posteriors(mixture, embeddings)
    posteriors = log_posteriors.detach().exp()
    target = posteriors.square() / posteriors.sum(0)
    target = target / target.sum(1, keepdim=True)
    divergence = F.kl_div(log_posteriors, target, reduction="batchmean")
    return CLUSTER_STRENGTH * divergence.float()


LOSS_VARIANTS = {
    "nearest": LossVariant("to the most probable component", nearest_loss),
    "untempered": LossVariant("untempered posteriors, ten times the strength", untempered_loss),
    "center": LossVariant("to the component's mean", center_loss),
    "sharpened": LossVariant("to sharpened posteriors", sharpened_loss),
}
