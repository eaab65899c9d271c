"""The images that a run is tested on."""

from distorted_dataset import DistortedImageDataset
from references.sources import load_test_references


def held_out_dataset(run, test, cache_dir=None):
    """(dataset, number of references left out because the run has seen them) of a models.run.Run. test tells which:
    {"references", "data_root", "seed", "samples", "distortions_per_image"}, as metrics.json keeps it."""
    config = run.config
    where = config["image_size"], test["data_root"], config["data_seed"], test["seed"]
    references, dropped = load_test_references(
        test["references"],
        test["samples"],
        *where,
        exclude=run.reference_digests,
        cache_dir=cache_dir,
    )
    how = (
        tuple(config["types"]),
        test["distortions_per_image"],
        test["seed"],
        "test",
        config["compose"],
    )
    return DistortedImageDataset(references, *how, redistort=False), dropped
