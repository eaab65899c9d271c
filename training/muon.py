"""The optimizer: AdamW, with orthogonal steps for the convolutions."""

import torch

from utils.device import has_bfloat16

MOMENTUM = 0.9
ITERATIONS = 4
LR_FACTOR = 20  # of an orthogonal step, in units of the learning rate
QUINTIC = (3.4445, -4.7750, 2.0315)  # of Jordan's write-up, steep at zero


class Muon(torch.optim.AdamW):
    """Move convolution kernels by orthogonal steps, and every other parameter by AdamW's.

    A kernel (out, in, h, w) is read as a matrix (out, in·h·w). It moves along its momentum with
    the singular values made about equal, so that rare directions are learned as fast as common
    ones (Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024), and at
    20 times the rate. torch.optim.Muon, from torch 2.9 on, takes matrices only.
    """

    def __init__(self, model: torch.nn.Module, lr: float, weight_decay: float):
        kernels = [p for p in model.parameters() if p.ndim == 4]
        others = [p for p in model.parameters() if p.ndim != 4]
        groups = [{"params": kernels, "orthogonal": True}, {"params": others, "orthogonal": False}]
        super().__init__(groups, lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # training takes no closure
        """Take a step along the gradients."""
        for group in self.param_groups:
            if group["orthogonal"]:
                for kernel in group["params"]:
                    self._take_orthogonal_step(kernel, group["lr"], group["weight_decay"])
                    kernel.grad = None  # so that AdamW leaves it alone
        super().step()

    def _take_orthogonal_step(self, kernel, lr, weight_decay):
        state = self.state[kernel]
        if not state:
            state["momentum"] = torch.zeros_like(kernel)
            state["step"] = torch.zeros(())  # AdamW asks for it when it loads a state
        momentum = state["momentum"]
        momentum.mul_(MOMENTUM).add_(kernel.grad)
        direction = (kernel.grad + MOMENTUM * momentum).flatten(1)  # Nesterov's look ahead
        rate = LR_FACTOR * lr
        size = max(1, direction.shape[0] / direction.shape[1]) ** 0.5
        step = orthogonalize(direction).view_as(kernel)
        kernel.mul_(1 - rate * weight_decay).sub_(step, alpha=rate * size)


def orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """Move a matrix towards the nearest one with orthonormal rows, or columns if they are fewer.

    Singular values from a hundredth of the matrix's norm on end between 0.5 and 1.3; smaller ones
    grow 140-fold. It is a Newton-Schulz iteration in bfloat16 where the device has it, else in
    float32.
    """
    in_bfloat16 = has_bfloat16(matrix.device)
    is_wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix.bfloat16() if in_bfloat16 else matrix.float()
    wide = x if is_wide else x.T
    wide = wide / wide.norm().clamp(min=1e-12)
    wide = _iterate(wide) if in_bfloat16 else _iterate_by_factors(wide)
    return (wide if is_wide else wide.T).to(matrix.dtype)


def _iterate(wide):
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        gram = wide @ wide.T
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        wide = torch.addmm(wide, polynomial, wide, beta=a)
    return wide


def _iterate_by_factors(wide):
    """Multiply the factors of all iterations before they are applied to the matrix.

    This is less work where a matrix is at least twice as wide as high, as kernels are, and
    float32 has the digits for it.
    """
    gram = wide @ wide.T
    factor = _iteration_factor(gram)
    product = factor
    for _ in range(ITERATIONS - 1):
        gram = factor @ gram @ factor
        factor = _iteration_factor(gram)
        product = factor @ product
    return product @ wide


def _iteration_factor(gram):
    """Return what one iteration multiplies a matrix by, from its Gram matrix."""
    a, b, c = QUINTIC
    factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal().add_(a)
    return factor
