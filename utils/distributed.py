"""Training by several processes that torchrun starts, one for each GPU or for some CPU cores.

Every process runs the whole script and holds the whole network. Each trains its shard of the same
batches. Gradients, batch-norm statistics and sums over a batch are those of the whole batch, so
that a step is the step that one process would take, but for the order in which sums are rounded.
Without torchrun every function here leaves its input as it is.
"""

import atexit
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from utils.errors import UserError

# The main process may pack a folder while the others wait. If it dies, torchrun ends them all.
TIMEOUT = timedelta(days=2)


def get_world_size() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def get_rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main_process() -> bool:
    """Tell whether this process writes files and prints."""
    return get_rank() == 0


def init_distributed(device: torch.device) -> torch.device:
    """Meet the other processes, if torchrun started several. Return this process's device.

    'cuda' stands for a GPU for each process. Only the main process prints from here on.
    """
    if not dist.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        return device
    if device.type == "cuda":
        device = _own_gpu()
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=TIMEOUT)
    atexit.register(dist.destroy_process_group)
    if not is_main_process():
        # It stays open until the process ends.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        # The main process reports an interruption. A Python handler would wait for a sum to end.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return device


def _own_gpu():
    local_rank = int(os.environ["LOCAL_RANK"])
    gpus = torch.cuda.device_count()
    if local_rank >= gpus:
        raise UserError(
            f"torchrun starts more processes here than the {gpus} GPUs that torch sees; "
            "lower --nproc_per_node, or give --device cpu"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def barrier() -> None:
    """Wait until all processes have come here."""
    if get_world_size() > 1:
        dist.barrier()


@contextmanager
def main_process_first() -> Iterator[None]:
    """Let the main process through alone, and the others after it.

    Where it fails, it reports the error, and the others end silently.
    """
    if get_world_size() == 1:
        yield
    elif is_main_process():
        try:
            yield
        except Exception:  # after an interruption there are no others
            dist.broadcast_object_list([False])
            raise
        dist.broadcast_object_list([True])
    else:
        succeeded = [None]
        dist.broadcast_object_list(succeeded)
        if not succeeded[0]:
            sys.exit(1)
        yield


def on_main_process(function: Callable[..., None]) -> Callable[..., None]:
    """Decorate a function that all processes call and that only the main process executes.

    It begins when all have called it, and all go on when it is done.
    """

    @functools.wraps(function)
    def call(*args, **kwargs):
        barrier()
        with main_process_first():
            if is_main_process():
                function(*args, **kwargs)

    return call


def require_equal(value: Any, description: str) -> None:
    """Raise UserError where processes hold different values of what the description names."""
    if get_world_size() > 1:
        values = [None] * get_world_size()
        dist.all_gather_object(values, value)
        if len(set(values)) > 1:
            raise UserError(
                f"process {get_rank()} found other {description} than another process; "
                "do not change the folder while a run starts"
            )


def shard(order: torch.Tensor) -> torch.Tensor:
    """Return this process's shard of an order (N,): every get_world_size()-th element of it.

    It is an equal part of each batch whose size is a multiple of the number of processes.
    """
    return order[get_rank() :: get_world_size()]


def batch_share(images: int, device: torch.device | str) -> torch.Tensor | int:
    """Return which share of a batch's images this process has, given how many it has."""
    if get_world_size() == 1:
        return 1
    return images / all_reduce_sum(torch.tensor(float(images), device=device))


def all_reduce_sum(values: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over processes. The gradient of the sum goes back to each of them."""
    return _AllReduceSum.apply(values) if get_world_size() > 1 else values


def gather_with_gradient(values: torch.Tensor) -> torch.Tensor:
    """Put together values (N, …) of all processes, in each; gradients go back to their own."""
    if get_world_size() == 1:
        return values
    counts = torch.zeros(get_world_size(), dtype=torch.int64, device=values.device)
    counts[get_rank()] = len(values)
    counts = all_reduce_sum(counts)
    start = int(counts[: get_rank()].sum())
    padded = values.new_zeros(int(counts.sum()), *values.shape[1:])
    padded[start : start + len(values)] = values
    return all_reduce_sum(padded)


def shard_indices(count: int) -> torch.Tensor:
    """Return which of 0 … count − 1 this process predicts: a piece of them, in order."""
    return torch.arange(count).tensor_split(get_world_size())[get_rank()]


def all_gather(values: torch.Tensor, count: int) -> torch.Tensor:
    """Put together (count, …) in each process, from all their values for shard_indices(count)."""
    world_size = get_world_size()
    if world_size == 1:
        return values
    longest = -(-count // world_size)
    padded = values.new_zeros(longest, *values.shape[1:])
    padded[: len(values)] = values
    pieces = [torch.empty_like(padded) for _ in range(world_size)]
    dist.all_gather(pieces, padded)
    shards = torch.arange(count).tensor_split(world_size)
    return torch.cat([piece[: len(shard)] for piece, shard in zip(pieces, shards)])


def broadcast_state(module: nn.Module) -> None:
    """Give the module of every process the state of the main process's."""
    if get_world_size() > 1:
        state = [{name: value.cpu() for name, value in module.state_dict().items()}]
        dist.broadcast_object_list(state)
        module.load_state_dict(state[0])


def wrap_model(model: nn.Module) -> nn.Module:
    """Return the model with gradients that are averaged over processes, where there are several."""
    if get_world_size() == 1:
        return model
    return DistributedDataParallel(model, broadcast_buffers=False)  # batch norm shares its own


def convert_batch_norm(model: nn.Module, device: torch.device) -> None:
    """Give the model batch norm over all processes, where there are several."""
    if get_world_size() == 1:
        return
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is not nn.BatchNorm2d:
                continue
            kind = nn.SyncBatchNorm if device.type == "cuda" else CPUSyncBatchNorm
            synced = kind(child.num_features, child.eps, child.momentum)
            synced.load_state_dict(child.state_dict())
            setattr(parent, name, synced)


class CPUSyncBatchNorm(nn.BatchNorm2d):
    """Batch norm over the images of all processes on a CPU; torch's own is for GPUs only."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Normalise features (B, C, H, W), and update the running statistics."""
        if not self.training or get_world_size() == 1:
            return super().forward(features)
        values = features.float()
        size = all_reduce_sum(values.new_tensor(values.numel() / values.shape[1]))
        mean = all_reduce_sum(values.sum((0, 2, 3))) / size
        centred = values - mean[:, None, None]
        variance = all_reduce_sum(centred.square().sum((0, 2, 3))) / size
        self._update_running_statistics(mean.detach(), variance.detach() * size / (size - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        normalised = centred * scale[:, None, None] + self.bias[:, None, None]
        return normalised.to(features.dtype)

    def _update_running_statistics(self, mean, variance):
        """Update them as batch norm does. A momentum of None stands for the mean of all batches."""
        self.num_batches_tracked += 1
        momentum = self.momentum
        if momentum is None:
            momentum = 1 / self.num_batches_tracked.item()
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(context, values):
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(context, gradient):
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient
