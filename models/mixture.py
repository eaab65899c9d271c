"""A Gaussian mixture over embeddings: fitted by scikit-learn, evaluated in torch, with components that keep their
identity from one fit to the next."""

import math

import numpy as np
import scipy  # which loads a part of it when that is first used
import torch
from torch import nn

from utils.errors import UserError

REG_COVAR = 0.1  # added to the variances of standardised embeddings, so that no component shrinks to a point
MAX_ITERATIONS = 200
FRESH_STARTS = 5
LIVING_SHARE = 0.02  # of the images; a component with less is dying
AUTO_CLUSTERS = range(2, 25)  # what "auto" chooses from
FALSE_ALARMS = 0.05  # share of images with known distortions that are flagged as unknown


class Mixture(nn.Module):
    """K full-covariance Gaussians on standardised embeddings (D,). Buffers, no parameters; float64 throughout.

    With n_clusters "auto" each refit chooses K anew, by the Bayesian information criterion (Schwarz, "Estimating the
    dimension of a model", 1978); `bic` then has {K: its criterion, lower is better} of the last refit."""

    def __init__(self, n_clusters, embedding_dim):
        super().__init__()
        self.auto, self.bic = n_clusters == "auto", {}
        k, d = AUTO_CLUSTERS[0] if self.auto else n_clusters, embedding_dim
        self.register_buffer("fitted", torch.tensor(False))
        self.register_buffer("kept", torch.tensor(math.nan, dtype=torch.float64))  # see refit
        self.register_buffer(
            "unknown_below", torch.tensor(math.nan, dtype=torch.float64)
        )  # see calibrate
        self.register_buffer("center", torch.zeros(d, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(d, dtype=torch.float64))
        self.register_buffer("weights", torch.full((k,), 1 / k, dtype=torch.float64))
        self.register_buffer("means", torch.zeros(k, d, dtype=torch.float64))
        self.register_buffer(
            "precisions_cholesky", torch.eye(d, dtype=torch.float64).repeat(k, 1, 1)
        )

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
        return (
            self.log_joint(torch.from_numpy(embeddings).to(self.means.device))
            .argmax(1)
            .cpu()
            .numpy()
        )

    def refit(self, embeddings, seed):
        """Fit to training embeddings (N, D), starting from the previous fit where there is one. `kept` is then the
        share of these images that the old and the new mixture put into the same cluster."""
        embeddings = np.asarray(embeddings, np.float64)
        count, k = len(embeddings), len(self.weights)
        if count < k:
            raise UserError(f"--n_clusters {k} needs at least {k} training images, got {count}")
        before = self.assign(embeddings) if self.fitted else None
        self.unknown_below.fill_(math.nan)  # it was another mixture's
        center, scale = embeddings.mean(0), embeddings.std(0)
        if not np.isfinite(scale).all() or not (scale > 1e-12).any():
            raise UserError(
                "the mixture cannot be fitted: the embeddings are all the same, or not finite; "
                "start again with a lower --lr"
            )
        scale = np.maximum(scale, 1e-6 * scale.max())
        model = self._fit((embeddings - center) / scale, center, scale, seed)
        self._store(center, scale, model, np.arange(model.n_components))
        if before is not None:
            self._store(
                center, scale, model, match(before, self.assign(embeddings), k, model.n_components)
            )
            self.kept.fill_((before == self.assign(embeddings)).mean())

    def calibrate(self, embeddings):
        """Set `unknown_below`, the log-likelihood under which an image's distortion is flagged as unknown, so that 5 %
        of these embeddings (N, D) of images with known distortions are flagged falsely."""
        log_likelihoods = self.log_joint(
            torch.from_numpy(embeddings).to(self.means.device)
        ).logsumexp(1)
        self.unknown_below.copy_(log_likelihoods.quantile(FALSE_ALARMS))

    def load_state_dict(self, state, *args, **kwargs):
        """As any module's, but the state says how many components there are."""
        self._resize(len(state["weights"]))
        return super().load_state_dict(state, *args, **kwargs)

    def _resize(self, k):
        for name in ("weights", "means", "precisions_cholesky"):
            buffer = getattr(self, name)
            setattr(self, name, buffer.new_zeros(k, *buffer.shape[1:]))

    def _choose(self, standardised, seed):
        """Of fresh fits with each number of components, the one with the lowest Bayesian information criterion."""
        choices = [k for k in AUTO_CLUSTERS if k <= len(standardised)]
        models = [self._maximize(k, standardised, {"n_init": FRESH_STARTS}, seed) for k in choices]
        self.bic = {k: float(model.bic(standardised)) for k, model in zip(choices, models)}
        return models[choices.index(min(self.bic, key=self.bic.get))]

    def _fit(self, standardised, center, scale, seed):
        """The previous fit, adapted. Where the embeddings have moved so far that components die of it, or before the
        first fit, a fresh one."""
        if self.auto:
            return self._choose(standardised, seed)
        k, fresh = len(self.weights), {"n_init": FRESH_STARTS}
        if not self.fitted:
            return self._maximize(k, standardised, fresh, seed)
        adapted = self._maximize(k, standardised, self._previous(center, scale), seed)
        if _living(adapted) == k:
            return adapted
        return max(adapted, self._maximize(k, standardised, fresh, seed), key=_living)

    def _previous(self, center, scale):
        """The previous fit's parameters in the new coordinates."""
        old_center, old_scale = self.center.cpu().numpy(), self.scale.cpu().numpy()
        cholesky, stretch = self.precisions_cholesky.cpu().numpy(), scale / old_scale
        return {
            "weights_init": self.weights.cpu().numpy(),
            "means_init": (self.means.cpu().numpy() * old_scale + old_center - center) / scale,
            "precisions_init": (cholesky @ cholesky.transpose(0, 2, 1))
            * np.outer(stretch, stretch),
        }

    def _maximize(self, k, standardised, start, seed):
        """Expectation-maximisation from a start: scikit-learn's fitted GaussianMixture of k components."""
        from sklearn.mixture import GaussianMixture  # a slow import, not needed for --help

        model = GaussianMixture(
            k, reg_covar=REG_COVAR, max_iter=MAX_ITERATIONS, random_state=seed, **start
        )
        try:
            return model.fit(standardised)
        except ValueError as problem:
            raise UserError(
                f"the mixture cannot be fitted: {problem}; "
                f"start again with fewer --n_clusters than {k}, or a lower --lr"
            ) from problem

    def _store(self, center, scale, model, order):
        self._resize(model.n_components)
        weights = model.weights_[order] / model.weights_.sum()
        values = (
            True,
            center,
            scale,
            weights,
            model.means_[order],
            model.precisions_cholesky_[order],
        )
        names = ("fitted", "center", "scale", "weights", "means", "precisions_cholesky")
        for name, value in zip(names, values):
            getattr(self, name).copy_(torch.as_tensor(value))


def _living(model):
    """The number of components of a fitted GaussianMixture that hold a fair share of the images."""
    return int((model.weights_ >= LIVING_SHARE).sum())


def match(before, after, k, new_k):
    """(new_k,) order: new component order[j] is called j from now on, so that as many images as possible keep their
    cluster (Kuhn, "The Hungarian method for the assignment problem", 1955). before (N,) int below k, after (N,) int
    below new_k. Components that match no old one take the numbers that are left."""
    overlap = np.zeros((k, new_k), np.int64)
    np.add.at(overlap, (before, after), 1)
    old = overlap[:new_k]  # an old one from new_k on cannot keep its number
    _, new = scipy.optimize.linear_sum_assignment(old, maximize=True)
    return np.concatenate([new, np.setdiff1d(np.arange(new_k), new)])
