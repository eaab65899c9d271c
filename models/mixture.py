"""A Gaussian mixture over embeddings: fitted by scikit-learn, evaluated in torch, with components that keep their
identity from one fit to the next."""

import math

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.mixture import GaussianMixture
from torch import nn

from errors import UserError

REG_COVAR = 0.1  # added to the variances of standardised embeddings, so that no component shrinks to a point
MAX_ITERATIONS = 200
FRESH_STARTS = 5
LIVING_SHARE = 0.02  # of the images; a component with less is dying


class Mixture(nn.Module):
    """K full-covariance Gaussians on standardised embeddings (D,). Buffers, no parameters; float64 throughout."""

    def __init__(self, n_clusters, embedding_dim):
        super().__init__()
        k, d = n_clusters, embedding_dim
        self.register_buffer("fitted", torch.tensor(False))
        self.register_buffer("kept", torch.tensor(math.nan, dtype=torch.float64))  # see refit
        self.register_buffer("center", torch.zeros(d, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(d, dtype=torch.float64))
        self.register_buffer("weights", torch.full((k,), 1 / k, dtype=torch.float64))
        self.register_buffer("means", torch.zeros(k, d, dtype=torch.float64))
        self.register_buffer("precisions_cholesky", torch.eye(d, dtype=torch.float64).repeat(k, 1, 1))

    def log_joint(self, embeddings):
        """(B, K): log of weight × density at each embedding (B, D), in standardised coordinates."""
        z = (embeddings.double() - self.center) / self.scale
        whitened = torch.einsum("bd,kde->bke", z, self.precisions_cholesky)
        whitened = whitened - torch.einsum("kd,kde->ke", self.means, self.precisions_cholesky)
        log_det = self.precisions_cholesky.diagonal(dim1=1, dim2=2).log().sum(1)
        constant = self.weights.log() + log_det - 0.5 * z.shape[1] * math.log(2 * math.pi)
        return constant - 0.5 * whitened.square().sum(2)

    def assign(self, embeddings):
        """(N,) the most probable component of each embedding (N, D), numpy in and out."""
        return self.log_joint(torch.from_numpy(embeddings).to(self.means.device)).argmax(1).cpu().numpy()

    def refit(self, embeddings, seed):
        """Fit to training embeddings (N, D), starting from the previous fit where there is one. `kept` is then the
        share of these images that the old and the new mixture put into the same cluster."""
        embeddings = np.asarray(embeddings, np.float64)
        count, k = len(embeddings), len(self.weights)
        if count < k:
            raise UserError(f"--n_clusters {k} needs at least {k} training images, got {count}")
        before = self.assign(embeddings) if self.fitted else None
        center, scale = embeddings.mean(0), embeddings.std(0)
        if not np.isfinite(scale).all() or not (scale > 1e-12).any():
            raise UserError("the mixture cannot be fitted: the embeddings are all the same, or not finite")
        scale = np.maximum(scale, 1e-6 * scale.max())
        model = self._fit((embeddings - center) / scale, center, scale, seed)
        self._store(center, scale, model, np.arange(k))
        if before is not None:
            order = match(before, self.assign(embeddings), k)
            self._store(center, scale, model, order)
            self.kept.fill_((before == self.assign(embeddings)).mean())

    def _fit(self, standardised, center, scale, seed):
        """The previous fit, adapted. Where the embeddings have moved so far that components die of it, or before the
        first fit, a fresh one."""
        fresh = {"n_init": FRESH_STARTS}
        if not self.fitted:
            return self._maximize(standardised, fresh, seed)
        adapted = self._maximize(standardised, self._previous(center, scale), seed)
        if _living(adapted) == len(self.weights):
            return adapted
        return max(adapted, self._maximize(standardised, fresh, seed), key=_living)

    def _previous(self, center, scale):
        """The previous fit's parameters in the new coordinates."""
        old_center, old_scale = self.center.cpu().numpy(), self.scale.cpu().numpy()
        cholesky, stretch = self.precisions_cholesky.cpu().numpy(), scale / old_scale
        return {
            "weights_init": self.weights.cpu().numpy(),
            "means_init": (self.means.cpu().numpy() * old_scale + old_center - center) / scale,
            "precisions_init": (cholesky @ cholesky.transpose(0, 2, 1)) * np.outer(stretch, stretch),
        }

    def _maximize(self, standardised, start, seed):
        """Expectation-maximisation from a start: scikit-learn's fitted GaussianMixture."""
        k = len(self.weights)
        model = GaussianMixture(k, reg_covar=REG_COVAR, max_iter=MAX_ITERATIONS, random_state=seed, **start)
        return model.fit(standardised)

    def _store(self, center, scale, model, order):
        weights = model.weights_[order] / model.weights_.sum()
        values = (True, center, scale, weights, model.means_[order], model.precisions_cholesky_[order])
        names = ("fitted", "center", "scale", "weights", "means", "precisions_cholesky")
        for name, value in zip(names, values):
            getattr(self, name).copy_(torch.as_tensor(value))


def _living(model):
    """The number of components of a fitted GaussianMixture that hold a fair share of the images."""
    return int((model.weights_ >= LIVING_SHARE).sum())


def match(before, after, k):
    """(K,) order: new component order[j] takes the place of old component j, so that as many images as possible keep
    their cluster (Kuhn, "The Hungarian method for the assignment problem", 1955). before, after (N,) int."""
    overlap = np.zeros((k, k), np.int64)
    np.add.at(overlap, (before, after), 1)
    return linear_sum_assignment(overlap, maximize=True)[1]
