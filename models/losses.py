"""The terms of the training loss:

loss = quality_loss + cluster_loss_weight × cluster_loss + type_loss_weight × type_loss
"""

import torch.nn.functional as F


def quality_loss(predicted, quality):
    """Huber's loss on the 0–1 scale: mean over images of h((predicted − quality) / 100), where h(r) is r² / 0.2 for
    |r| < 0.1 and |r| − 0.05 beyond. Both (B,) in 0–100."""
    return F.smooth_l1_loss(predicted / 100, quality / 100, beta=0.1)


def cluster_loss(log_posteriors):
    """Mean over images of −log p(k* | embedding), k* the most probable component, which carries no gradient. It pulls
    an embedding towards its component and away from the others. log_posteriors (B, K)."""
    return F.nll_loss(log_posteriors, log_posteriors.detach().argmax(1))


def type_loss(type_logits, types):
    """Cross-entropy of the distortion type, pristine a type of its own. type_logits (B, T), types (B,) int64."""
    return F.cross_entropy(type_logits, types)
