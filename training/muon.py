"""The optimizer: AdamW, with orthogonal steps for the convolutions."""

import torch

from utils.device import has_bfloat16

MOMENTUM = 0.9
ITERATIONS = 4
RATE = 20  # of an orthogonal step, in units of the learning rate
QUINTIC = (3.4445, -4.7750, 2.0315)  # of Jordan's write-up, steep at zero


class Muon(torch.optim.AdamW):
    """A kernel (out, in, h, w), read as a matrix (out, in·h·w), moves along its momentum with its singular values
    made about equal, so that rare directions are learned as fast as common ones (Jordan et al., "Muon: an optimizer for
    hidden layers in neural networks", 2024), and at 20 times the rate. Every other parameter takes AdamW's step.

    torch.optim.Muon, from torch 2.9 on, takes matrices only.
    """

    def __init__(self, model, lr, weight_decay):
        kernels = [p for p in model.parameters() if p.ndim == 4]
        others = [p for p in model.parameters() if p.ndim != 4]
        groups = [{"params": kernels, "orthogonal": True}, {"params": others, "orthogonal": False}]
        super().__init__(groups, lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay)

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            if group["orthogonal"]:
                for kernel in group["params"]:
                    self._orthogonal_step(kernel, group["lr"], group["weight_decay"])
                    kernel.grad = None  # done: AdamW leaves it alone
        super().step()

    def _orthogonal_step(self, kernel, lr, weight_decay):
        state = self.state[kernel]
        if not state:
            state |= {
                "momentum": torch.zeros_like(kernel),
                "step": torch.zeros(()),
            }  # AdamW's loader asks for a step
        momentum = state["momentum"]
        momentum.mul_(MOMENTUM).add_(kernel.grad)
        direction = (kernel.grad + MOMENTUM * momentum).flatten(1)  # Nesterov's look ahead
        rate = RATE * lr
        size = max(1, direction.shape[0] / direction.shape[1]) ** 0.5
        step = orthogonalized(direction).view_as(kernel)
        kernel.mul_(1 - rate * weight_decay).sub_(step, alpha=rate * size)


def orthogonalized(matrix):
    """Towards the nearest matrix with orthonormal rows (or columns, if they are fewer): singular values from a
    hundredth of the matrix's norm on end between 0.5 and 1.3, smaller ones grow 140-fold. A Newton-Schulz iteration in
    bfloat16 where the device has it, else in float32."""
    in_bfloat16 = has_bfloat16(matrix.device)
    x = matrix.bfloat16() if in_bfloat16 else matrix.float()
    wide = x if x.shape[0] <= x.shape[1] else x.T
    wide = wide / wide.norm().clamp(min=1e-12)
    wide = _iterated(wide) if in_bfloat16 else _iterated_at_once(wide)
    return (wide if x.shape[0] <= x.shape[1] else wide.T).to(matrix.dtype)


def _iterated(wide):
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide


def _iterated_at_once(wide):
    """The factors of all iterations are multiplied before they are applied: less work where a matrix is at least twice as
    wide as high, as kernels are, and float32 has the digits."""
    gram = wide @ wide.T
    product = factor = _factor(gram)
    for _ in range(ITERATIONS - 1):
        gram = factor @ gram @ factor
        factor = _factor(gram)
        product = factor @ product
    return product @ wide


def _factor(gram):
    """What one iteration multiplies a matrix by, from its Gram matrix."""
    a, b, c = QUINTIC
    factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal().add_(a)
    return factor
