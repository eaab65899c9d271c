"""Settings of the whole test suite, and fixtures that several modules take."""

import os
import shutil
from collections import Counter
from tempfile import TemporaryDirectory

import pytest
import torch

from distorted_dataset import DistortedImageDataset
from references.sources import load_training_references

SLOW_MARKERS = ("slow", "distributed")


def pytest_configure(config):
    fonts = TemporaryDirectory()
    config.add_cleanup(fonts.cleanup)
    # For matplotlib's cache, and without the user's own settings.
    os.environ["MPLCONFIGDIR"] = fonts.name
    torch.set_num_threads(1)  # two workers share two cores
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start


def pytest_collection_modifyitems(items):
    """Begin with the files that have the most slow tests."""
    slow_tests = Counter(
        item.path for item in items if any(item.get_closest_marker(name) for name in SLOW_MARKERS)
    )
    items.sort(key=lambda item: -slow_tests[item.path])  # of equal files the order stays


@pytest.fixture(autouse=True)
def seeded():
    """Start each test from the same seed of torch."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory):
    """Make a folder that a module's tests share. It is removed after them: runs are large."""
    folder = tmp_path_factory.mktemp("shared")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def crops():
    """Load 240 references of 32×32 pixels from the training photographs."""
    return load_training_references("photos", 240, 0, 32, "data", 0)[0]


@pytest.fixture
def dataset(crops):
    """Draw five distortions for each of the crops: 1440 images."""
    return DistortedImageDataset(crops, distortions_per_image=5, seed=0)
