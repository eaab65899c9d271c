"""Cluster losses that were tried and are not the default: the arms cluster_… of recipe.py. Each takes what
models.losses.cluster_loss takes; those that are cross-entropies of tempered posteriors have its strength."""

import torch.nn.functional as F

from training.losses import PULL


def standardised(mixture, embeddings):
    return (embeddings - mixture.center.float()) / mixture.scale.float()


def tempered(mixture, embeddings):
    """(B, K) log posteriors of the log-densities divided by D."""
    return (mixture.log_joint(embeddings) / embeddings.shape[1]).log_softmax(1)


def nearest_pull(mixture, embeddings):
    """Cross-entropy of the tempered posteriors to the most probable component."""
    log_posteriors = tempered(mixture, embeddings)
    return PULL * F.nll_loss(log_posteriors, log_posteriors.detach().argmax(1)).float()


def untempered_pull(mixture, embeddings):
    """Cross-entropy to the most probable component, of the mixture's own posteriors and at full strength."""
    log_posteriors = mixture.log_joint(embeddings).log_softmax(1)
    return F.nll_loss(log_posteriors, log_posteriors.detach().argmax(1)).float()


def center_pull(mixture, embeddings):
    """Huber's distance to the mean of the most probable component (Wen et al., "A discriminative feature learning
    approach for deep face recognition", ECCV 2016)."""
    means = mixture.means.float()[mixture.log_joint(embeddings.detach()).argmax(1)]
    return F.smooth_l1_loss(standardised(mixture, embeddings), means)


def sharpened_pull(mixture, embeddings):
    """KL divergence to squared posteriors, each component's divided by its sum over the batch (Xie, Girshick and
    Farhadi, "Unsupervised deep embedding for clustering analysis", ICML 2016)."""
    log_posteriors = tempered(mixture, embeddings)
    posteriors = log_posteriors.detach().exp()
    target = posteriors.square() / posteriors.sum(0)
    return (
        PULL
        * F.kl_div(
            log_posteriors, target / target.sum(1, keepdim=True), reduction="batchmean"
        ).float()
    )


CLUSTER_LOSSES = {
    "nearest": ("to the most probable component", nearest_pull),
    "untempered": ("untempered posteriors, ten times the strength", untempered_pull),
    "center": ("to the component's mean", center_pull),
    "sharpened": ("to sharpened posteriors", sharpened_pull),
}
