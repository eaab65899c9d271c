"""The terms of the training loss:

loss = quality_loss + cluster_loss_weight × cluster_loss + type_loss_weight × type_loss
"""

import torch.nn.functional as F

from utils import distributed

PULL = 0.1
SHARPNESS = 4  # the power of the posteriors that are assigned
ROUNDS = 5  # of balancing
DAMPING = 16  # images in the fit's shares that are counted with each batch, so that a small one is hardly moved


def quality_loss(predicted, quality):
    """Huber's loss on the 0–1 scale: mean over images of h((predicted − quality) / 100), where h(r) is r² / 0.2 for
    |r| < 0.1 and |r| − 0.05 beyond. Both (B,) in 0–100."""
    return F.smooth_l1_loss(predicted / 100, quality / 100, beta=0.1)


def cluster_loss(mixture, embeddings):
    """Mean over images of −0.1 Σₖ qₖ log p(k | embedding), where the assignment q = balanced(p) carries no gradient. It
    pulls an embedding (B, D) towards the components it is assigned to and away from the others.

    The posteriors p are those of the mixture's log-densities divided by D: undivided, D dimensions make them 0 or 1, and
    the pull on the few in between has no bound. The factor 0.1 keeps the pull gentler than what the labels teach.
    """
    log_posteriors = (mixture.log_joint(embeddings) / embeddings.shape[1]).log_softmax(1)
    assignment = balanced(log_posteriors.detach(), mixture.weights)
    return -PULL * (assignment * log_posteriors).sum(1).mean().to(embeddings.dtype)


def balanced(log_posteriors, shares):
    """(B, K) assignments q of a batch, pushed towards the shares s (K,) that the fit gave to components: from q ∝ p⁴
    on, five times q ← q s / (Σ_batch q + 16 s), each row divided by its sum. This is Sinkhorn's scaling (Cuturi, "Sinkhorn
    distances", NeurIPS 2013), as used with equal shares by Caron et al. ("Unsupervised learning of visual features by
    contrasting cluster assignments", NeurIPS 2020), but damped and stopped early.

    Assigned to the most probable component, images between two can go to the same one batch after batch: with many
    steps between refits, small components ran empty.
    """
    assignment = (SHARPNESS * log_posteriors).softmax(1)
    for _ in range(ROUNDS):
        assignment = assignment * shares / (distributed.total(assignment.sum(0)) + DAMPING * shares)
        assignment = assignment / assignment.sum(1, keepdim=True)
    return assignment


def type_loss(type_logits, types):
    """Cross-entropy of the distortion type, pristine a type of its own. type_logits (B, T), types (B,) int64."""
    return F.cross_entropy(type_logits, types)
