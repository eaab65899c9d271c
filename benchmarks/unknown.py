"""What a run does not know: how well the mixture's log-likelihood tells distortions that were never trained on.

    python benchmarks/unknown.py experiments/resnet18_distorted
    python benchmarks/unknown.py experiments/full_seed0 experiments/full_seed1 experiments/full_seed2

The runs must have been tested: test_with_viz.py wrote the log-likelihoods of the known distortions. Several runs are
averaged. AUROC is the chance that an image of the unknown distortion is less likely than a known one: 0.5 is guessing.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from tested import held_out_references, read_columns

from command_line import HelpFormatter, run_script
from distorted_dataset import DistortedImageDataset
from distortions import DISTORTIONS
from metrics import srcc
from models import load_run
from models.checkpoint import write_json
from summarize_runs import read_metrics, spread


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("experiments", nargs="+", help="folders of tested runs")
    return parser.parse_args(argv)


def main(args):
    runs = [judge_unknown(folder) for folder in args.experiments]
    print("| unknown distortion | AUROC | flagged, % | SRCC inside |\n|---|---|---|---|")
    for name in dict.fromkeys(name for run in runs for name in run):
        rows = [run[name] for run in runs if name in run]
        flagged = spread([100 * row["flagged"] for row in rows], 1)
        cells = spread([row["auroc"] for row in rows]), flagged, spread([row["srcc"] for row in rows])
        print(f"| `{name}` | {' | '.join(cells)} |")


def judge_unknown(folder):
    """{name: {"auroc", "flagged", "srcc"}} for every registered distortion that the run was not trained on: its
    held-out references, each distorted once, against all images of the run's own test. Kept in unknown.json."""
    tested, figures = read_metrics(folder), Path(folder) / "visualizations"
    path = figures / "unknown.json"
    if path.is_file() and path.stat().st_mtime > (figures / "metrics.json").stat().st_mtime:
        return json.loads(path.read_text())
    run = load_run(folder, tested["checkpoint"])
    known, references = read_columns(folder, "log_likelihood", "type_probability"), held_out_references(run, tested)
    names = [name for name in DISTORTIONS if name not in run.config["types"]]
    # The type head's own flag is its largest probability (Hendrycks and Gimpel, "A baseline for detecting misclassified
    # and out-of-distribution examples in neural networks", ICLR 2017).
    found = {name: judge_one(name, run, references, *known) for name in names}
    write_json(path, found)
    return found


def judge_one(name, run, references, known_likelihoods, known_confidences):
    """The measures of one unknown distortion, against the log-likelihoods and the type head's confidences of images
    with known ones (N,)."""
    dataset = DistortedImageDataset(references, (name,), 1, run.config["data_seed"], "test", redistort=False)
    distorted = torch.nonzero(dataset.labels.type == 0)[:, 0]
    answers = run.predict(dataset.images(distorted))
    head = answers.type_probabilities.size > 0
    return {
        "auroc": auroc(known_likelihoods, answers.log_likelihoods),
        "auroc_of_type_head": auroc(known_confidences, answers.type_probabilities.max(1)) if head else None,
        "flagged": float(answers.unknown.mean()),
        "srcc": srcc(dataset.labels.quality[distorted].double().numpy(), answers.qualities),
    }


def auroc(known, unknown):
    """The chance that an unknown value is below a known one."""
    values = np.concatenate([known, unknown])
    return float(roc_auc_score(np.arange(len(values)) >= len(known), -values))


if __name__ == "__main__":
    run_script(main, parse_args)
