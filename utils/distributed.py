"""Training shared out among processes that torchrun starts: one for each GPU, or for a part of a CPU's cores.

Every process runs the whole script and holds the whole network. Each trains its share of the same batches, and what a
step needs of a batch as a whole is summed over the processes, so that together they take the step that one would. A
process is known by its rank, from 0; the first writes. A single process gets back what it gives.
"""

import atexit
import functools
import os
import signal
import sys
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from utils.errors import UserError

PATIENCE = timedelta(
    days=2
)  # the first may pack a folder while the others wait; if one dies, torchrun ends them all


def count():
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank():
    return dist.get_rank() if dist.is_initialized() else 0


def is_first():
    return rank() == 0


def join(device):
    """Meet the other processes that torchrun started, if it did; of them, the first alone writes to the screen. Returns
    the device of this one: 'cuda' stands for a GPU each."""
    if not dist.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        return device
    if device.type == "cuda":
        local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= there:
            raise UserError(
                f"torchrun starts more processes here than the {there} GPUs that torch sees; lower --nproc_per_node, "
                "or give --device cpu"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    atexit.register(dist.destroy_process_group)
    if not is_first():
        sys.stdout = open(os.devnull, "w")
        for number in (
            signal.SIGINT,
            signal.SIGTERM,
        ):  # the first tells of it; a handler would wait for a sum to end
            signal.signal(number, signal.SIG_DFL)
    return device


def wait():
    """For all processes to come here."""
    if count() > 1:
        dist.barrier()


@contextmanager
def first_before_others():
    """The first process goes through alone, and the others after it. Where it fails, which it tells, they end silently."""
    if count() == 1:
        yield
    elif is_first():
        try:
            yield
        except Exception:  # after an interruption there are no others
            dist.broadcast_object_list([False])
            raise
        dist.broadcast_object_list([True])
    else:
        passed = [None]
        dist.broadcast_object_list(passed)
        if not passed[0]:
            sys.exit(1)
        yield


def by_first(write):
    """The decorated function is called by all processes and done by the first, when all have come to it; they go on when
    it is done."""

    @functools.wraps(write)
    def done_by_first(*args, **kwargs):
        wait()
        with first_before_others():
            if is_first():
                write(*args, **kwargs)

    return done_by_first


def refuse_to_differ(value):
    """Raise UserError where processes have come to different values."""
    if count() > 1:
        values = [None] * count()
        dist.all_gather_object(values, value)
        if len(set(values)) > 1:
            raise UserError(
                f"process {rank()} found other references than another one; is the folder being changed?"
            )


def share(order):
    """This process's part of an order (N,): every count()-th of it, so an equal part of each batch whose size is a
    multiple of count()."""
    return order[rank() :: count()]


def weight(images, device):
    """This process's share of a batch, of which it has so many images."""
    return images / total(torch.tensor(float(images), device=device)) if count() > 1 else 1


def total(values):
    """The sum of a tensor over processes; its gradient goes back to each of them."""
    return _Total.apply(values) if count() > 1 else values


def total_gradients(model):
    """Make each parameter's gradient its sum over processes."""
    if count() == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    summed = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(summed)
    for gradient, values in zip(
        gradients, summed.split([gradient.numel() for gradient in gradients])
    ):
        gradient.copy_(values.view_as(gradient))


def part(images):
    """The indices that this process predicts of so many images: a piece of them, in order."""
    return torch.arange(images).tensor_split(count())[rank()]


def gathered(values, images):
    """(images, …) everywhere, from each process's values (n, …) for its part(images)."""
    if count() == 1:
        return values
    longest = -(-images // count())
    padded = values.new_zeros(longest, *values.shape[1:])
    padded[: len(values)] = values
    pieces = [torch.empty_like(padded) for _ in range(count())]
    dist.all_gather(pieces, padded)
    lengths = [len(piece) for piece in torch.arange(images).tensor_split(count())]
    return torch.cat([piece[:length] for piece, length in zip(pieces, lengths)])


def copy_from_first(module):
    """Give a module of every process the first one's state."""
    if count() > 1:
        state = [{name: value.cpu() for name, value in module.state_dict().items()}]
        dist.broadcast_object_list(state)
        module.load_state_dict(state[0])


class _Total(torch.autograd.Function):
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


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm whose statistics, in training, are of the images of all processes, on any device (torch's own
    SyncBatchNorm is for GPUs only)."""

    def forward(self, features):
        if not self.training or count() == 1:
            return super().forward(features)
        values = features.float()
        size = total(values.new_tensor(values.numel() / values.shape[1]))
        mean = total(values.sum((0, 2, 3))) / size
        centred = values - mean[:, None, None]
        variance = total(centred.square().sum((0, 2, 3))) / size
        self._remember(mean.detach(), variance.detach() * size / (size - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(features.dtype)

    def _remember(self, mean, variance):
        """The running statistics, as batch norm keeps them: a momentum of None stands for the mean of all batches."""
        self.num_batches_tracked += 1
        momentum = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


def share_batch_norm(model):
    """The model, its batch norm taken over all processes where there are several."""
    for parent in list(model.modules()) if count() > 1 else ():
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                shared = SharedBatchNorm(child.num_features, child.eps, child.momentum)
                shared.load_state_dict(child.state_dict())
                setattr(parent, name, shared)
    return model
