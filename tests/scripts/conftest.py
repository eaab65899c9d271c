import shutil

import pytest

from tests.scripts.running import test_run, train


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    """Return a folder with one trained and tested run called 'tiny'; tests may add others."""
    folder = tmp_path_factory.mktemp("workplace")
    train(folder, "tiny")
    output, _ = test_run(folder, "tiny", "--test_samples 10")
    (folder / "test_output.txt").write_text(output)
    yield folder
    shutil.rmtree(folder)  # runs are large
