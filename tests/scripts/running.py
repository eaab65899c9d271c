"""Run the scripts by their documented command lines, at a tiny size."""

import json

from tests.helpers import ROOT, run_script

TINY = (
    "--references photos --image_size 16 --train_samples 12 --val_samples 6 "
    "--distortions_per_image 3 --epochs 3 --batch_size 24 --refit_interval 1 --device cpu"
)


def script(command, folder, code=ROOT, status=0, run=run_script):
    """Run a documented command line in a folder, and return (stdout, stderr)."""
    name, *flags = command.removeprefix("python ").removeprefix("-m ").split()
    target = code / name if name.endswith(".py") else name
    ended, output, problem = run(target, flags, folder)
    assert ended == status, output + problem
    return output, problem


def train(folder, name, extra="", **options):
    """Train a tiny run."""
    command = f"train_with_distortions.py --experiment_name {name} {TINY} {extra}"
    return script(command, folder, **options)


def test_run(folder, name, extra="", **options):
    """Test a run on few images."""
    command = f"test_with_viz.py --experiment experiments/{name} {extra}"
    return script(command, folder, **options)


test_run.__test__ = False  # pytest would take it for a test


def log_of(folder, name):
    """Return the lines of a run's log, without timings."""
    lines = []
    for line in (folder / "experiments" / name / "log.jsonl").read_text().splitlines():
        values = json.loads(line)
        values.pop("images_per_second")
        lines.append(values)
    return lines


def metrics_of(folder, name):
    """Return a tested run's metrics.json."""
    path = folder / "experiments" / name / "visualizations" / "metrics.json"
    return json.loads(path.read_text())
