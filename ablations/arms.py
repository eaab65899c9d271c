"""The arms of recipe.py. Each changes one part of the default recipe, by flags or by a name of the code."""

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.mixture import GaussianMixture

from ablations.cluster_losses import CLUSTER_LOSSES
from ablations.old_labels import OldDataset
from distortions.registry import DISTORTION_TYPES
from models.mixture import MAX_ITERATIONS, REG_COVAR, Mixture


@dataclass(frozen=True)
class Arm:
    what: str  # it is, for the table
    flags: str = (
        ""  # of train_with_distortions.py; {half}, {double}: of the schedule's refit interval
    )
    patches: dict = field(default_factory=dict)  # {"module.name": what takes its place}


_refit = Mixture.refit


def refit_from_nothing(mixture, embeddings, seed):
    """A fresh fit each time, with components in whatever order it finds them."""
    mixture.fitted.fill_(False)
    _refit(
        mixture, embeddings, seed + int(np.abs(embeddings).sum()) % 1000
    )  # another seed at each refit


def diagonal_fit(mixture, k, standardised, start, seed):
    """Mixture._maximize with diagonal covariances, in the shape of full ones."""
    if "precisions_init" in start:
        start = start | {"precisions_init": np.diagonal(start["precisions_init"], axis1=1, axis2=2)}
    limits = {"reg_covar": REG_COVAR, "max_iter": MAX_ITERATIONS}
    model = GaussianMixture(k, covariance_type="diag", random_state=seed, **limits, **start).fit(
        standardised
    )
    model.precisions_cholesky_ = model.precisions_cholesky_[:, :, None] * np.eye(
        standardised.shape[1]
    )
    return model


def adamw(model, lr, weight_decay):
    """Takes three times Muon's weight decay: kernels move at a twentieth of Muon's rate."""
    return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=3 * weight_decay)


def squared_loss(predicted, quality):
    return 4 * F.mse_loss(predicted / 100, quality / 100)


NO_CLUSTERS, NO_TYPES = "--cluster_loss_weight 0", "--type_loss_weight 0"
MAIN = {
    "fixed_plain": Arm("plain regressor, the same distorted images every epoch",
                       f"--no-redistort {NO_CLUSTERS} {NO_TYPES}"),
    "redrawn_plain": Arm("plain regressor", f"{NO_CLUSTERS} {NO_TYPES}"),
    "redrawn_cluster": Arm("with the cluster loss", NO_TYPES),
    "redrawn_type": Arm("with the type loss", NO_CLUSTERS),
    "both": Arm("with both: the default"),
    "both_forgetful": Arm("both, but refits forget which component is which",
                          patches={"models.mixture.Mixture.refit": refit_from_nothing}),
}  # fmt: skip
CLUSTERING = {
    "refit_half": Arm("refits twice as often", "--refit_interval {half}"),
    "refit_double": Arm("refits half as often", "--refit_interval {double}"),
    "refit_never": Arm("one fit, after training, so no cluster loss", "--refit_interval 1000000"),
    **{
        f"cluster_weight_{w}": Arm(f"cluster loss weight {w}", f"--cluster_loss_weight {w}")
        for w in (0.1, 1, 2)
    },
    **{
        f"embedding_{d}": Arm(f"embedding of {d} dimensions", f"--embedding_dim {d}")
        for d in (16, 64)
    },
    "diagonal": Arm(
        "diagonal covariances", patches={"models.mixture.Mixture._maximize": diagonal_fit}
    ),
    **{
        f"per_image_{n}": Arm(
            f"{n} distorted images of each reference, so other steps",
            f"--distortions_per_image {n}",
        )
        for n in (2, 8)
    },
    "clusters_12": Arm("12 clusters", "--n_clusters 12"),
    "clusters_auto": Arm("the number of clusters by BIC", "--n_clusters auto"),
}
LOSSES = {
    f"cluster_{name}": Arm(f"cluster loss: {what}", patches={"training.loop.cluster_loss": loss})
    for name, (what, loss) in CLUSTER_LOSSES.items()
}
SPLITS = {
    "no_turning": Arm("references not turned", patches={"train_with_distortions.TURN": False}),
    "no_joining": Arm("references not joined", patches={"train_with_distortions.JOIN": False}),
    "no_average": Arm("the weights themselves, not their running mean",
                      patches={"training.loop.AVERAGED_SHARE": 0}),
    "no_cosines": Arm("random filters in the stem",
                      patches={"models.quality_net.start_from_cosines": lambda weight: None}),
    "adamw": Arm("AdamW for all weights, three times the weight decay", patches={"training.loop.Muon": adamw}),
    "squared_loss": Arm("squared quality loss", patches={"training.loop.quality_loss": squared_loss}),
    "float32": Arm("a network in float32", "--no-amp"),
    "lr_half": Arm("half the learning rate", "--lr 5e-4"),
    "lr_double": Arm("twice the learning rate", "--lr 2e-3"),
    "type_weight_0.03": Arm("type loss weight 0.03", "--type_loss_weight 0.03"),
    "type_weight_0.3": Arm("type loss weight 0.3", "--type_loss_weight 0.3"),
}  # fmt: skip
WITHOUT = {
    f"without_{name}": Arm(
        f"trained without {name}",
        "--distortions " + ",".join(other for other in DISTORTION_TYPES if other != name),
    )
    for name in DISTORTION_TYPES
}
HISTORY = {
    "old_approach": Arm("old labels: pristine images scored by their own brightness, contrast and sharpness",
                        f"{NO_CLUSTERS} {NO_TYPES}",
                        {"train_with_distortions.DistortedImageDataset": OldDataset})
}  # fmt: skip
GROUPS = {"main": MAIN, "clustering": CLUSTERING, "losses": LOSSES, "parts": SPLITS, "without": WITHOUT,
          "history": HISTORY}  # fmt: skip
ARMS = {name: arm for group in GROUPS.values() for name, arm in group.items()}
