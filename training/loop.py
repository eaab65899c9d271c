"""What a training run does: its state, an epoch of steps, the averaged weights, and their validation."""

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from tqdm import tqdm

from evaluation.metrics import cluster_measures, plcc, srcc
from models.inference import PIXELS_AT_ONCE, forward
from models.quality_net import SINGLE_PIXEL
from training.losses import cluster_loss, quality_loss, type_loss
from training.muon import Muon
from utils import distributed
from utils.device import has_bfloat16
from utils.errors import UserError
from utils.rng import FIXED, PARTS, permutation

WEIGHT_DECAY = 0.1
WARM_UP = 0.2  # share of the steps in which the learning rate rises to --lr
AVERAGED_SHARE = 0.04  # of a run's steps: the span of the exponential mean of the weights that is validated and kept
# Images on which the averaged weights' batch-norm statistics are measured: after an epoch, and for the checkpoints that
# are kept, whose scores chance is to move less.
BATCH_NORM_IMAGES, FINAL_BATCH_NORM_IMAGES = 256, 4096
CHECK_INTERVAL = (
    20  # steps from one look at the loss to the next, for which a GPU has to be waited for
)


@dataclass
class TrainingState:
    """What changes while training."""

    online: torch.nn.Module  # takes the gradient steps
    averaged: AveragedModel  # the exponential mean of its weights: validated, clustered and kept
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    mixture: torch.nn.Module

    def state_dicts(self):
        return {name: part.state_dict() for name, part in vars(self).items()}


def start_training(model, mixture, args, images):
    """A fresh TrainingState: Muon on a one-cycle schedule that spans the whole run. The schedule is fixed beforehand:
    steering it by validation would end runs of different seeds at different rates, which cannot be compared."""
    steps = max(2, args.epochs * math.ceil(images / args.batch_size))
    optimizer = Muon(model, args.lr, WEIGHT_DECAY)
    warm_up = max(WARM_UP, 1.5 / steps)  # one step at least
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, args.lr, steps, pct_start=warm_up, cycle_momentum=False
    )
    averaged = AveragedModel(
        model, multi_avg_fn=get_ema_multi_avg_fn(1 - 1 / max(1, AVERAGED_SHARE * steps))
    )
    return TrainingState(model, averaged, optimizer, schedule, mixture)


def train_one_epoch(state, dataset, epoch, args):
    """One pass in a random order. Returns ({name of a loss: its mean}, images per second)."""
    model = state.online.train()
    device = next(model.parameters()).device
    totals, seen, started = 0, 0, time.perf_counter()
    batches = training_batches(
        dataset, epoch_order(dataset, epoch, args.seed), args.batch_size, device
    )
    title, silent = f"epoch {epoch + 1}/{args.epochs}", not distributed.is_first()
    clustered = (
        bool(state.mixture.fitted) and args.cluster_loss_weight > 0
    )  # asked once: a GPU has to be waited for
    with tqdm(
        total=len(dataset), desc=title, unit="image", leave=False, mininterval=0.5, disable=silent
    ) as bar:
        for step, (images, indices) in enumerate(batches, 1):
            losses = losses_of(state, images, indices, dataset.labels, clustered, args)
            state.optimizer.zero_grad()
            (distributed.weight(len(images), device) * losses["loss"]).backward()
            distributed.total_gradients(model)
            state.optimizer.step()
            state.schedule.step()
            state.averaged.update_parameters(model)
            totals = totals + len(images) * torch.stack([*losses.values()]).detach()
            if step % CHECK_INTERVAL == 0:
                refuse_not_finite([totals], args.lr)
            seen += len(images)
            bar.update(len(images) * distributed.count())
    totals, seen = (
        distributed.total(totals),
        distributed.total(torch.tensor(seen, device=device)).item(),
    )
    refuse_not_finite([totals, *model.state_dict().values()], args.lr)
    return dict(zip(losses, (totals / seen).tolist())), seen / (time.perf_counter() - started)


def losses_of(state, images, indices, labels, clustered, args):
    """{"loss": the sum that is trained on, and each of its terms} for a batch."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=args.amp):
        output = state.online(images)
    qualities, types = (
        labels.quality[indices].to(images.device),
        labels.type[indices].to(images.device),
    )
    terms = {"quality_loss": quality_loss(output.quality, qualities)}
    loss = terms["quality_loss"]
    if clustered:
        terms["cluster_loss"] = cluster_loss(state.mixture, output.embedding)
        loss = loss + args.cluster_loss_weight * terms["cluster_loss"]
    if output.type_logits is not None:
        terms["type_loss"] = type_loss(output.type_logits, types)
        loss = loss + args.type_loss_weight * terms["type_loss"]
    return {"loss": loss, **terms}


def refuse_not_finite(tensors, lr):
    """Raise UserError where a loss, a weight or a statistic is no number any more. All tensors on one device, which is
    waited for once."""
    if not torch.stack([tensor.isfinite().all() for tensor in tensors]).all():
        raise UserError(
            f"the loss is not finite, or the weights are not; start again with an --lr below {lr}"
        )


@contextmanager
def explained(when, args):
    """What stops a run in here, as a line that tells when it was and what to change."""
    try:
        yield
    except torch.OutOfMemoryError as problem:
        raise UserError(
            f"{when}: not enough GPU memory; start again with a --batch_size below {args.batch_size} or an "
            f"--image_size below {args.image_size}, or --resume on another --device"
        ) from problem
    except UserError as problem:
        raise UserError(f"{when}: {problem}") from problem


def epoch_order(dataset, epoch, seed):
    """A random order of this epoch's images, (N,) int64."""
    return permutation(len(dataset), seed, PARTS.index("train"), epoch, FIXED)


def training_batches(dataset, order, batch_size, device):
    """This process's share of the dataset's batches, but for a last one that is too small to be shared out, or of a
    single image, from which batch norm cannot learn."""
    left = len(order) % batch_size
    order = order[: len(order) - left] if left < max(2, distributed.count()) else order
    return dataset.batches(distributed.share(order), batch_size // distributed.count(), device)


def settle_batch_norm(model, dataset, epoch, args, count=BATCH_NORM_IMAGES):
    """Measure batch-norm statistics of a model of averaged weights on so many images of the epoch, a batch at least: the
    statistics of the trained weights do not fit it."""
    device = next(model.parameters()).device
    order = epoch_order(dataset, epoch, args.seed)[: max(count, args.batch_size)]
    with torch.autocast(device.type, torch.bfloat16, enabled=args.amp):
        update_bn(
            (images for images, _ in training_batches(dataset, order, args.batch_size, device)),
            model,
        )
    refuse_not_finite(model.state_dict().values(), args.lr)


def predict(model, dataset, order=None):
    """(qualities (N,), embeddings (N, D)), numpy, of the dataset's images in this order, or in their own. Processes
    share the work and all get the whole."""
    order = torch.arange(len(dataset)) if order is None else order
    device, pixels = next(model.parameters()).device, math.prod(dataset.references.images.shape[2:])
    batches = dataset.batches(
        order[distributed.part(len(order))], min(256, max(1, PIXELS_AT_ONCE // pixels)), device
    )
    answers = zip(*(forward(model, images) for images, _ in batches))
    qualities, embeddings = (
        distributed.gathered(torch.cat(values), len(order)) for values in answers
    )
    return qualities.double().cpu().numpy(), embeddings.cpu().numpy()


def refit(mixture, model, dataset, args):
    """Fit the mixture to embeddings of the dataset's images, --gmm_samples of them at most."""
    chosen = permutation(len(dataset), args.seed, PARTS.index("train"), FIXED)[: args.gmm_samples]
    embeddings = predict(model, dataset, chosen.sort().values)[1]
    with distributed.first_before_others():
        if distributed.is_first():
            mixture.refit(embeddings, args.seed)
    distributed.copy_from_first(mixture)


def evaluate(model, mixture, dataset):
    """Validation scores: correlations, and the clusters where a mixture has been fitted."""
    qualities, embeddings = predict(model, dataset)
    true = dataset.labels.quality.double().numpy()
    scores = {"srcc": srcc(true, qualities), "plcc": plcc(true, qualities)}
    if mixture.fitted:
        measures = cluster_measures(
            mixture.assign(embeddings), dataset.labels.type.numpy(), len(mixture.weights)
        )
        scores |= {"clusters": len(mixture.weights)} if mixture.auto else {}
        scores |= {"active_clusters": measures["active"], "nmi": measures["nmi"]}
        if not mixture.kept.isnan():
            scores["kept"] = mixture.kept.item()
    return scores


def make_deterministic(seed):
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False


def resolve_amp(args, device):
    """bfloat16 where it was asked for, or by default where it is native; on a CPU, only where it is sound."""
    sound = device.type == "cuda" or args.image_size > SINGLE_PIXEL[args.stem]
    if args.amp and not sound:
        raise UserError(
            f"--amp: bfloat16 gradients are not sound on a CPU at --image_size {args.image_size}; leave it out"
        )
    return bool(has_bfloat16(device) and sound) if args.amp is None else args.amp
