"""The terms of the training loss:

loss = quality_loss + cluster_loss_weight × cluster_loss + type_loss_weight × type_loss
"""

import torch.nn.functional as F

PULL = 0.1


def quality_loss(predicted, quality):
    """Huber's loss on the 0–1 scale: mean over images of h((predicted − quality) / 100), where h(r) is r² / 0.2 for
    |r| < 0.1 and |r| − 0.05 beyond. Both (B,) in 0–100."""
    return F.smooth_l1_loss(predicted / 100, quality / 100, beta=0.1)


def cluster_loss(mixture, embeddings):
    """Mean over images of −0.1 log p(k* | embedding), k* the most probable component, which carries no gradient. It
    pulls an embedding (B, D) towards its component and away from the others.

    The posteriors are those of the mixture's log-densities divided by D: undivided, D dimensions make them 0 or 1, and
    the pull on the few in between has no bound. The factor 0.1 keeps the pull gentler than what the labels teach: at
    full strength the embeddings run into a few components before the next refit, and the scores with them.
    """
    log_posteriors = (mixture.log_joint(embeddings) / embeddings.shape[1]).log_softmax(1)
    return PULL * F.nll_loss(log_posteriors, log_posteriors.detach().argmax(1)).to(embeddings.dtype)


def type_loss(type_logits, types):
    """Cross-entropy of the distortion type, pristine a type of its own. type_logits (B, T), types (B,) int64."""
    return F.cross_entropy(type_logits, types)
