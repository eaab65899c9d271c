from copy import deepcopy

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from models.mixture import AUTO_CLUSTERS, Mixture, match


def blobs(count=600, seed=0, spread=6.0):
    """Embeddings (N, 5) around four centres, on unequal scales, and the centre of each."""
    rng = np.random.default_rng(seed)
    centers, which = (
        np.random.default_rng(42).normal(0, spread, (4, 5)),
        rng.integers(4, size=count),
    )
    return (centers[which] + rng.normal(size=(count, 5))) * [1, 10, 0.1, 3, 1] + 7, which


def test_log_posteriors_and_likelihood_agree_with_sklearn():
    embeddings, _ = blobs(spread=1.0)
    mixture = Mixture(4, 5)
    mixture.refit(embeddings, seed=0)
    oracle = GaussianMixture(4)
    oracle.weights_, oracle.means_ = mixture.weights.numpy(), mixture.means.numpy()
    oracle.precisions_cholesky_ = mixture.precisions_cholesky.numpy()
    z = (embeddings - embeddings.mean(0)) / embeddings.std(0)
    ours = torch.from_numpy(embeddings)
    assert np.allclose(
        mixture.log_joint(ours).softmax(1).numpy(), oracle.predict_proba(z), atol=1e-9
    )
    assert np.allclose(
        mixture.log_joint(ours).logsumexp(1).numpy(), oracle.score_samples(z), atol=1e-9
    )


def test_the_fit_finds_what_is_there():
    embeddings, which = blobs()
    mixture = Mixture(4, 5)
    mixture.refit(embeddings, seed=0)
    clusters = mixture.assign(embeddings)
    assert all(len(set(which[clusters == k])) == 1 for k in range(4))
    assert mixture.label_stability.isnan()


def test_a_refit_on_the_same_embeddings_changes_nothing():
    embeddings, _ = blobs()
    mixture = Mixture(4, 5)
    mixture.refit(embeddings, seed=0)
    means = mixture.means.clone()
    mixture.refit(embeddings, seed=1)
    assert mixture.label_stability == 1
    assert torch.allclose(mixture.means, means, atol=1e-2)


def test_components_keep_their_identity_when_the_embeddings_move():
    embeddings, which = blobs()
    mixture = Mixture(4, 5)
    mixture.refit(embeddings, seed=0)
    before = mixture.assign(embeddings)
    moved = 3 * blobs(seed=1)[0] - 20  # other images, another scale and place
    mixture.refit(moved, seed=0)
    after = mixture.assign(3 * embeddings - 20)
    old = {w: set(before[which == w].tolist()) for w in range(4)}
    assert {w: set(after[which == w].tolist()) for w in range(4)} == old


def test_match_undoes_a_permutation():
    rng = np.random.default_rng(0)
    before = rng.integers(6, size=500)
    permutation = rng.permutation(6)
    after = permutation[before]  # old component k is called permutation[k] now
    order = match(before, after, 6, 6)
    assert np.array_equal(order, permutation)
    assert np.array_equal(np.argsort(order)[after], before)


def test_match_gives_new_clusters_the_numbers_that_are_left():
    before = np.repeat([0, 1, 2], 50)
    after = np.repeat([4, 0, 3], 50)
    order = match(before, after, 3, 5)
    assert order[:3].tolist() == [4, 0, 3] and sorted(order) == [0, 1, 2, 3, 4]


def test_match_keeps_the_numbers_that_there_still_are():
    """Of five clusters two are gone, and the largest bore a number that is gone too."""
    before = np.repeat([0, 1, 2, 3, 4], [40, 30, 20, 10, 90])
    after = np.repeat([2, 0, 0, 0, 1], [40, 30, 20, 10, 90])
    assert match(before, after, 5, 3).tolist() == [2, 0, 1]


def test_auto_finds_the_number_of_clusters_and_says_why():
    embeddings, which = blobs()
    mixture = Mixture("auto", 5)
    mixture.refit(embeddings, seed=0)
    assert len(mixture.weights) == 4 and min(mixture.bic, key=mixture.bic.get) == 4
    assert list(mixture.bic) == list(AUTO_CLUSTERS)
    before = mixture.assign(embeddings)
    mixture.refit(embeddings[which > 0], seed=0)
    assert len(mixture.weights) == 3 and (mixture.assign(embeddings[which > 0]) < 3).all()
    kept = mixture.assign(embeddings[which > 0]) == before[which > 0]
    assert (
        mixture.label_stability == kept.mean() > 0.6
    )  # of three clusters one at most had the number 3, that is gone


def test_a_saved_choice_is_loaded_with_its_size():
    embeddings, _ = blobs()
    chosen, loaded = Mixture("auto", 5), Mixture("auto", 5)
    chosen.refit(embeddings, seed=0)
    loaded.load_state_dict(chosen.state_dict())
    assert np.array_equal(loaded.assign(embeddings), chosen.assign(embeddings))


def test_calibration_flags_a_twentieth():
    embeddings, _ = blobs(2000)
    mixture = Mixture(4, 5)
    mixture.refit(embeddings, seed=0)
    assert mixture.ood_threshold.isnan()
    mixture.calibrate(embeddings)
    likelihoods = mixture.log_joint(torch.from_numpy(embeddings)).logsumexp(1)
    assert (likelihoods < mixture.ood_threshold).double().mean() == 0.05
    mixture.refit(embeddings, seed=0)
    assert mixture.ood_threshold.isnan()


def test_a_permuted_fit_is_put_back(monkeypatch):
    embeddings, _ = blobs()
    mixture = Mixture(4, 5)
    mixture.refit(embeddings, seed=0)
    before = mixture.assign(embeddings)
    fit = Mixture._fit

    def permuted_fit(self, *args):
        model = fit(self, *args)
        for name in ("weights_", "means_", "precisions_cholesky_"):
            setattr(model, name, getattr(model, name)[[2, 0, 3, 1]])
        return model

    monkeypatch.setattr(Mixture, "_fit", permuted_fit)
    mixture.refit(embeddings, seed=0)
    assert mixture.label_stability == 1
    assert np.array_equal(mixture.assign(embeddings), before)


def test_components_that_die_of_a_move_are_replaced():
    embeddings, which = blobs()
    mixture = Mixture(4, 5)
    mixture.refit(np.concatenate([embeddings[which == 0], embeddings[which == 1]]), seed=0)
    moved = embeddings[:, ::-1] * 5 + 100
    mixture.refit(moved, seed=0)
    assert (np.bincount(mixture.assign(moved), minlength=4) > 60).all()


def test_a_refit_starts_from_the_previous_fit(monkeypatch):
    """In whatever units the new embeddings are standardised, the start has the old posteriors."""
    embeddings, which = blobs(spread=1.0)
    mixture, starts = Mixture(4, 5), []
    mixture.refit(embeddings, seed=0)
    others = embeddings[which > 0]
    before = mixture.log_joint(torch.from_numpy(others)).softmax(1).numpy()
    maximize = Mixture._maximize
    monkeypatch.setattr(
        Mixture,
        "_maximize",
        lambda self, k, z, seed, **start: (
            starts.append(deepcopy((z, start))) or maximize(self, k, z, seed, **start)
        ),
    )
    mixture.refit(others, seed=0)
    (z, start), oracle = starts[0], GaussianMixture(4)
    oracle.weights_, oracle.means_ = start["weights_init"], start["means_init"]
    oracle.precisions_cholesky_ = np.linalg.cholesky(start["precisions_init"])
    assert len(starts) == 1 and np.allclose(oracle.predict_proba(z), before, atol=1e-6)


def test_a_fit_is_the_same_for_the_same_seed():
    embeddings, _ = blobs(spread=1.0)
    first, second = Mixture(6, 5), Mixture(6, 5)
    for mixture in (first, second, first, second):
        mixture.refit(embeddings, seed=3)
    pairs = zip(first.state_dict().values(), second.state_dict().values())
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)


def test_what_cannot_be_fitted_says_why():
    with pytest.raises(ValueError, match="--n_clusters 8 needs at least 8 training images, got 5"):
        Mixture(8, 3).refit(np.zeros((5, 3)), seed=0)
    for embeddings in (np.zeros((50, 3)), np.full((50, 3), np.nan)):
        with pytest.raises(ValueError, match="cannot be fitted"):
            Mixture(2, 3).refit(embeddings, seed=0)
