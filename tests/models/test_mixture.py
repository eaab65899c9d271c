"""The mixture: scikit-learn's fit, evaluated in torch, with components that keep their numbers."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from models.mixture import AUTO_CLUSTERS, Mixture, match


def blobs(count=600, seed=0, spread=6.0):
    """Return embeddings (N, 5) around four centres, on unequal scales, and each one's centre."""
    centers = np.random.default_rng(42).normal(0, spread, (4, 5))
    rng = np.random.default_rng(seed)
    blob = rng.integers(4, size=count)
    noise = rng.normal(size=(count, 5))
    return (centers[blob] + noise) * [1, 10, 0.1, 3, 1] + 7, blob


def fitted(embeddings, n_clusters=4, **options):
    """Return a mixture that is fitted to the embeddings."""
    mixture = Mixture(n_clusters, 5, **options)
    mixture.refit(embeddings, seed=0)
    return mixture


def likelihoods(mixture, embeddings):
    """Return (N,) log-likelihoods."""
    return mixture.log_joint(torch.from_numpy(embeddings)).logsumexp(1)


@pytest.mark.parametrize("covariance", ("full", "diag"))
def test_posteriors_and_likelihood_agree_with_sklearn(covariance):
    embeddings, _ = blobs(spread=1.0)
    mixture = fitted(embeddings, covariance=covariance)
    oracle = GaussianMixture(4)
    oracle.weights_ = mixture.weights.numpy()
    oracle.means_ = mixture.means.numpy()
    oracle.precisions_cholesky_ = mixture.precisions_cholesky.numpy()
    z = (embeddings - embeddings.mean(0)) / embeddings.std(0)

    log_joint = mixture.log_joint(torch.from_numpy(embeddings))

    assert np.allclose(log_joint.softmax(1).numpy(), oracle.predict_proba(z), atol=1e-9)
    assert np.allclose(log_joint.logsumexp(1).numpy(), oracle.score_samples(z), atol=1e-9)


@pytest.mark.parametrize("covariance", ("full", "diag"))
def test_the_fit_finds_what_is_there(covariance):
    embeddings, blob = blobs()

    mixture = fitted(embeddings, covariance=covariance)

    clusters = mixture.assign(embeddings)
    assert all(len(set(blob[clusters == k])) == 1 for k in range(4))
    assert mixture.label_stability.isnan()


@pytest.mark.parametrize("covariance", ("full", "diag"))
def test_a_refit_on_the_same_embeddings_changes_nothing(covariance):
    embeddings, _ = blobs()
    mixture = fitted(embeddings, covariance=covariance)
    means = mixture.means.clone()

    mixture.refit(embeddings, seed=1)

    assert mixture.label_stability == 1
    assert torch.allclose(mixture.means, means, atol=1e-2)


def test_components_keep_their_numbers_when_embeddings_move():
    """The refit is to other images, on another scale and in another place."""
    embeddings, blob = blobs()
    mixture = fitted(embeddings)
    before = mixture.assign(embeddings)

    mixture.refit(3 * blobs(seed=1)[0] - 20, seed=0)

    after = mixture.assign(3 * embeddings - 20)
    for k in range(4):
        assert set(after[blob == k]) == set(before[blob == k])


def test_unmatched_refits_number_components_anew():
    """So the numbers of many images change, though the clusters are the same."""
    embeddings, _ = blobs()
    mixture = fitted(embeddings, match_refits=False)

    stabilities = []
    for shift in range(8):  # each refit has another seed, by its embeddings
        mixture.refit(embeddings + shift, seed=0)
        stabilities.append(mixture.label_stability.item())

    assert min(stabilities) < 1


def test_match_undoes_a_permutation():
    rng = np.random.default_rng(0)
    before = rng.integers(6, size=500)
    permutation = rng.permutation(6)
    after = permutation[before]  # old component k is called permutation[k] now

    order = match(before, after, 6, 6)

    assert np.array_equal(order, permutation)
    assert np.array_equal(np.argsort(order)[after], before)


def test_match_gives_new_clusters_the_numbers_left():
    before = np.repeat([0, 1, 2], 50)
    after = np.repeat([4, 0, 3], 50)

    order = match(before, after, 3, 5)

    assert order[:3].tolist() == [4, 0, 3]
    assert sorted(order) == [0, 1, 2, 3, 4]


def test_match_keeps_the_numbers_that_there_still_are():
    """Of five clusters two are gone, and the largest bore a number that is gone too."""
    before = np.repeat([0, 1, 2, 3, 4], [40, 30, 20, 10, 90])
    after = np.repeat([2, 0, 0, 0, 1], [40, 30, 20, 10, 90])

    assert match(before, after, 5, 3).tolist() == [2, 0, 1]


def test_auto_finds_the_number_of_clusters_and_says_why():
    embeddings, _ = blobs()

    mixture = fitted(embeddings, n_clusters="auto")

    assert len(mixture.weights) == 4
    assert min(mixture.bic, key=mixture.bic.get) == 4
    assert list(mixture.bic) == list(AUTO_CLUSTERS)


def test_auto_keeps_numbers_when_a_cluster_is_gone():
    """Of three clusters one at most had the number 3, which is gone."""
    embeddings, blob = blobs()
    mixture = fitted(embeddings, n_clusters="auto")
    others = embeddings[blob > 0]
    before = mixture.assign(others)

    mixture.refit(others, seed=0)

    after = mixture.assign(others)
    assert len(mixture.weights) == 3
    assert (after < 3).all()
    assert mixture.label_stability == (after == before).mean() > 0.6


def test_a_saved_choice_is_loaded_with_its_size():
    embeddings, _ = blobs()
    chosen = fitted(embeddings, n_clusters="auto")
    loaded = Mixture("auto", 5)

    loaded.load_state_dict(chosen.state_dict())

    assert np.array_equal(loaded.assign(embeddings), chosen.assign(embeddings))


def test_calibration_flags_a_twentieth():
    embeddings, _ = blobs(2000)
    mixture = fitted(embeddings)

    mixture.calibrate(embeddings)

    is_flagged = likelihoods(mixture, embeddings) < mixture.ood_threshold
    assert is_flagged.double().mean() == 0.05


def test_a_refit_forgets_the_threshold():
    """It was another mixture's."""
    embeddings, _ = blobs()
    mixture = fitted(embeddings)
    assert mixture.ood_threshold.isnan()
    mixture.calibrate(embeddings)

    mixture.refit(embeddings, seed=0)

    assert mixture.ood_threshold.isnan()


def test_a_permuted_fit_is_put_back(monkeypatch):
    embeddings, _ = blobs()
    mixture = fitted(embeddings)
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
    embeddings, blob = blobs()
    mixture = fitted(embeddings[blob <= 1])
    moved = embeddings[:, ::-1] * 5 + 100

    mixture.refit(moved, seed=0)

    assert (np.bincount(mixture.assign(moved), minlength=4) > 60).all()


def test_a_refit_starts_from_the_previous_fit(monkeypatch):
    """In whatever units the new embeddings are standardised, the start has the old posteriors."""
    embeddings, blob = blobs(spread=1.0)
    mixture = fitted(embeddings)
    others = embeddings[blob > 0]
    before = mixture.log_joint(torch.from_numpy(others)).softmax(1).numpy()
    maximize = Mixture._maximize
    starts = []

    def remember_start(self, k, z, seed, **start):
        starts.append(deepcopy((z, start)))
        return maximize(self, k, z, seed, **start)

    monkeypatch.setattr(Mixture, "_maximize", remember_start)
    mixture.refit(others, seed=0)

    ((z, start),) = starts
    oracle = GaussianMixture(4)
    oracle.weights_ = start["weights_init"]
    oracle.means_ = start["means_init"]
    oracle.precisions_cholesky_ = np.linalg.cholesky(start["precisions_init"])
    assert np.allclose(oracle.predict_proba(z), before, atol=1e-6)


def test_a_fit_is_the_same_for_the_same_seed():
    embeddings, _ = blobs(spread=1.0)
    first = Mixture(6, 5)
    second = Mixture(6, 5)

    for mixture in (first, second, first, second):
        mixture.refit(embeddings, seed=3)

    for a, b in zip(first.state_dict().values(), second.state_dict().values()):
        assert torch.equal(a.nan_to_num(), b.nan_to_num())


def test_fewer_images_than_clusters_are_refused():
    with pytest.raises(ValueError, match="--n_clusters 8 needs at least 8 training images, got 5"):
        Mixture(8, 3).refit(np.zeros((5, 3)), seed=0)


@pytest.mark.parametrize("value", (0.0, np.nan))
def test_embeddings_that_tell_nothing_are_refused(value):
    with pytest.raises(ValueError, match="cannot be fitted"):
        Mixture(2, 3).refit(np.full((50, 3), value), seed=0)
