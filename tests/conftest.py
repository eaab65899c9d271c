import os
import shutil
from tempfile import TemporaryDirectory

import pytest
import torch

from distorted_dataset import DistortedImageDataset
from references.sources import load_training_references


def pytest_configure(config):
    fonts = TemporaryDirectory()
    config.add_cleanup(fonts.cleanup)
    os.environ["MPLCONFIGDIR"] = (
        fonts.name
    )  # for matplotlib's cache, and without the user's own settings
    torch.set_num_threads(1)  # two workers share two cores
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory):
    """A folder that the tests of a module share, removed after them: runs are large."""
    folder = tmp_path_factory.mktemp("shared")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def crops():
    """240 references of 32×32 from the training photographs."""
    return load_training_references("photos", 240, 0, 32, "data", 0)[0]


@pytest.fixture
def dataset(crops):
    return DistortedImageDataset(crops, distortions_per_image=5, seed=0)
