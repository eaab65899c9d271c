"""What a training run does: its state, an epoch of steps, refits of the mixture, and validation."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from tqdm import tqdm

from distorted_dataset import DistortedImageDataset
from evaluation.clusters import cluster_measures
from evaluation.metrics import plcc, srcc
from models.inference import BATCH_PIXELS, forward
from models.mixture import Mixture
from models.quality_net import QualityNet
from training.losses import CLUSTER_LOSSES, QUALITY_LOSSES, rank_loss, type_loss
from training.muon import Muon
from utils import distributed
from utils.errors import UserError
from utils.rng import FIXED, SPLITS, permutation

WEIGHT_DECAY = 0.1
WARM_UP_SHARE = 0.2  # of the steps, in which the learning rate rises to --lr
# Images on which the averaged weights' batch-norm statistics are measured: after an epoch, and
# for the checkpoints that are kept, whose scores should depend less on chance.
BN_IMAGES = 256
FINAL_BN_IMAGES = 4096
FINITE_CHECK_INTERVAL = 20  # steps; each check of the losses waits for the GPU
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"muon": Muon}


@dataclass
class TrainingState:
    """What changes while training."""

    model: QualityNet  # takes the gradient steps
    parallel_model: torch.nn.Module  # the same, its gradients averaged over processes
    ema: AveragedModel  # moving average of its weights: validated, clustered and kept
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    mixture: Mixture

    @property
    def ema_model(self) -> QualityNet:
        """The network with averaged weights."""
        return cast(QualityNet, self.ema.module)

    def parts(self) -> dict[str, Any]:
        """Return what a run needs to go on, beside the mixture: objects with a state_dict."""
        return {
            "model": self.model,
            "ema": self.ema,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
        }


def create_state(
    model: QualityNet, mixture: Mixture, config: dict[str, Any], image_count: int
) -> TrainingState:
    """Return the state at the start of a run, with a one-cycle schedule of the whole run.

    The schedule is fixed beforehand. Steering it by validation would end runs of different seeds at
    different rates, which cannot be compared.
    """
    steps = max(2, config["epochs"] * math.ceil(image_count / config["batch_size"]))
    recipe = config["recipe"]
    optimizer = OPTIMIZERS[recipe["optimizer"]](model, config["lr"], WEIGHT_DECAY)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        config["lr"],
        steps,
        pct_start=max(WARM_UP_SHARE, 1.5 / steps),  # one step at least
        cycle_momentum=False,
    )
    ema_decay = 1 - 1 / max(1, recipe["ema_share"] * steps)
    return TrainingState(
        model=model,
        parallel_model=distributed.wrap_model(model),
        ema=AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema_decay)),
        optimizer=optimizer,
        scheduler=scheduler,
        mixture=mixture,
    )


def train_one_epoch(
    state: TrainingState, dataset: DistortedImageDataset, epoch: int, config: dict[str, Any]
) -> tuple[dict[str, float], float]:
    """Pass once over the dataset in a random order.

    Returns {name of a loss: its mean} and the rate in images per second.
    """
    state.parallel_model.train()
    device = next(state.model.parameters()).device
    order = epoch_order(dataset, epoch, config["seed"])
    batches = training_batches(dataset, order, config["batch_size"], device)
    # Asked once an epoch, because a GPU has to be waited for.
    use_cluster_loss = bool(state.mixture.fitted) and config["cluster_loss_weight"] > 0
    started = time.perf_counter()
    loss_sums = torch.zeros((), device=device)
    seen = 0
    losses: dict[str, torch.Tensor] = {}
    with tqdm(
        total=len(dataset),
        desc=f"epoch {epoch + 1}/{config['epochs']}",
        unit="image",
        leave=False,
        mininterval=0.5,
        disable=not distributed.is_main_process(),
    ) as bar:
        for step, (images, indices) in enumerate(batches, start=1):
            losses = compute_losses(state, images, indices, dataset, use_cluster_loss, config)
            state.optimizer.zero_grad()
            # Gradients are averaged over processes. Scaled so, the average is the gradient of the
            # whole batch's mean, also where shards differ in size.
            scale = distributed.batch_share(len(images), device) * distributed.get_world_size()
            (scale * losses["loss"]).backward()
            state.optimizer.step()
            state.scheduler.step()
            state.ema.update_parameters(state.model)
            loss_sums = loss_sums + len(images) * torch.stack([*losses.values()]).detach()
            if step % FINITE_CHECK_INTERVAL == 0:
                check_finite([loss_sums], config["lr"])
            seen += len(images)
            bar.update(len(images) * distributed.get_world_size())
    loss_sums = distributed.all_reduce_sum(loss_sums)
    total = distributed.all_reduce_sum(torch.tensor(seen, device=device)).item()
    check_finite([loss_sums, *state.model.state_dict().values()], config["lr"])
    means = dict(zip(losses, (loss_sums / total).tolist()))
    return means, total / (time.perf_counter() - started)


def compute_losses(
    state: TrainingState,
    images: torch.Tensor,
    indices: torch.Tensor,
    dataset: DistortedImageDataset,
    use_cluster_loss: bool,
    config: dict[str, Any],
) -> dict[str, torch.Tensor]:
    """Return "loss", the sum that is trained on, and each of its terms for a batch."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=config["amp"]):
        output = state.parallel_model(images)
    recipe = config["recipe"]
    quality = dataset.targets[indices].to(images.device)
    terms = {"quality_loss": QUALITY_LOSSES[recipe["quality_loss"]](output.quality, quality)}
    loss = terms["quality_loss"]
    if use_cluster_loss:
        cluster_loss = CLUSTER_LOSSES[recipe["cluster_loss"]]
        terms["cluster_loss"] = cluster_loss(state.mixture, output.embedding)
        loss = loss + config["cluster_loss_weight"] * terms["cluster_loss"]
    types = dataset.labels.main_type[indices].to(images.device)
    if recipe["rank_loss_weight"] > 0:
        distortions = dataset.labels.only_distortion[indices].to(images.device)
        terms["rank_loss"] = rank_loss(output.quality, quality, distortions)
        loss = loss + recipe["rank_loss_weight"] * terms["rank_loss"]
    if output.type_logits is not None:
        terms["type_loss"] = type_loss(output.type_logits, types)
        loss = loss + config["type_loss_weight"] * terms["type_loss"]
    return {"loss": loss, **terms}


def check_finite(tensors: Iterable[torch.Tensor], lr: float) -> None:
    """Raise UserError where a loss, a weight or a statistic is not finite.

    The tensors are on one device, which is waited for once.
    """
    are_finite = torch.stack([tensor.isfinite().all() for tensor in tensors])
    if not are_finite.all():
        raise UserError(
            f"the loss is not finite, or the weights are not; start again with an --lr below {lr}"
        )


@contextmanager
def error_context(moment: str, config: dict[str, Any]) -> Iterator[None]:
    """Turn what stops a run in here into a line that says when it was and what to change."""
    try:
        yield
    except torch.OutOfMemoryError as problem:
        raise UserError(
            f"{moment}: not enough GPU memory; start again with a --batch_size below "
            f"{config['batch_size']} or an --image_size below {config['image_size']}, or --resume "
            "on another --device"
        ) from problem
    except UserError as problem:
        raise UserError(f"{moment}: {problem}") from problem


def epoch_order(dataset: DistortedImageDataset, epoch: int, seed: int) -> torch.Tensor:
    """Return a random order of this epoch's images, (N,) int64."""
    return permutation(len(dataset), seed, SPLITS.index("train"), epoch, FIXED)


def training_batches(
    dataset: DistortedImageDataset, order: torch.Tensor, batch_size: int, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield this process's shard of the dataset's batches: images and their indices.

    A last batch is left out if it has fewer images than processes, or a single one, from which
    batch norm cannot learn.
    """
    world_size = distributed.get_world_size()
    left_over = len(order) % batch_size
    if left_over < max(2, world_size):
        order = order[: len(order) - left_over]
    return dataset.batches(distributed.shard(order), batch_size // world_size, device)


def update_bn_statistics(
    model: QualityNet,
    dataset: DistortedImageDataset,
    epoch: int,
    config: dict[str, Any],
    image_count: int = BN_IMAGES,
) -> None:
    """Measure the batch-norm statistics of averaged weights on images of the epoch.

    It takes image_count images, a batch at least. The trained weights' statistics do not fit the
    averaged ones.
    """
    device = next(model.parameters()).device
    batch_size = config["batch_size"]
    order = epoch_order(dataset, epoch, config["seed"])[: max(image_count, batch_size)]
    batches = training_batches(dataset, order, batch_size, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=config["amp"]):
        update_bn((images for images, _ in batches), model)
    check_finite(model.state_dict().values(), config["lr"])


def predict(
    model: QualityNet, dataset: DistortedImageDataset, order: torch.Tensor | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return qualities (N,) and embeddings (N, D) of images, in this order or the dataset's.

    Processes share the work, and all of them get the whole.
    """
    if order is None:
        order = torch.arange(len(dataset))
    device = next(model.parameters()).device
    pixels = math.prod(dataset.references.images.shape[1:3])
    batch_size = min(256, max(1, BATCH_PIXELS // pixels))
    own_part = order[distributed.shard_indices(len(order))]
    qualities = []
    embeddings = []
    for images, _ in dataset.batches(own_part, batch_size, device):
        output = forward(model, images)
        qualities.append(output.quality)
        embeddings.append(output.embedding)
    all_qualities = distributed.all_gather(torch.cat(qualities), len(order))
    all_embeddings = distributed.all_gather(torch.cat(embeddings), len(order))
    return all_qualities.double().cpu().numpy(), all_embeddings.cpu().numpy()


def refit(
    mixture: Mixture, model: QualityNet, dataset: DistortedImageDataset, config: dict[str, Any]
) -> None:
    """Fit the mixture to embeddings of the dataset's images, of --gmm_samples of them at most."""
    order = permutation(len(dataset), config["seed"], SPLITS.index("train"), FIXED)
    chosen = order[: config["gmm_samples"]].sort().values
    _, embeddings = predict(model, dataset, chosen)
    with distributed.main_process_first():
        if distributed.is_main_process():
            mixture.refit(embeddings, config["seed"])
    distributed.broadcast_state(mixture)


def validate(
    model: QualityNet, mixture: Mixture, dataset: DistortedImageDataset
) -> dict[str, float]:
    """Return validation scores: correlations, and measures of the clusters once there are any."""
    qualities, embeddings = predict(model, dataset)
    true = dataset.labels.quality.double().numpy()
    scores: dict[str, float] = {"srcc": srcc(true, qualities), "plcc": plcc(true, qualities)}
    if not mixture.fitted:
        return scores
    n_clusters = len(mixture.weights)
    clusters = mixture.assign(embeddings)
    measures = cluster_measures(clusters, dataset.labels.main_type.numpy(), n_clusters)
    if mixture.auto:
        scores["clusters"] = n_clusters
    scores["active_clusters"] = measures["active"]
    scores["nmi"] = measures["nmi"]
    if not mixture.label_stability.isnan():
        scores["kept"] = mixture.label_stability.item()
    return scores


def seed_everything(seed: int) -> None:
    """Seed torch, and make its operations deterministic."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
