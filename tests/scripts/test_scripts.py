"""The scripts as users run them: every documented command at a tiny size, in an empty folder."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from math import nan
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient
from torch.optim.swa_utils import update_bn

import train_with_distortions
from distorted_dataset import DistortedImageDataset
from models import load_run
from references.sources import load_training_references
from tests.helpers import run_afresh, run_script
from training import checkpointing, loop
from utils.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
TINY = "--references photos --image_size 16 --train_samples 12 --val_samples 6 --distortions_per_image 3 --epochs 3 --batch_size 24 --refit_interval 1 --device cpu"  # fmt: skip


def script(command, folder, code=ROOT, status=0, run=run_script):
    """Run a documented command line in a folder; returns (stdout, stderr)."""
    name, *flags = command.removeprefix("python ").removeprefix("-m ").split()
    ended, output, problem = run(code / name if name.endswith(".py") else name, flags, folder)
    assert ended == status, output + problem
    return output, problem


def train(folder, name, extra="", **options):
    return script(
        f"train_with_distortions.py --experiment_name {name} {TINY} {extra}", folder, **options
    )


def log_of(folder, name):
    lines = [
        json.loads(line)
        for line in (folder / "experiments" / name / "log.jsonl").read_text().splitlines()
    ]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


@pytest.fixture(scope="module")
def workplace(module_folder):
    """A folder with one trained and tested run called 'tiny'."""
    train(module_folder, "tiny")
    output, _ = script(
        "test_with_viz.py --experiment experiments/tiny --test_samples 10", module_folder
    )
    (module_folder / "test_output.txt").write_text(output)
    return module_folder


def test_a_run_leaves_what_its_readme_says(workplace):
    folder = workplace / "experiments" / "tiny"
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "lock",
        "log.jsonl",
        "best.pt",
        "last.pt",
        "last.prev.pt",
        "visualizations",
    }
    config = json.loads((folder / "config.json").read_text())
    assert config["references"] == "photos" and "demonstration" in config["references_name"]
    log = log_of(workplace, "tiny")
    assert [line["epoch"] for line in log] == [0, 1, 2] and [line["refit"] for line in log] == [
        False,
        True,
        True,
    ]
    assert {
        "quality_loss",
        "cluster_loss",
        "type_loss",
        "srcc",
        "plcc",
        "active_clusters",
        "nmi",
        "kept",
    } <= set(log[2])
    for name in ("best.pt", "last.pt"):
        assert torch.load(folder / name, weights_only=True)["mixture"]["fitted"]


def test_testing_writes_metrics_predictions_and_figures(workplace):
    folder = workplace / "experiments" / "tiny" / "visualizations"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (
        metrics["run"] == "tiny"
        and metrics["images"] == 40
        and "demonstration" in metrics["references"]
    )
    assert {
        "srcc",
        "srcc_interval",
        "plcc",
        "plcc_logistic",
        "krcc",
        "rmse",
        "mae",
        "digest",
    } <= set(metrics)
    assert metrics["without_pristine"]["images"] == 30 and len(metrics["by_type"]) == 8
    assert {"active", "effective", "nmi", "ari", "purity", "names"} == set(metrics["clusters"])
    assert {"log_likelihood_below", "flagged"} == set(metrics["unknown"])
    assert {path.name for path in folder.glob("*.png")} == set(metrics["figures"]) and len(
        metrics["figures"]
    ) == 10
    with open(folder / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40 and [row["type"] for row in rows].count("pristine") == 10
    assert all(0 <= float(row["predicted_quality"]) <= 100 for row in rows)
    output = (workplace / "test_output.txt").read_text()
    assert "SRCC" in output and "cluster 7:" in output and "predicted_vs_true.png" in output


def test_unknown_distortions_are_flagged_below_the_threshold(workplace):
    folder = workplace / "experiments" / "tiny" / "visualizations"
    unknown = json.loads((folder / "metrics.json").read_text())["unknown"]
    with open(folder / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    below = [float(row["log_likelihood"]) < unknown["log_likelihood_below"] for row in rows]
    assert [row["unknown"] == "1" for row in rows] == below and sum(below) / len(rows) == unknown[
        "flagged"
    ]
    assert (
        f"log-likelihood below {unknown['log_likelihood_below']:.1f}"
        in (workplace / "test_output.txt").read_text()
    )


def test_the_number_of_clusters_is_chosen_and_explained(workplace):
    output, _ = train(workplace, "chosen", "--n_clusters auto --type_loss_weight 0")
    lines = [
        line for line in output.splitlines() if "lowest Bayesian information criterion" in line
    ]
    assert len(lines) == 4  # two refits, and the fits of last.pt and best.pt
    output, _ = script(
        "test_with_viz.py --experiment experiments/chosen --test_samples 10 --skip_tsne", workplace
    )
    metrics = json.loads((workplace / "experiments/chosen/visualizations/metrics.json").read_text())
    assert len(metrics["clusters"]["names"]) == int(lines[-1].split()[0])
    log = log_of(workplace, "chosen")
    train(workplace, "chosen", "--n_clusters auto --type_loss_weight 0 --resume")
    assert log_of(workplace, "chosen") == log


def test_the_same_seed_gives_the_same_run(workplace):
    train(workplace, "again", run=run_afresh)
    assert log_of(workplace, "again") == log_of(workplace, "tiny")
    script(
        "test_with_viz.py --experiment experiments/again --test_samples 10 --skip_tsne",
        workplace,
        run=run_afresh,
    )
    first, second = (
        json.loads(
            (workplace / "experiments" / name / "visualizations" / "metrics.json").read_text()
        )
        for name in ("tiny", "again")
    )
    for metrics in (first, second):
        metrics.pop("run"), metrics.pop("figures")
    assert first == second
    assert not (workplace / "experiments/again/visualizations/tsne.png").exists()


def test_a_run_is_neither_overwritten_nor_mixed(workplace):
    before = (workplace / "experiments/tiny/log.jsonl").read_bytes()
    _, message = train(workplace, "tiny", status=1)
    assert (
        message.strip()
        .splitlines()[-1]
        .startswith("error: experiments/tiny holds a run already; --resume goes on")
    )
    _, message = script(
        "train_with_distortions.py --experiment_name tiny --resume --epochs 9", workplace, status=2
    )
    assert "--epochs 9 differs from the run's 3" in message
    assert (workplace / "experiments/tiny/log.jsonl").read_bytes() == before


def test_best_is_the_last_epoch_within_a_hundredth_of_the_highest_srcc_also_after_a_resume(
    workplace, monkeypatch
):
    """Scores are given; the run is interrupted after the fifth epoch."""
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(train_with_distortions, "seed_everything", torch.manual_seed)
    scores, kept = (
        iter((nan, 0.8, 0.793, 0.786, nan, KeyboardInterrupt, 0.788, 0.81, 0.802, 0.799)),
        [],
    )
    own_evaluate, own_save = train_with_distortions.validate, checkpointing.save_checkpoint

    def evaluate(*args):
        score = next(scores, None)
        if score is KeyboardInterrupt:
            raise score
        return own_evaluate(*args) | ({} if score is None else {"srcc": score})

    def save(path, state, previous):
        if path.name == "best.pt" and not state["finished"]:
            kept.append(state["epoch"])
        own_save(path, state, previous)

    monkeypatch.setattr(train_with_distortions, "validate", evaluate)
    monkeypatch.setattr(checkpointing, "save_checkpoint", save)
    flags = f"--experiment_name ties {TINY} --batch_size 48 --epochs 9 --save_interval 0".split()
    with pytest.raises(KeyboardInterrupt):
        train_with_distortions.main(train_with_distortions.parse_args(flags))
    train_with_distortions.main(train_with_distortions.parse_args([*flags, "--resume"]))
    assert kept == [0, 1, 2, 6, 7]


def test_what_is_kept_has_batch_norm_statistics_of_more_images_than_an_epochs_end_takes(workplace):
    """Of all 320, not of 256."""
    train(workplace, "settled", "--train_samples 80 --batch_size 64 --epochs 1 --no-amp")
    folder = workplace / "experiments" / "settled"
    references, _ = load_training_references("photos", 80, 6, 16, "data", 0)
    dataset = DistortedImageDataset(references, distortions_per_image=3, flip=True, cutmix=True)
    batches = [images for images, _ in dataset.batches(loop.epoch_order(dataset, 0, 0), 64)]
    model = load_run(folder, device="cpu").model
    for name, count in (("last.prev.pt", 256), ("last.pt", 320), ("best.pt", 320)):
        update_bn(batches[: count // 64], model)
        kept = load_checkpoint(folder / name)["model"]
        assert all(
            torch.allclose(value, kept[at], atol=1e-5) for at, value in model.state_dict().items()
        )
    before, after = ((folder / name).stat().st_size for name in ("last.prev.pt", "last.pt"))
    assert after < 1.01 * before  # no network is in it twice
    config = {"seed": 0, "batch_size": 64, "amp": False, "lr": 1e-3}
    loop.update_bn_statistics(
        model, dataset, 0, config, image_count=1
    )  # from which nothing can be learned
    settled = model.backbone.bn1.running_mean.clone()
    update_bn(batches[:1], model)
    assert torch.allclose(model.backbone.bn1.running_mean, settled, atol=1e-5)


@pytest.mark.parametrize("epochs", (1, 5))
def test_the_shortest_runs_train_and_repeat(tmp_path, epochs):
    for name, run in (("short", run_script), ("again", run_afresh)):
        sizes = f"--train_samples 2 --val_samples 2 --batch_size 8 --image_size 8 --epochs {epochs}"
        train(tmp_path, name, sizes, run=run)
    assert len(log_of(tmp_path, "short")) == epochs and log_of(tmp_path, "short") == log_of(
        tmp_path, "again"
    )


def test_a_copied_run_goes_on(workplace):
    shutil.copytree(workplace / "experiments/tiny", workplace / "experiments/copied")
    output, _ = script("train_with_distortions.py --experiment_name copied --resume", workplace)
    assert "test it: python test_with_viz.py --experiment experiments/copied" in output


def test_overwrite_replaces_a_run(workplace):
    train(workplace, "replaced", "--epochs 2")
    (workplace / "experiments/replaced/notes.txt").write_text("mine")
    train(workplace, "replaced", "--epochs 1 --overwrite")
    assert len(log_of(workplace, "replaced")) == 1
    assert (workplace / "experiments/replaced/notes.txt").exists()


@pytest.mark.parametrize("flags, message", (
    ("--train_samples 0", "'0' is not a whole number of 1 or more"),
    ("--distortions gaussian_blur,snow", "--distortions: unknown distortion 'snow'"),
    ("--references nowhere", "nowhere: no such folder"),
    ("--image_size 400", "--image_size 400 is larger than the bundled photographs allow"),
    ("--n_clusters 500", "--n_clusters 500 needs at least 500 training images, got 48"),
    ("--pretrained", "--pretrained needs --stem imagenet"),
    ("--amp --image_size 8", "--amp: bfloat16 gradients are not sound on a CPU at --image_size 8"),
    ("--resume", "has no config.json, so no run to go on with"),
    ("--experiment_name ../up", "must be a plain name"),
    ("--device warp", "--device 'warp' is none of auto"),
))  # fmt: skip
def test_bad_flags_give_one_line_and_leave_nothing(tmp_path, flags, message):
    status = (
        2
        if any(word in message for word in ("whole number", "no config.json", "plain name"))
        else 1
    )
    _, error = train(tmp_path, "bad", flags, status=status)
    last = error.strip().splitlines()[-1]
    assert message in last and "Traceback" not in error
    assert not (tmp_path / "experiments").exists()


def test_testing_a_run_that_is_not_there_says_what_to_do(tmp_path):
    _, error = script("test_with_viz.py --experiment experiments/none", tmp_path, status=1)
    assert error.startswith("error: experiments/none/best.pt does not exist; train first")


def test_nothing_tested_yet_says_which_command_to_run(tmp_path):
    output, _ = script("display_viz_english.py", tmp_path)
    assert (
        output
        == "nothing tested yet; run: python test_with_viz.py --experiment experiments/<name>\n"
    )


def test_display_prints_the_newest_tested_run_in_a_terminal(workplace):
    os.utime(workplace / "experiments/tiny/visualizations/metrics.json")
    output, _ = script("display_viz_english.py", workplace)
    assert output.startswith("tiny (best.pt") and "cluster 7:" in output
    assert "experiments/tiny/visualizations/predicted_vs_true.png" in output


def test_display_shows_table_and_figures_in_a_notebook(workplace):
    shutil.copy(ROOT / "display_viz_english.py", workplace)
    for package in ("utils", "evaluation", "distortions"):
        shutil.copytree(ROOT / package, workplace / package)
    os.utime(workplace / "experiments/tiny/visualizations/metrics.json")
    cell = nbformat.v4.new_code_cell("%run display_viz_english.py")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(workplace)}}
    ).execute()
    outputs = notebook.cells[0].outputs
    assert "cluster 7:" in outputs[0]["text"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 10


def test_a_run_is_tested_on_other_references(workplace):
    train(workplace, "elsewhere", "--epochs 1")
    script("test_with_viz.py --experiment experiments/elsewhere --references photos --seed 5 --checkpoint last --test_samples 6 --distortions_per_image 2 --skip_tsne", workplace)  # fmt: skip
    metrics = json.loads(
        (workplace / "experiments/elsewhere/visualizations/metrics.json").read_text()
    )
    first = json.loads((workplace / "experiments/tiny/visualizations/metrics.json").read_text())
    assert (
        metrics["test_references"] == 6
        and metrics["images"] == 18
        and metrics["digest"] != first["digest"]
        and metrics["checkpoint"] == "last"
    )


@pytest.mark.parametrize("command", (
    "train_with_distortions.py --experiment_name quick_test_distorted --train_samples 100 --val_samples 50 --distortions_per_image 3 --epochs 20 --batch_size 64",
    "train_with_distortions.py --experiment_name resnet18_distorted --backbone resnet18 --n_clusters 8 --train_samples 500 --val_samples 100 --distortions_per_image 5 --epochs 50 --batch_size 128 --lr 1e-3 --refit_interval 10 --cluster_loss_weight 0.5",
    "train_with_distortions.py --experiment_name resnet50_distorted_large --backbone resnet50 --n_clusters 12 --train_samples 1000 --val_samples 200 --distortions_per_image 8 --epochs 100 --batch_size 128",
    "train_with_distortions.py --experiment_name resnet18_distorted",
))  # fmt: skip
def test_the_documented_training_commands_run(tmp_path, command):
    """Flags as documented; the sizes that follow override them."""
    script(f"{command} {TINY} --train_samples 10 --epochs 2", tmp_path)
    name = re.search(r"--experiment_name (\w+)", command)[1]
    script(
        f"test_with_viz.py --experiment experiments/{name} --skip_tsne --test_samples 5", tmp_path
    )
    output, _ = script("display_viz_english.py", tmp_path)
    assert output.startswith(name)


def test_the_defaults_are_the_full_commands_values():
    args = train_with_distortions.parse_args(["--experiment_name", "resnet18_distorted"])
    full = dict(backbone="resnet18", n_clusters=8, train_samples=500, val_samples=100, distortions_per_image=5, epochs=50,
                batch_size=128, lr=1e-3, refit_interval=10, cluster_loss_weight=0.5)  # fmt: skip
    assert {name: getattr(args, name) for name in full} == full


def test_flags_for_other_ways_to_train_run(tmp_path):
    train(tmp_path, "other", "--distortions all --compose 3 --no-redistort --type_loss_weight 0 --cluster_loss_weight 0 "
                             "--no-amp --stem imagenet --embedding_dim 16 --n_clusters 3 --epochs 2")  # fmt: skip
    script("test_with_viz.py --experiment experiments/other --skip_tsne --test_samples 5", tmp_path)
    with open(tmp_path / "experiments/other/visualizations/predictions.csv") as file:
        assert any(" + " in row["steps"] for row in csv.DictReader(file))
    assert all(
        "type_loss" not in line and "cluster_loss" not in line for line in log_of(tmp_path, "other")
    )


def test_a_last_batch_of_one_image_does_no_harm(tmp_path):
    train(
        tmp_path, "odd", "--image_size 8 --train_samples 11 --batch_size 43 --epochs 1"
    )  # 44 images
    assert len(log_of(tmp_path, "odd")) == 1


def test_the_example_figure_is_drawn(tmp_path):
    output, _ = script("distorted_dataset.py", tmp_path)
    assert (
        "11 rows of 8 distortions" in output
        and (tmp_path / "distortion_examples.png").stat().st_size > 1e5
    )
    _, error = script("distorted_dataset.py --output figure.xyz", tmp_path, status=1)
    assert "--output figure.xyz: expected a file name that ends in one of" in error
    script(
        "distorted_dataset.py --distortions rain,fog --seed 3 --output deep/er.png --references photos",
        tmp_path,
    )
    assert (tmp_path / "deep/er.png").exists()


@pytest.mark.parametrize(
    "name",
    (
        "distorted_dataset.py",
        "train_with_distortions.py",
        "test_with_viz.py",
        "display_viz_english.py",
        "summarize_runs.py",
        "-m ablations.run",
        "-m ablations.unknown",
        "-m ablations.ceiling",
        "-m ablations.old_approach",
        "-m tests.stress.kill_and_resume",
        "-m benchmarks.distortion_speed",
        "-m tests.stress.fuzz_images",
        "-m benchmarks.inference",
        "-m benchmarks.step",
        "-m benchmarks.training_loop",
    ),
)
def test_help_explains_every_flag(name, tmp_path):
    output, _ = script(f"{name} --help", tmp_path, run=run_afresh)  # which finds what it imports
    options = output[output.index("options:") :]
    entries = re.split(r"\n  (?=-)", options)[1:]
    for entry in entries:
        flag, _, meaning = entry.partition("  ")
        assert meaning.strip() or "\n" in entry, f"{flag} is not explained"
        assert (
            "required" in usage_of(output, flag) or "default" in entry or flag.startswith("-h")
        ), f"{flag}: no default"


def usage_of(output, flag):
    """'required' where the usage line shows the flag without brackets."""
    name = flag.split()[0].strip(",")
    return "" if f"[{name}" in output else "required"


def test_the_distortion_of_the_readme_works_as_it_stands(tmp_path):
    """Append the README's example to a copy of the project; then its laws, the example figure and training hold."""
    code = tmp_path / "project"
    shutil.copytree(
        ROOT,
        code,
        ignore=shutil.ignore_patterns(
            ".git", ".venv", "experiments", "data", "__pycache__", ".dev"
        ),
    )
    example = re.search(
        r"```python\n(@distortion.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )[1]
    name = re.search(r"def (\w+)", example)[1]
    assert example.count("\n") <= 10
    with open(code / "distortions/extra.py", "a") as file:
        file.write("\n\n" + example)
    script(
        f"distorted_dataset.py --distortions {name} --output {name}.png",
        tmp_path,
        code,
        run=run_afresh,
    )
    train(
        tmp_path,
        "mine",
        f"--distortions gaussian_blur,{name} --epochs 1",
        code=code,
        run=run_afresh,
    )
    test = "test_with_viz.py --experiment experiments/mine --skip_tsne --test_samples 5"
    script(test, tmp_path, code, run=run_afresh)
    laws = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-k",
        name,
        "tests/distortions/test_laws.py",
    ]
    done = subprocess.run(laws, cwd=code, capture_output=True, text=True)
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout


def test_runs_are_summarized_and_must_share_their_test_images(workplace):
    output, _ = script("summarize_runs.py experiments/tiny experiments/tiny", workplace)
    metrics = json.loads((workplace / "experiments/tiny/visualizations/metrics.json").read_text())
    assert f"| SRCC | {metrics['srcc']:.3f} ± 0.000 |" in output and "over a refit epoch" in output
    other = workplace / "experiments" / "shifted"
    shutil.copytree(workplace / "experiments/tiny", other)
    path = other / "visualizations" / "metrics.json"
    path.write_text(json.dumps({**metrics, "digest": "0"}))
    _, error = script("summarize_runs.py experiments/tiny experiments/shifted", workplace, status=1)
    assert "different images" in error


def test_the_code_of_the_readme_runs_as_it_stands(workplace, monkeypatch):
    text = (
        (ROOT / "README.md").read_text().split("## In your own code")[1].split("## How it works")[0]
    )
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(workplace)
    image = torch.randint(0, 256, (40, 50, 3), dtype=torch.uint8)
    names = {"images": image.permute(2, 0, 1)[None], "image": image.numpy()}
    for block in blocks:
        exec(block.replace("experiments/resnet18_distorted", "experiments/tiny"), names)
    assert 0 <= names["answer"].qualities[0] <= 100 and len(names["answer"].clusters) == 1
    assert names["image"].shape == (3, 64, 64) and 0 <= names["quality"] <= 100
