"""What a refit of the mixture costs, and what --gmm_samples changes.

    python benchmarks/refit.py --references path/to/images
    python benchmarks/refit.py --references path/to/images --epochs 10 --images 1000 3000

Trains a run and tells which share of its time went to fitting mixtures (the fit alone, without the network's forwards).
Then the clusters of a fit to a sample are compared with those of a fit to everything, on embeddings of the run's
training images, distorted anew --redrawn times. Last, times against the number of images, dimensions and clusters: of
a fit that starts from the last one, to a mixture of Gaussians whose means have moved since by a third of a deviation.
They are told as multiples of the default's: 3000 images, 32 dimensions, 8 clusters.
"""

import argparse
import copy
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the project's modules

import numpy as np
from sklearn.metrics import adjusted_rand_score
from spans import Spans, flags_of, run
from timing import tell
from tqdm import tqdm

import train_with_distortions as script
import training
from command_line import HelpFormatter, run_script, whole
from models.mixture import Mixture
from models.run import choose_device

DEFAULT = 3000, 32, 8  # images, dimensions, clusters
DIMENSIONS, CLUSTERS = (16, 32, 64), (8, 12, 24)
SPREAD, MOVED = 4.0, 1 / 3  # standard deviations: between the means of clusters, and of each since the last fit
UNSEEN = 10_000  # epochs are drawn from here


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--references", default="photos", help="as for train_with_distortions.py")
    add("--device", default="auto", help="as for train_with_distortions.py")
    add("--epochs", type=whole(2), default=50, help="of the run")
    add("--flags", default="", help='further flags of train_with_distortions.py: --flags="--n_clusters 12"')
    add("--redrawn", type=whole(1), default=20, help="how often the training images are distorted anew")
    add("--images", type=whole(100), nargs="+", default=[1000, 3000, 10_000, 100_000, 1_000_000], help="to fit to")
    add("--rounds", type=whole(1), default=3, help="a time is the median of so many")
    add("--output", default="benchmarks/results", help="folder of refit.json")
    return parser.parse_args(argv)


def main(args):
    device, output = choose_device(args.device), Path(args.output).resolve()
    spans, ended = Spans(device), {}

    def finish(name, model, mixture, train, val, run_args):
        ended.update(model=model, mixture=mixture, train=train, run_args=run_args)
        return _finish(name, model, mixture, train, val, run_args)

    fit = spans.timed("fit", "models.mixture.Mixture.refit")
    began = time.perf_counter()
    run([*flags_of(args), f"--epochs={args.epochs}"],
        {"models.mixture.Mixture.refit": fit, "train_with_distortions.finish": finish})  # fmt: skip
    seconds, fits = time.perf_counter() - began, spans.calls["fit"]
    agreement = compare(**ended, redrawn=args.redrawn)
    by_images = {(n, *DEFAULT[1:]): time_fit(n, *DEFAULT[1:], args.rounds) for n in sorted({*args.images, DEFAULT[0]})}
    sample = ended["run_args"].gmm_samples
    by_size = {(sample, d, k): time_fit(sample, d, k, args.rounds) for d in DIMENSIONS for k in CLUSTERS}
    one = by_images[DEFAULT]
    tell(output, "refit", device,
         (["fits of a run", "share of its time"], [[str(len(fits)), f"{sum(fits) / seconds:.2%}"]]),
         (["embeddings", "fitted to", "ARI with the fit to all"],
          [[str(agreement["images"]), str(agreement["sample"]), f"{agreement['ari']:.3f}"]]),
         (["images", "time of a fit"], [[str(n), f"{value / one:.1f}"] for (n, *_), value in by_images.items()]),
         ([f"{sample} images, dimensions", *(f"{k} clusters" for k in CLUSTERS)],
          [[str(d), *(f"{by_size[sample, d, k] / one:.1f}" for k in CLUSTERS)] for d in DIMENSIONS]),
         epochs=args.epochs, flags=args.flags, run_seconds=seconds, fit_seconds=fits, agreement=agreement,
         seconds=[[*key, value] for key, value in (by_images | by_size).items()])  # fmt: skip


_finish = script.finish


def compare(model, mixture, train, run_args, redrawn):
    """Refits to embeddings of redrawn training images, to all of them and to --gmm_samples (a third, where that is
    less): the adjusted Rand index of their clusters of all."""
    embeddings = embeddings_of(model, train, redrawn)
    sample = min(run_args.gmm_samples, len(embeddings) // 3)
    chosen = np.random.default_rng(run_args.seed).permutation(len(embeddings))[:sample]
    clusters = []
    for fitted_to in (embeddings, embeddings[chosen]):
        again = copy.deepcopy(mixture)
        again.refit(fitted_to, run_args.seed)
        clusters.append(again.assign(embeddings))
    return {"images": len(embeddings), "sample": sample, "ari": float(adjusted_rand_score(*clusters))}


def embeddings_of(model, train, redrawn):
    """(N × redrawn, D) of the training images, by the draws of so many epochs that the run did not have."""
    found = []
    for epoch in tqdm(range(redrawn), desc="embeddings", unit="epoch", leave=False):
        train.set_epoch(UNSEEN + epoch)
        found.append(training.predict(model, train)[1])
    return np.concatenate(found)


def time_fit(images, dimensions, clusters, rounds):
    """Median seconds of a refit to so many embeddings."""
    rng = np.random.default_rng(0)
    means = rng.normal(0, SPREAD / np.sqrt(2 * dimensions), (clusters, dimensions))
    before = drawn(rng, means, 100 * clusters)
    after = drawn(rng, means + rng.normal(0, MOVED / np.sqrt(dimensions), means.shape), images)
    fitted, seconds = Mixture(clusters, dimensions), []
    fitted.refit(before, 0)
    for _ in tqdm(range(rounds), desc=f"{images} images, {dimensions} dimensions, {clusters} clusters", leave=False):
        mixture = copy.deepcopy(fitted)
        began = time.perf_counter()
        mixture.refit(after, 0)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def drawn(rng, means, images):
    """(N, D) of Gaussians of deviation 1 about these means, as many of each."""
    return means[np.arange(images) % len(means)] + rng.normal(0, 1, (images, means.shape[1]))


if __name__ == "__main__":
    run_script(main, parse_args)
