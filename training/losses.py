"""The terms of the training loss:

loss = quality_loss + cluster_loss_weight × cluster_loss + rank_loss_weight × rank_loss
       + type_loss_weight × type_loss

A variant is a function of the same arguments, added to QUALITY_LOSSES or CLUSTER_LOSSES.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from models.mixture import Mixture
from utils.distributed import all_reduce_sum, gather_with_gradient

CLUSTER_STRENGTH = 0.1  # keeps the pull to clusters gentler than what the labels teach
SHARPNESS = 4  # the power of the posteriors that are assigned
BALANCING_ROUNDS = 5
RANK_SCALE = 10  # points of quality: at this difference one is better with a chance of 73 %
PSEUDO_COUNT = 16  # smooths a batch's cluster shares, as if 16 more images had the fit's shares


def quality_loss(predicted: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """Compute Huber's loss on the 0–1 scale, for predicted and true quality (B,) in 0–100.

    It is the mean over images of h((predicted − quality) / 100), where h(r) is r² / 0.2 for
    |r| < 0.1 and |r| − 0.05 beyond.
    """
    return F.smooth_l1_loss(predicted / 100, quality / 100, beta=0.1)


def cluster_loss(mixture: Mixture, embeddings: torch.Tensor) -> torch.Tensor:
    """Pull embeddings (B, D) towards the components they are assigned to and away from the others.

    It is the mean over images of −0.1 Σₖ qₖ log p(k | embedding), where the assignment
    q = balanced_assignment(p) carries no gradient. The posteriors p are those of the mixture's
    log-densities divided by D. Undivided, D dimensions make them 0 or 1, and the pull on the few in
    between has no bound.
    """
    log_posteriors = tempered_log_posteriors(mixture, embeddings)
    assignment = balanced_assignment(log_posteriors.detach(), mixture.weights)
    return CLUSTER_STRENGTH * cross_entropy(assignment, log_posteriors).to(embeddings.dtype)


def tempered_log_posteriors(mixture: Mixture, embeddings: torch.Tensor) -> torch.Tensor:
    """Return (B, K) log-posteriors of the mixture's log-densities divided by the dimensions."""
    return (mixture.log_joint(embeddings) / embeddings.shape[1]).log_softmax(1)


def cross_entropy(assignment: torch.Tensor, log_posteriors: torch.Tensor) -> torch.Tensor:
    """Return the mean of −Σₖ qₖ log pₖ, of assignments q and posteriors p, both (B, K)."""
    return -(assignment * log_posteriors).sum(1).mean()


def balanced_assignment(log_posteriors: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Assign a batch to components (B, K), pushed towards the shares (K,) that the fit gave them.

    It starts from q ∝ p⁴ and does five times q ← q s / (Σ_batch q + 16 s), each row divided
    by its sum. This is Sinkhorn's scaling (Cuturi, "Sinkhorn distances", NeurIPS 2013), as used
    with equal shares by Caron et al. ("Unsupervised learning of visual features by contrasting
    cluster assignments", NeurIPS 2020), but damped and stopped early.

    Assigned to the most probable component, images between two can go to the same one batch after
    batch: with many steps between refits, small components ran empty.
    """
    assignment = (SHARPNESS * log_posteriors).softmax(1)
    for _ in range(BALANCING_ROUNDS):
        batch_shares = all_reduce_sum(assignment.sum(0)) + PSEUDO_COUNT * shares
        assignment = assignment * shares / batch_shares
        assignment = assignment / assignment.sum(1, keepdim=True)
    return assignment


def type_loss(type_logits: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
    """Compute the cross-entropy of the type, pristine a type of its own: (B, T) and (B,) int64."""
    return F.cross_entropy(type_logits, types)


def rank_loss(
    predicted: torch.Tensor, quality: torch.Tensor, distortions: torch.Tensor
) -> torch.Tensor:
    """Compare all pairs of a batch, of predicted and true quality (B,) in 0–100.

    It is the mean over pairs of −p̂ log p − (1 − p̂) log (1 − p), where p is the logistic
    of the predicted difference divided by 10 points. The probability p̂ that the first of a
    pair is better is the logistic of the true difference (after Burges et al., "Learning to
    rank using gradient descent", ICML 2005). Where two images have the same distortion, the
    lower level is better for a fact: p̂ is 1 or 0. distortions (B,) int64: equal numbers for
    the same type and direction, and −1 for several at once. Several processes compare the
    whole batch.
    """
    predicted, quality, distortions = map(gather_with_gradient, (predicted, quality, distortions))
    first, second = torch.triu_indices(len(quality), len(quality), 1, device=quality.device)
    difference = (quality[first] - quality[second]) / RANK_SCALE
    is_fact = (distortions[first] == distortions[second]) & (distortions[first] >= 0)
    probability = torch.where(is_fact, (difference > 0).float(), difference.sigmoid())
    logit = (predicted[first] - predicted[second]) / RANK_SCALE
    is_told = difference != 0
    losses = F.binary_cross_entropy_with_logits(logit, probability, reduction="none")
    return (losses * is_told).sum() / is_told.sum().clamp(min=1)


QUALITY_LOSSES: dict[str, Callable] = {"huber": quality_loss}
CLUSTER_LOSSES: dict[str, Callable] = {"balanced": cluster_loss}
