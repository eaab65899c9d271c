"""The scripts as users run them, at a tiny size, in an empty folder."""

import csv
import json
import os
import re
import shutil
from math import nan

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from torch.optim.swa_utils import update_bn

import train_with_distortions
from distorted_dataset import DistortedImageDataset
from models import load_run
from references.sizes import NativeCrops
from references.sources import load_training_references
from test_with_viz import tell_what_is_replaced
from tests.helpers import ROOT, run_afresh, run_script
from tests.scripts.running import TINY, log_of, metrics_of, script, test_run, train
from training import checkpointing, loop
from utils.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow


def predictions_of(folder, name):
    """Return the rows of a tested run's predictions.csv."""
    path = folder / "experiments" / name / "visualizations" / "predictions.csv"
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_test_on_other_images_says_what_it_replaces(tmp_path, capsys):
    test = {"references": "here", "seed": 0}
    tell_what_is_replaced(tmp_path, test)  # there is none
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"test": test, "images": 12, "references": "folder here"}))
    tell_what_is_replaced(tmp_path, test)
    assert capsys.readouterr().out == ""

    tell_what_is_replaced(tmp_path, {**test, "seed": 1})

    line = capsys.readouterr().out
    assert line.startswith("this replaces the run's test on 12 images of folder here; copy ")


def test_a_run_leaves_the_files_of_its_readme(workplace):
    folder = workplace / "experiments" / "tiny"

    files = {path.name for path in folder.iterdir()}

    assert files == {
        "config.json",
        "lock",
        "log.jsonl",
        "best.pt",
        "last.pt",
        "last.prev.pt",
        "visualizations",
    }


def test_the_log_has_a_line_for_each_epoch(workplace):
    log = log_of(workplace, "tiny")

    assert [line["epoch"] for line in log] == [0, 1, 2]
    assert [line["refit"] for line in log] == [False, True, True]
    names = {"quality_loss", "cluster_loss", "type_loss", "srcc", "plcc"}
    assert names | {"active_clusters", "nmi", "kept"} <= log[2].keys()


def test_the_configuration_says_what_the_run_is(workplace):
    config = load_checkpoint(workplace / "experiments" / "tiny" / "best.pt")["config"]

    assert config["references"] == "photos"
    assert "demonstration" in config["references_name"]
    assert config["recipe"]["optimizer"] == "muon"
    assert "git_commit" in config


@pytest.mark.parametrize("name", ("best.pt", "last.pt"))
def test_checkpoints_are_tensors_and_plain_values(workplace, name):
    checkpoint = torch.load(workplace / "experiments" / "tiny" / name, weights_only=True)

    assert checkpoint["mixture"]["fitted"]


def test_testing_writes_metrics(workplace):
    metrics = metrics_of(workplace, "tiny")

    assert metrics["run"] == "tiny"
    assert metrics["images"] == 40
    assert "demonstration" in metrics["references"]
    measures = {"srcc", "srcc_interval", "plcc", "plcc_logistic", "krcc", "rmse", "mae", "digest"}
    assert measures <= metrics.keys()
    assert metrics["without_pristine"]["images"] == 30
    assert len(metrics["by_type"]) == 8
    assert metrics["types_not_measured"] == []
    assert metrics["clusters"].keys() == {"active", "effective", "nmi", "ari", "purity", "names"}
    assert metrics["unknown"].keys() == {"log_likelihood_below", "flagged"}


def test_testing_writes_figures(workplace):
    folder = workplace / "experiments" / "tiny" / "visualizations"
    figures = metrics_of(workplace, "tiny")["figures"]

    assert {path.name for path in folder.glob("*.png")} == set(figures)
    assert len(figures) == 10


def test_testing_writes_predictions(workplace):
    rows = predictions_of(workplace, "tiny")

    assert len(rows) == 40
    assert [row["type"] for row in rows].count("pristine") == 10
    assert all(0 <= float(row["predicted_quality"]) <= 100 for row in rows)


def test_testing_prints_a_table(workplace):
    output = (workplace / "test_output.txt").read_text()

    assert "SRCC" in output
    assert "cluster 7:" in output
    assert "predicted_vs_true.png" in output


def test_unknown_images_lie_below_the_threshold(workplace):
    unknown = metrics_of(workplace, "tiny")["unknown"]
    threshold = unknown["log_likelihood_below"]
    rows = predictions_of(workplace, "tiny")

    is_below = [float(row["log_likelihood"]) < threshold for row in rows]

    assert [row["unknown"] == "1" for row in rows] == is_below
    assert np.mean(is_below) == unknown["flagged"]
    output = (workplace / "test_output.txt").read_text()
    assert f"log-likelihood below {threshold:.1f}" in output


def test_the_number_of_clusters_is_chosen_and_explained(workplace):
    flags = "--n_clusters auto --type_loss_weight 0"

    output, _ = train(workplace, "chosen", flags)
    test_run(workplace, "chosen", "--test_samples 10 --skip_tsne")

    criterion = "lowest Bayesian information criterion"
    lines = [line for line in output.splitlines() if criterion in line]
    assert len(lines) == 4  # two refits, and the fits of last.pt and best.pt
    names = metrics_of(workplace, "chosen")["clusters"]["names"]
    assert len(names) == int(lines[-1].split()[0])


def test_a_finished_run_is_resumed_to_no_effect(workplace):
    flags = "--n_clusters auto --type_loss_weight 0 --epochs 2"
    train(workplace, "done", flags)
    log = log_of(workplace, "done")

    train(workplace, "done", f"{flags} --resume")

    assert log_of(workplace, "done") == log


def test_the_same_seed_gives_the_same_run(workplace):
    """In a process that shares nothing with the first one, and without the t-SNE figure."""
    train(workplace, "again", run=run_afresh)
    test_run(workplace, "again", "--test_samples 10 --skip_tsne", run=run_afresh)

    assert log_of(workplace, "again") == log_of(workplace, "tiny")
    first = metrics_of(workplace, "tiny")
    second = metrics_of(workplace, "again")
    for metrics in (first, second):
        del metrics["run"]
        del metrics["figures"]
    assert first == second
    assert not (workplace / "experiments/again/visualizations/tsne.png").exists()


def test_a_run_is_not_overwritten(workplace):
    before = log_of(workplace, "tiny")

    _, message = train(workplace, "tiny", status=1)

    last = message.strip().splitlines()[-1]
    assert last.startswith("error: experiments/tiny holds a run already; --resume goes on")
    assert log_of(workplace, "tiny") == before


def test_a_resumed_run_keeps_its_flags(workplace):
    command = "train_with_distortions.py --experiment_name tiny --resume --epochs 9"

    _, message = script(command, workplace, status=2)

    assert "--epochs 9 differs from the run's 3" in message


def test_best_is_the_last_epoch_near_the_highest_srcc(workplace, monkeypatch):
    """Within a hundredth, also after a resume. Scores are given; the fifth is an interruption."""
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(train_with_distortions, "seed_everything", torch.manual_seed)
    scores = iter((nan, 0.8, 0.793, 0.786, nan, KeyboardInterrupt, 0.788, 0.81, 0.802, 0.799))
    own_validate = train_with_distortions.validate
    own_save = checkpointing.save_checkpoint
    kept = []

    def give_score(*args):
        score = next(scores, None)
        if score is KeyboardInterrupt:
            raise score
        return own_validate(*args) | ({} if score is None else {"srcc": score})

    def save(path, state, previous):
        if path.name == "best.pt" and not state["finished"]:
            kept.append(state["epoch"])
        own_save(path, state, previous)

    monkeypatch.setattr(train_with_distortions, "validate", give_score)
    monkeypatch.setattr(checkpointing, "save_checkpoint", save)
    flags = f"--experiment_name ties {TINY} --batch_size 48 --epochs 9 --save_interval 0".split()
    with pytest.raises(KeyboardInterrupt):
        train_with_distortions.main(train_with_distortions.parse_args(flags))
    train_with_distortions.main(train_with_distortions.parse_args([*flags, "--resume"]))

    assert kept == [0, 1, 2, 6, 7]


def test_final_statistics_are_of_more_images_than_an_epochs(workplace):
    """Of all 320 images, not of 256; and no network is in last.pt twice."""
    train(workplace, "settled", "--train_samples 80 --batch_size 64 --epochs 1 --no-amp")
    folder = workplace / "experiments" / "settled"
    references, _ = load_training_references("photos", 80, 6, 16, "data", 0, crops=NativeCrops())
    dataset = DistortedImageDataset(
        references, distortions_per_image=3, flip=True, cutmix=True, recrop=True
    )
    batches = [images for images, _ in dataset.batches(loop.epoch_order(dataset, 0, 0), 64)]
    model = load_run(folder, device="cpu").model

    for name, count in (("last.prev.pt", 256), ("last.pt", 320), ("best.pt", 320)):
        update_bn(batches[: count // 64], model)
        kept = load_checkpoint(folder / name)["model"]
        for key, value in model.state_dict().items():
            assert torch.allclose(value, kept[key], atol=1e-5), (name, key)
    before = (folder / "last.prev.pt").stat().st_size
    assert (folder / "last.pt").stat().st_size < 1.01 * before


def test_statistics_are_measured_on_a_batch_at_least(workplace):
    references, _ = load_training_references("photos", 80, 6, 16, "data", 0)
    dataset = DistortedImageDataset(references, distortions_per_image=3)
    model = load_run(workplace / "experiments" / "tiny", device="cpu").model
    config = {"seed": 0, "batch_size": 64, "amp": False, "lr": 1e-3}

    loop.update_bn_statistics(model, dataset, 0, config, image_count=1)
    measured = model.backbone.bn1.running_mean.clone()
    images, _ = next(dataset.batches(loop.epoch_order(dataset, 0, 0), 64))
    update_bn([images], model)

    assert torch.allclose(model.backbone.bn1.running_mean, measured, atol=1e-5)


@pytest.mark.parametrize("epochs", (1, 5))
def test_the_shortest_runs_train_and_repeat(tmp_path, epochs):
    sizes = f"--train_samples 2 --val_samples 2 --batch_size 8 --image_size 8 --epochs {epochs}"

    train(tmp_path, "short", sizes, run=run_script)
    train(tmp_path, "again", sizes, run=run_afresh)

    assert len(log_of(tmp_path, "short")) == epochs
    assert log_of(tmp_path, "short") == log_of(tmp_path, "again")


def test_a_copied_run_goes_on(workplace):
    shutil.copytree(workplace / "experiments/tiny", workplace / "experiments/copied")

    output, _ = script("train_with_distortions.py --experiment_name copied --resume", workplace)

    assert output.endswith("test_with_viz.py --experiment experiments/copied\n")


def test_overwrite_replaces_a_run(workplace):
    train(workplace, "replaced", "--epochs 2")
    (workplace / "experiments/replaced/notes.txt").write_text("mine")

    train(workplace, "replaced", "--epochs 1 --overwrite")

    assert len(log_of(workplace, "replaced")) == 1
    assert (workplace / "experiments/replaced/notes.txt").exists()


@pytest.mark.parametrize(
    "flags, status, message",
    (
        ("--train_samples 0", 2, "'0' is not a whole number of 1 or more"),
        ("--distortions gaussian_blur,snow", 1, "--distortions: unknown distortion 'snow'"),
        ("--references nowhere", 1, "nowhere: no such folder"),
        ("--image_size 400", 1, "--image_size 400 is larger than the bundled photographs allow"),
        ("--n_clusters 500", 1, "--n_clusters 500 needs at least 500 training images, got 48"),
        ("--pretrained", 1, "--pretrained needs --stem imagenet"),
        ("--amp --image_size 8", 1, "bfloat16 gradients are not sound on a CPU at --image_size 8"),
        ("--resume", 2, "has no config.json, so no run to go on with"),
        ("--experiment_name ../up", 2, "must be a plain name"),
        ("--device warp", 1, "--device 'warp' is none of auto"),
    ),
)
def test_bad_flags_give_one_line_and_leave_nothing(tmp_path, flags, status, message):
    _, error = train(tmp_path, "bad", flags, status=status)

    assert message in error.strip().splitlines()[-1]
    assert "Traceback" not in error
    assert not (tmp_path / "experiments").exists()


def test_testing_a_run_that_is_not_there_says_what_to_do(tmp_path):
    _, error = test_run(tmp_path, "none", status=1)

    assert error.startswith("error: no run called 'experiments/none': looked in experiments/none")


def test_nothing_tested_yet_says_which_command_to_run(tmp_path):
    output, _ = script("display_viz_english.py", tmp_path)

    assert output.startswith("nothing tested yet; run: python ")
    assert output.endswith("train_with_distortions.py --experiment_name my_run\n")


def test_display_prints_the_newest_tested_run(workplace):
    os.utime(workplace / "experiments/tiny/visualizations/metrics.json")

    output, _ = script("display_viz_english.py", workplace)

    assert output.startswith("tiny (best.pt")
    assert "cluster 7:" in output
    assert "experiments/tiny/visualizations/predicted_vs_true.png" in output


def test_display_shows_table_and_figures_in_a_notebook(workplace):
    shutil.copy(ROOT / "display_viz_english.py", workplace)
    for package in ("utils", "evaluation"):  # all that showing a run needs
        shutil.copytree(ROOT / package, workplace / package)
    os.utime(workplace / "experiments/tiny/visualizations/metrics.json")
    cell = nbformat.v4.new_code_cell("%run display_viz_english.py")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    resources = {"metadata": {"path": str(workplace)}}

    NotebookClient(notebook, timeout=120, resources=resources).execute()

    outputs = notebook.cells[0].outputs
    assert "cluster 7:" in outputs[0]["text"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 10


def test_a_run_is_tested_on_other_references(workplace):
    flags = "--references photos --seed 5 --checkpoint last --test_samples 6"
    train(workplace, "elsewhere", "--epochs 1")

    test_run(workplace, "elsewhere", f"{flags} --distortions_per_image 2 --skip_tsne")

    metrics = metrics_of(workplace, "elsewhere")
    assert metrics["test_references"] == 6
    assert metrics["images"] == 18
    assert metrics["checkpoint"] == "last"
    assert metrics["digest"] != metrics_of(workplace, "tiny")["digest"]


def test_the_defaults_are_the_full_commands_values():
    args = train_with_distortions.parse_args(["--experiment_name", "resnet18_distorted"])

    full = {
        "backbone": "resnet18",
        "n_clusters": 8,
        "train_samples": 500,
        "val_samples": 100,
        "distortions_per_image": 5,
        "epochs": 50,
        "batch_size": 128,
        "lr": 1e-3,
        "refit_interval": 10,
        "cluster_loss_weight": 0.5,
    }
    assert {name: getattr(args, name) for name in full} == full


def test_flags_for_other_ways_to_train_work(tmp_path):
    flags = (
        "--distortions all --compose 3 --no-redistort --type_loss_weight 0 "
        "--cluster_loss_weight 0 --no-amp --stem imagenet --embedding_dim 16 --n_clusters 3 "
        "--epochs 2"
    )

    train(tmp_path, "other", flags)
    test_run(tmp_path, "other", "--skip_tsne --test_samples 5")

    assert any(" + " in row["steps"] for row in predictions_of(tmp_path, "other"))
    for line in log_of(tmp_path, "other"):
        assert line.keys().isdisjoint({"type_loss", "cluster_loss"})


def test_a_last_batch_of_one_image_does_no_harm(tmp_path):
    """44 images in batches of 43."""
    train(tmp_path, "odd", "--image_size 8 --train_samples 11 --batch_size 43 --epochs 1")

    assert len(log_of(tmp_path, "odd")) == 1


def test_the_example_figure_is_drawn(tmp_path):
    output, _ = script("distorted_dataset.py", tmp_path)

    assert "11 rows of 8 distortions" in output
    assert (tmp_path / "distortion_examples.png").stat().st_size > 1e5


def test_the_example_figure_is_drawn_where_it_is_asked_for(tmp_path):
    flags = "--distortions rain,fog --seed 3 --output deep/er.png --references photos"

    script(f"distorted_dataset.py {flags}", tmp_path)

    assert (tmp_path / "deep/er.png").exists()


def test_an_unknown_kind_of_figure_is_refused(tmp_path):
    _, error = script("distorted_dataset.py --output figure.xyz", tmp_path, status=1)

    assert "--output figure.xyz: expected a file name that ends in one of" in error


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
        "-m benchmarks.distortion_speed",
        "-m benchmarks.throughput",
        "-m benchmarks.training_loop",
        "-m tests.stress.kill_and_resume",
        "-m tests.stress.fuzz_images",
    ),
)
def test_help_explains_every_flag(name, tmp_path):
    """Each flag has a meaning, and a default unless it is required."""
    output, _ = script(f"{name} --help", tmp_path, run=run_afresh)

    usage, options = output.split("options:")
    for entry in re.split(r"\n  (?=-)", options)[1:]:
        flag, _, meaning = entry.partition("  ")
        first_name = flag.split()[0].strip(",")
        is_required = f"[{first_name}" not in usage
        assert meaning.strip() or "\n" in entry, f"{flag} is not explained"
        assert is_required or "default" in entry or flag.startswith("-h"), f"{flag}: no default"


def test_runs_are_summarized(workplace):
    shutil.copytree(workplace / "experiments" / "tiny", workplace / "experiments" / "twin")

    output, _ = script("summarize_runs.py experiments/tiny experiments/twin", workplace)

    assert f"| SRCC | {metrics_of(workplace, 'tiny')['srcc']:.3f} ± 0.000 |" in output
    assert "over a refit epoch" in output


def test_runs_with_other_test_images_are_not_summarized(workplace):
    other = workplace / "experiments" / "shifted"
    shutil.copytree(workplace / "experiments/tiny", other)
    path = other / "visualizations" / "metrics.json"
    path.write_text(re.sub(r'"digest": "\w+"', '"digest": "0"', path.read_text()))
    runs = "experiments/tiny experiments/shifted"

    _, error = script(f"summarize_runs.py {runs}", workplace, status=1)

    assert "different images" in error


def test_another_recipe_is_not_resumed(workplace):
    """Even where no checkpoint was written yet."""
    train(workplace, "other_recipe", "--epochs 1")
    folder = workplace / "experiments" / "other_recipe"
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"optimizer": "muon"', '"optimizer": "adamw"'))
    for name in ("last.pt", "last.prev.pt", "best.pt"):
        (folder / name).unlink(missing_ok=True)

    command = "train_with_distortions.py --experiment_name other_recipe --resume"
    _, error = script(command, workplace, status=1)

    assert "was begun with optimizer='adamw' in its recipe" in error
    assert '"optimizer": "adamw"' in config.read_text()
