"""A Gaussian mixture over embeddings: fitted by scikit-learn, evaluated in torch.

Its components keep their numbers from one fit to the next.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy  # loads its parts when they are first used
import torch
from torch import nn

from utils.errors import UserError

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

REG_COVAR = (
    0.1  # added to the variances of standardised embeddings: no component shrinks to a point
)
MAX_ITERATIONS = 200
RESTARTS = 5  # of a fit from scratch
ALIVE_SHARE = 0.02  # of the images; a component with less is dying
AUTO_CLUSTERS = range(2, 25)  # what "auto" chooses from
FALSE_ALARM_RATE = 0.05  # share of images with known distortions that are flagged as unknown


class Mixture(nn.Module):
    """K Gaussians on standardised embeddings (D,). Buffers, no parameters; float64 throughout.

    With n_clusters "auto" each refit chooses K anew, by the Bayesian information criterion
    (Schwarz, "Estimating the dimension of a model", 1978); `bic` then has {K: its criterion,
    lower is better} of the last refit. covariance is scikit-learn's "full" or "diag". Without
    match_refits each refit starts from scratch and numbers its components as they come.
    """

    fitted: torch.Tensor
    label_stability: torch.Tensor  # see refit
    ood_threshold: torch.Tensor  # see calibrate
    center: torch.Tensor
    scale: torch.Tensor
    weights: torch.Tensor
    means: torch.Tensor
    precisions_cholesky: torch.Tensor

    def __init__(
        self,
        n_clusters: int | str,
        embedding_dim: int,
        covariance: str = "full",
        match_refits: bool = True,
    ):
        super().__init__()
        self.auto = n_clusters == "auto"
        self.covariance = covariance
        self.match_refits = match_refits
        self.bic: dict[int, float] = {}
        k = AUTO_CLUSTERS[0] if self.auto else int(n_clusters)
        d = embedding_dim
        self.register_buffer("fitted", torch.tensor(False))
        self.register_buffer("label_stability", torch.tensor(math.nan, dtype=torch.float64))
        self.register_buffer("ood_threshold", torch.tensor(math.nan, dtype=torch.float64))
        self.register_buffer("center", torch.zeros(d, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(d, dtype=torch.float64))
        self.register_buffer("weights", torch.full((k,), 1 / k, dtype=torch.float64))
        self.register_buffer("means", torch.zeros(k, d, dtype=torch.float64))
        identities = torch.eye(d, dtype=torch.float64).repeat(k, 1, 1)
        self.register_buffer("precisions_cholesky", identities)

    def log_joint(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return (B, K): log of weight × density at embeddings (B, D), in standardised units."""
        z = (embeddings.double() - self.center) / self.scale
        whitened = torch.einsum("bd,kde->bke", z, self.precisions_cholesky)
        whitened = whitened - torch.einsum("kd,kde->ke", self.means, self.precisions_cholesky)
        log_det = self.precisions_cholesky.diagonal(dim1=1, dim2=2).log().sum(1)
        constant = self.weights.log() + log_det - 0.5 * z.shape[1] * math.log(2 * math.pi)
        return constant - 0.5 * whitened.square().sum(2)

    def assign(self, embeddings: np.ndarray) -> np.ndarray:
        """Return (N,) the most probable component of each embedding (N, D)."""
        log_joint = self.log_joint(torch.from_numpy(embeddings).to(self.means.device))
        return log_joint.argmax(1).cpu().numpy()

    def refit(self, embeddings: np.ndarray, seed: int) -> None:
        """Fit to training embeddings (N, D), starting from the previous fit where there is one.

        `label_stability` is then the share of these images that the old and the new mixture put
        into the same cluster.
        """
        embeddings = np.asarray(embeddings, np.float64)
        k = len(self.weights)
        if len(embeddings) < k:
            raise UserError(
                f"--n_clusters {k} needs at least {k} training images, got {len(embeddings)}; "
                "lower it, or train on more"
            )
        before = self.assign(embeddings) if self.fitted else None
        self.ood_threshold.fill_(math.nan)  # it was another mixture's
        center = embeddings.mean(0)
        scale = _checked_scale(embeddings)
        model = self._fit((embeddings - center) / scale, center, scale, seed)
        self._store(center, scale, model, order=np.arange(model.n_components))
        if before is None:
            return
        if self.match_refits:
            order = match(before, self.assign(embeddings), k, model.n_components)
            self._store(center, scale, model, order)
        self.label_stability.fill_((before == self.assign(embeddings)).mean())

    def calibrate(self, embeddings: np.ndarray) -> None:
        """Set `ood_threshold`, the log-likelihood below which a distortion is flagged as unknown.

        5 % of these embeddings (N, D), of images with known distortions, are flagged falsely.
        """
        log_joint = self.log_joint(torch.from_numpy(embeddings).to(self.means.device))
        self.ood_threshold.copy_(log_joint.logsumexp(1).quantile(FALSE_ALARM_RATE))

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a state, which says how many components there are."""
        self._resize(len(state_dict["weights"]))
        return super().load_state_dict(state_dict, *args, **kwargs)

    def _resize(self, k):
        for name in ("weights", "means", "precisions_cholesky"):
            buffer = getattr(self, name)
            setattr(self, name, buffer.new_zeros(k, *buffer.shape[1:]))

    def _fit(self, standardised, center, scale, seed):
        """Adapt the previous fit, or fit from scratch.

        The first fit is from scratch, and later ones adapt the previous fit. If components of the
        adapted fit die, a fit from scratch replaces it, provided that more of its own survive.
        """
        if self.auto:
            return self._choose(standardised, seed)
        k = len(self.weights)
        if not self.fitted:
            return self._fit_from_scratch(k, standardised, seed)
        if not self.match_refits:
            # Another seed for each refit, or the same order might come by chance of the start.
            other_seed = (seed + _number_of(standardised)) % 2**32
            return self._fit_from_scratch(k, standardised, other_seed)
        adapted = self._maximize(k, standardised, seed, **self._previous_parameters(center, scale))
        if _count_alive(adapted) == k:
            return adapted
        from_scratch = self._fit_from_scratch(k, standardised, seed)
        return max(adapted, from_scratch, key=_count_alive)

    def _choose(self, standardised, seed):
        """Return the fit from scratch that has the lowest Bayesian information criterion."""
        models = {}
        self.bic = {}
        for k in AUTO_CLUSTERS:
            if k <= len(standardised):
                models[k] = self._fit_from_scratch(k, standardised, seed)
                self.bic[k] = float(models[k].bic(standardised))
        return models[min(self.bic, key=lambda k: self.bic[k])]

    def _fit_from_scratch(self, k, standardised, seed):
        return self._maximize(k, standardised, seed, n_init=RESTARTS)

    def _previous_parameters(self, center, scale):
        """Return the previous fit's parameters in the new units, as scikit-learn names them."""
        old_center = self.center.cpu().numpy()
        old_scale = self.scale.cpu().numpy()
        cholesky = self.precisions_cholesky.cpu().numpy()
        stretch = scale / old_scale
        precisions = (cholesky @ cholesky.transpose(0, 2, 1)) * np.outer(stretch, stretch)
        if self.covariance == "diag":
            precisions = np.diagonal(precisions, axis1=1, axis2=2)
        return {
            "weights_init": self.weights.cpu().numpy(),
            "means_init": (self.means.cpu().numpy() * old_scale + old_center - center) / scale,
            "precisions_init": precisions,
        }

    def _maximize(self, k, standardised, seed, **start):
        """Run expectation-maximisation from a start. Return scikit-learn's fitted mixture."""
        from sklearn.mixture import GaussianMixture  # a slow import, not needed for --help

        model = GaussianMixture(
            k,
            covariance_type=self.covariance,
            reg_covar=REG_COVAR,
            max_iter=MAX_ITERATIONS,
            random_state=seed,
            **start,
        )
        try:
            return model.fit(standardised)
        except ValueError as problem:
            raise UserError(
                f"the mixture cannot be fitted: {problem}; "
                f"start again with fewer --n_clusters than {k}, or a lower --lr"
            ) from problem

    def _store(self, center, scale, model: "GaussianMixture", order):
        """Keep a fitted model, its components in this order."""
        self._resize(model.n_components)
        cholesky = model.precisions_cholesky_[order]
        if self.covariance == "diag":
            cholesky = cholesky[:, :, None] * np.eye(len(center))
        self.fitted.fill_(True)
        self.center.copy_(torch.as_tensor(center))
        self.scale.copy_(torch.as_tensor(scale))
        self.weights.copy_(torch.as_tensor(model.weights_[order] / model.weights_.sum()))
        self.means.copy_(torch.as_tensor(model.means_[order]))
        self.precisions_cholesky.copy_(torch.as_tensor(cholesky))


def _checked_scale(embeddings):
    """Return (D,) standard deviations, or raise UserError where they tell nothing."""
    scale = embeddings.std(0)
    if not np.isfinite(scale).all() or not (scale > 1e-12).any():
        raise UserError(
            "the mixture cannot be fitted: the embeddings are all the same, or not finite; "
            "start again with a lower --lr"
        )
    return np.maximum(scale, 1e-6 * scale.max())


def _number_of(standardised):
    """Return a number from 0 to 999 that differs from one set of embeddings to the next."""
    return int(1000 * np.abs(standardised).sum()) % 1000


def _count_alive(model):
    """Count the components of a fitted mixture that hold a fair share of the images."""
    return int((model.weights_ >= ALIVE_SHARE).sum())


def match(before: np.ndarray, after: np.ndarray, k: int, new_k: int) -> np.ndarray:
    """Return (new_k,) order: new component order[j] gets the number j.

    As many images as possible then keep their cluster (Kuhn, "The Hungarian method for the
    assignment problem", 1955). before (N,) is below k, after (N,) below new_k. Components that
    match no old one get the numbers that are left.
    """
    overlap = np.zeros((k, new_k), np.int64)
    np.add.at(overlap, (before, after), 1)
    kept = overlap[:new_k]  # an old component from new_k on cannot keep its number
    _, new = scipy.optimize.linear_sum_assignment(kept, maximize=True)
    return np.concatenate([new, np.setdiff1d(np.arange(new_k), new)])
