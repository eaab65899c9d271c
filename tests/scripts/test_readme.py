"""What README.md and docs/ show works as it stands."""

import re
import shutil
import subprocess
import sys

import pytest
import torch

from tests.helpers import ROOT, run_afresh
from tests.scripts.running import TINY, script, test_run, train

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAINING_COMMANDS = re.findall(r"^python (train_with_distortions.py .*)$", README, re.MULTILINE)


def code_blocks(page, heading):
    """Return the Python blocks under a heading of a page."""
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


@pytest.fixture
def copy_of_project(tmp_path):
    """Return a copy of the project, to add code to."""
    code = tmp_path / "project"
    left_out = (".git", ".venv", "experiments", "data", "__pycache__", "img", "results")
    shutil.copytree(ROOT, code, ignore=shutil.ignore_patterns(*left_out))
    return code


@pytest.mark.parametrize(
    "page, heading", (("README.md", "Add a distortion"), ("docs/distortions.md", "Your own"))
)
def test_a_pasted_distortion_obeys_every_law(copy_of_project, tmp_path, page, heading):
    """It also has an example figure, and a network is trained and tested on it."""
    (example,) = code_blocks((ROOT / page).read_text(encoding="utf-8"), heading)
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
    from PIL import Image

    Image.fromarray(crops.images[0].numpy()).save("photo.jpg")
    (block,) = code_blocks(README, "Score your own images")
    names: dict = {}

    exec(block.replace("experiments/resnet18_distorted", "experiments/tiny"), names)

    predictions = names["predictions"]
    assert 0 <= predictions.qualities[0] <= 100
    assert len(predictions.clusters) == len(predictions.unknown) == 1
    assert predictions.type_probabilities.shape == (1, 9)


def test_the_code_that_makes_a_dataset_runs(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    page = (ROOT / "docs" / "distortions.md").read_text(encoding="utf-8")
    (block,) = code_blocks(page, "In Python")
    image = torch.randint(0, 256, (40, 50, 3), dtype=torch.uint8)
    names = {"image": image.numpy()}

    exec(block, names)

    assert names["distorted"].shape == (40, 50, 3)
    assert names["image"].shape == (3, 64, 64)
    assert 0 <= names["quality"] <= 100


def test_the_code_that_changes_the_recipe_runs(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr("train_with_distortions.seed_everything", torch.manual_seed)
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (block,) = code_blocks(page, "Parts without a flag")
    small = '"--epochs", "1", ' + ", ".join(f'"{word}"' for word in TINY.split()[2:])

    exec(block.replace('"--epochs", "5"', small), {})

    config = (workplace / "experiments" / "no_flip" / "config.json").read_text()
    assert '"flip": false' in config


def test_the_documented_training_commands_are_found():
    assert len(TRAINING_COMMANDS) == 4


@pytest.mark.parametrize(
    "command", [*TRAINING_COMMANDS[:3], "train_with_distortions.py --experiment_name defaults"]
)
def test_a_documented_training_command_runs(tmp_path, command):
    """Flags are as documented; the sizes that follow override them."""
    name = re.search(r"--experiment_name (\w+)", command)[1]

    script(f"{command} {TINY} --train_samples 10 --epochs 2", tmp_path)
    test_run(tmp_path, name, "--skip_tsne --test_samples 5")
    output, _ = script("display_viz_english.py", tmp_path)

    assert output.startswith(name)
