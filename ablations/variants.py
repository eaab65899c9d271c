"""The list of ablations. Each changes one part of the default, by flags or by fields of Recipe.

A part that the product does not have, such as another optimizer, is added to its table when this
module is imported: to CLUSTER_LOSSES, QUALITY_LOSSES, OPTIMIZERS or NETWORKS.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

import ablations.networks  # noqa: F401  it adds to NETWORKS
from ablations.cluster_losses import LOSS_VARIANTS
from ablations.old_approach import OldDataset
from distorted_dataset import DistortedImageDataset
from distortions.registry import DISTORTION_TYPES
from training.config import Recipe
from training.loop import OPTIMIZERS
from training.losses import CLUSTER_LOSSES, QUALITY_LOSSES


@dataclass(frozen=True)
class Ablation:
    """One change of the default."""

    description: str  # for the tables
    flags: str = ""  # of train_with_distortions.py; {half} and {double} of the refit interval
    recipe: Recipe = Recipe()
    dataset_class: type[DistortedImageDataset] = DistortedImageDataset


def adamw(model: torch.nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW for all weights, with three times the weight decay.

    It moves kernels at a twentieth of Muon's rate, so the same decay would be less to them.
    """
    return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=3 * weight_decay)


def squared_loss(predicted: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """Compute four times the squared error on the 0–1 scale, of qualities (B,) in 0–100."""
    return 4 * F.mse_loss(predicted / 100, quality / 100)


OPTIMIZERS["adamw"] = adamw
QUALITY_LOSSES["squared"] = squared_loss

NO_CLUSTER_LOSS = "--cluster_loss_weight 0"
NO_TYPE_LOSS = "--type_loss_weight 0"
NO_OTHER_LOSS = f"{NO_CLUSTER_LOSS} {NO_TYPE_LOSS}"
MAIN = {
    "fixed_plain": Ablation(
        "plain regressor, the same distorted images every epoch", f"--no-redistort {NO_OTHER_LOSS}"
    ),
    "redrawn_plain": Ablation("plain regressor", NO_OTHER_LOSS),
    "redrawn_cluster": Ablation("with the cluster loss", NO_TYPE_LOSS),
    "redrawn_type": Ablation("with the type loss", NO_CLUSTER_LOSS),
    "both": Ablation("with both: the default"),
    "both_unmatched_refits": Ablation(
        "both, but each refit starts from scratch and numbers components anew",
        recipe=Recipe(match_refits=False),
    ),
}
CLUSTERING = {
    "refit_half": Ablation("refits twice as often", "--refit_interval {half}"),
    "refit_double": Ablation("refits half as often", "--refit_interval {double}"),
    "refit_never": Ablation(
        "one fit, after training, so no cluster loss", "--refit_interval 1000000"
    ),
    "cluster_weight_0.1": Ablation("cluster loss weight 0.1", "--cluster_loss_weight 0.1"),
    "cluster_weight_1": Ablation("cluster loss weight 1", "--cluster_loss_weight 1"),
    "cluster_weight_2": Ablation("cluster loss weight 2", "--cluster_loss_weight 2"),
    "embedding_16": Ablation("embedding of 16 dimensions", "--embedding_dim 16"),
    "embedding_64": Ablation("embedding of 64 dimensions", "--embedding_dim 64"),
    "diagonal": Ablation("diagonal covariances", recipe=Recipe(covariance="diag")),
    "per_image_2": Ablation(
        "2 distorted images of each reference, so other steps", "--distortions_per_image 2"
    ),
    "per_image_8": Ablation(
        "8 distorted images of each reference, so other steps", "--distortions_per_image 8"
    ),
    "clusters_12": Ablation("12 clusters", "--n_clusters 12"),
    "clusters_auto": Ablation("the number of clusters by BIC", "--n_clusters auto"),
}
LOSSES = {}
for name, variant in LOSS_VARIANTS.items():
    CLUSTER_LOSSES[name] = variant.function
    LOSSES[f"cluster_{name}"] = Ablation(
        f"cluster loss: {variant.description}", recipe=Recipe(cluster_loss=name)
    )
PARTS = {
    "no_flip": Ablation("references not flipped", recipe=Recipe(flip=False)),
    "no_cutmix": Ablation("no part of another reference", recipe=Recipe(cutmix=False)),
    "no_ema": Ablation("the weights themselves, not their average", recipe=Recipe(ema_share=0)),
    "random_stem": Ablation("random filters in the stem", recipe=Recipe(cosine_stem=False)),
    "adamw": Ablation(
        "AdamW for all weights, three times the weight decay", recipe=Recipe(optimizer="adamw")
    ),
    "squared_loss": Ablation("squared quality loss", recipe=Recipe(quality_loss="squared")),
    "float32": Ablation("a network in float32", "--no-amp"),
    "lr_half": Ablation("half the learning rate", "--lr 5e-4"),
    "lr_double": Ablation("twice the learning rate", "--lr 2e-3"),
    "type_weight_0.03": Ablation("type loss weight 0.03", "--type_loss_weight 0.03"),
    "type_weight_0.3": Ablation("type loss weight 0.3", "--type_loss_weight 0.3"),
}
# For crops of photographs, of which the last stage sees few pixels.
THREE_STAGES = Recipe(stages=3)
PHOTOGRAPHS = {
    "stages_3": Ablation("without the ResNet's last stage", recipe=THREE_STAGES),
    "stages_2": Ablation("without its last two stages", recipe=Recipe(stages=2)),
    "joined_stages_2": Ablation(
        "three stages, the last two joined", recipe=replace(THREE_STAGES, joined_stages=2)
    ),
    "joined_stages_3": Ablation(
        "three stages, all joined", recipe=replace(THREE_STAGES, joined_stages=3)
    ),
    "deviations": Ablation(
        "three stages, standard deviations beside means",
        recipe=replace(THREE_STAGES, network="deviations"),
    ),
    "two_scales": Ablation(
        "three stages, the image at half its size too",
        recipe=replace(THREE_STAGES, network="two_scales"),
    ),
    "rank_loss": Ablation(
        "three stages, with the loss on pairs", recipe=replace(THREE_STAGES, rank_loss_weight=0.2)
    ),
    "refined_labels": Ablation(
        "three stages, labels half way to what is visible in the image",
        recipe=replace(THREE_STAGES, refinement=0.5),
    ),
    "several_scales": Ablation(
        "three stages, training crops shrunk by a factor from 0.5 to 1",
        recipe=replace(THREE_STAGES, smallest_scale=0.5),
    ),
    "stages_3_random_stem": Ablation(
        "three stages, random filters in the stem", recipe=replace(THREE_STAGES, cosine_stem=False)
    ),
    "joined_and_ranked": Ablation(
        "three stages, the last two joined, with the loss on pairs",
        recipe=replace(THREE_STAGES, joined_stages=2, rank_loss_weight=0.2),
    ),
}
WITHOUT = {}
for name in DISTORTION_TYPES:
    others = ",".join(other for other in DISTORTION_TYPES if other != name)
    WITHOUT[f"without_{name}"] = Ablation(f"trained without {name}", f"--distortions {others}")
HISTORY = {
    "old_approach": Ablation(
        "old labels: pristine images scored by their own brightness, contrast and sharpness",
        NO_OTHER_LOSS,
        recipe=Recipe(cutmix=False),  # a mixed image would need a label of its own
        dataset_class=OldDataset,
    )
}
GROUPS = {
    "main": MAIN,
    "clustering": CLUSTERING,
    "losses": LOSSES,
    "parts": PARTS,
    "photographs": PHOTOGRAPHS,
    "without": WITHOUT,
    "history": HISTORY,
}
ABLATIONS = {name: ablation for group in GROUPS.values() for name, ablation in group.items()}
