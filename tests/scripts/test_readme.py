"""What README.md and docs/ show works as it stands."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from PIL import Image

from tests.helpers import ROOT, run_afresh
from tests.scripts.running import TINY, script, test_run, train

pytestmark = pytest.mark.slow

PAGES = ("README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")))
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAINING_COMMANDS = re.findall(r"^python (train_with_distortions.py .*)$", README, re.MULTILINE)


# Where there is Python code, how many blocks of it a test below runs.
RUN_BLOCKS = {
    ("README.md", "Score your own images"): 2,
    ("README.md", "Add a distortion"): 1,
    ("docs/data.md", "Make `cifar10_subset` from CIFAR-10"): 2,
    ("docs/distortions.md", "Your own"): 1,
    ("docs/distortions.md", "In Python"): 1,
    ("docs/training.md", "Parts without a flag"): 1,
}


def sections(page):
    """Return {heading: text} of a page of the project."""
    text = (ROOT / page).read_text(encoding="utf-8")
    parts = [part.partition("\n") for part in text.split("\n## ")[1:]]
    return {heading: section for heading, _, section in parts}


def code_blocks(page, heading):
    """Return the Python blocks under a heading of a page, but for the cells of a notebook."""
    blocks = re.findall(r"```python\n(.*?)```", sections(page)[heading], re.DOTALL)
    return [block for block in blocks if not block.startswith(("!", "%"))]


def test_every_block_of_python_is_run():
    found = {}
    for page in PAGES:
        for heading in sections(page):
            if count := len(code_blocks(page, heading)):
                found[page, heading] = count

    assert found == RUN_BLOCKS


@pytest.fixture
def copy_of_project(tmp_path):
    """Return a copy of the project, to add code to."""
    code = tmp_path / "project"
    left_out = (".git", ".venv", "experiments", "data", "__pycache__", "img", "results")
    shutil.copytree(ROOT, code, ignore=shutil.ignore_patterns(*left_out))
    return code


def test_a_kernel_that_has_the_old_code_says_so(copy_of_project):
    """A distortion is pasted into its file while a notebook is open."""
    edit = (
        "from pathlib import Path\n"
        "extra = Path('distortions/extra.py')\n"
        f"extra.write_text(extra.read_text() + {code_blocks('README.md', 'Add a distortion')[0]!r})"
    )
    sources = ("%run distorted_dataset.py", edit, "%run distorted_dataset.py --distortions snow")
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells)
    resources = {"metadata": {"path": str(copy_of_project)}}

    NotebookClient(notebook, timeout=120, resources=resources, allow_errors=True).execute()

    said = str(notebook.cells[2].outputs)
    assert "unknown distortion 'snow'" in said
    assert "distortions/extra.py has changed since this Python process read it" in said
    assert "restart the kernel, or run the script with !" in said


@pytest.mark.parametrize(
    "page, heading", (("README.md", "Add a distortion"), ("docs/distortions.md", "Your own"))
)
def test_a_pasted_distortion_obeys_every_law(copy_of_project, tmp_path, page, heading):
    """It also has an example figure, and a network is trained and tested on it."""
    (example,) = code_blocks(page, heading)
    name = re.search(r"def (\w+)", example)[1]
    with open(copy_of_project / "distortions" / "extra.py", "a") as file:
        file.write("\n\n" + example)
    options = {"code": copy_of_project, "run": run_afresh}

    script(f"distorted_dataset.py --distortions {name} --output {name}.png", tmp_path, **options)
    train(tmp_path, "mine", f"--distortions gaussian_blur,{name} --epochs 1", **options)
    test_run(tmp_path, "mine", "--skip_tsne --test_samples 5", **options)

    laws = ["-p", "no:cacheprovider", "-k", name, "tests/distortions/test_laws.py"]
    command = [sys.executable, "-m", "pytest", *laws]
    done = subprocess.run(command, cwd=copy_of_project, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_the_code_that_scores_images_runs(workplace, monkeypatch, crops):
    monkeypatch.chdir(workplace)
    Image.fromarray(crops.images[0].numpy()).save("photo.jpg")
    scores, maps = code_blocks("README.md", "Score your own images")
    names: dict = {}

    exec(scores.replace("experiments/resnet18_distorted", "experiments/tiny"), names)
    exec(maps, names)

    predictions = names["predictions"]
    assert 0 <= predictions.qualities[0] <= 100
    assert len(predictions.clusters) == len(predictions.unknown) == 1
    assert predictions.type_probabilities.shape == (1, 9)
    assert names["quality_map"].quality.shape == (32, 32)
    assert Path("map.png").is_file()


def test_the_code_that_makes_a_dataset_runs(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    (block,) = code_blocks("docs/distortions.md", "In Python")
    image = torch.randint(0, 256, (40, 50, 3), dtype=torch.uint8)
    names = {"image": image.numpy()}

    exec(block, names)

    assert names["distorted"].shape == (40, 50, 3)
    assert names["image"].shape == (3, 64, 64)
    assert 0 <= names["quality"] <= 100


def test_the_code_that_changes_the_recipe_runs(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr("train_with_distortions.seed_everything", torch.manual_seed)
    (block,) = code_blocks("docs/training.md", "Parts without a flag")
    small = '"--epochs", "1", ' + ", ".join(f'"{word}"' for word in TINY.split()[2:])

    exec(block.replace('"--epochs", "5"', small), {})

    config = (workplace / "experiments" / "no_flip" / "config.json").read_text()
    assert '"flip": false' in config


class FakeCIFAR10:
    """CIFAR-10's 50,000 training images, of 2×2 pixels that hold their number."""

    def __init__(self, root, train, download):
        numbers = np.arange(50000)
        digits = np.stack([numbers // 256, numbers % 256, 0 * numbers], axis=1).astype(np.uint8)
        self.data = np.tile(digits[:, None, None], (1, 2, 2, 1))
        self.classes = ["cat", "dog"]
        self.targets = [number % 2 for number in numbers]


def read_number(folder, name):
    """Return the number of CIFAR-10's image that lies under this name."""
    (path,) = folder.glob(f"{name}_*.png")
    high, low, _ = Image.open(path).getpixel((0, 0))
    return 256 * high + low


def test_the_code_that_makes_cifar10_subset_runs(tmp_path, monkeypatch):
    """Of each batch of 10,000 images the first 1017; settings are all but the last batch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torchvision.datasets.CIFAR10", FakeCIFAR10)

    for block in code_blocks("docs/data.md", "Make `cifar10_subset` from CIFAR-10"):
        exec(block, {})

    counts = {}
    for name in ("cifar10_subset/train", "cifar10_subset/test", "settings/train", "settings/test"):
        counts[name] = len(list((tmp_path / name).iterdir()))
    assert list(counts.values()) == [4068, 1017, 3051, 1017]
    for name, number in (("0000", 0), ("1016", 1016), ("1017", 10000), ("4067", 31016)):
        assert read_number(tmp_path / "cifar10_subset" / "train", name) == number
    assert read_number(tmp_path / "cifar10_subset" / "test", "0000") == 40000
    assert read_number(tmp_path / "settings" / "test", "3051") == 30000


def test_the_documented_command_to_trains_are_found():
    assert len(TRAINING_COMMANDS) == 4


@pytest.mark.parametrize(
    "command", [*TRAINING_COMMANDS[:3], "train_with_distortions.py --experiment_name defaults"]
)
def test_a_documented_command_to_train_runs(tmp_path, command):
    """Flags are as documented; the sizes that follow override them."""
    name = re.search(r"--experiment_name (\w+)", command)[1]

    script(f"{command} {TINY} --train_samples 10 --epochs 2", tmp_path)
    test_run(tmp_path, name, "--skip_tsne --test_samples 5")
    output, _ = script("display_viz_english.py", tmp_path)

    assert output.startswith(name)
