"""What a run does not know: whether its mixture finds distortions that it was not trained on.

    python -m ablations.unknown experiments/resnet18_distorted
    python -m ablations.unknown experiments/full_seed0 experiments/full_seed1

The runs must have been tested. Several are averaged. AUROC is the chance that an image of the
unknown distortion is less likely than one of the test's own: 0.5 is guessing. Flagged is the share
of its images below the run's threshold, which flags 5 % of validation's images falsely.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from ablations.tested import tested_dataset
from benchmarks.timing import markdown
from distorted_dataset import DistortedImageDataset
from distortions.registry import select_types
from evaluation.metrics import srcc
from evaluation.report import spread
from evaluation.results import read_columns, read_metrics
from models import load_run
from utils.cli import make_parser, run_script
from utils.files import null_to_nan, read_json, write_json
from utils.runs import find_run


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    parser.add_argument("experiments", nargs="+", help="names or folders of tested runs")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Print a table with a row for each unknown distortion."""
    runs = [measure_unknown(find_run(text)) for text in args.experiments]
    names = dict.fromkeys(name for run in runs for name in run)
    rows = []
    for name in names:
        found = [run[name] for run in runs if name in run]
        rows.append([f"`{name}`", *unknown_cells(found)])
    print("\n".join(markdown(["unknown distortion", "AUROC", "flagged, %", "SRCC inside"], rows)))


def unknown_cells(found: list[dict[str, float]]) -> list[str]:
    """Return a table's cells for what was measured of one distortion by several runs."""
    return [
        spread([values["auroc"] for values in found]),
        spread([100 * values["flagged"] for values in found], 1),
        spread([values["srcc"] for values in found]),
    ]


def measure_unknown(folder: str | Path) -> dict[str, dict[str, float]]:
    """Measure every registered distortion that a run was not trained on: {name: measures}.

    The references of the run's test, each distorted once, are held against all images of that
    test. The measures are kept in the run's visualizations/unknown.json.
    """
    metrics = read_metrics(folder)
    visualizations = Path(folder) / "visualizations"
    path = visualizations / "unknown.json"
    names = [name for name in select_types("all") if name not in metrics["by_type"]]
    tested_at = (visualizations / "metrics.json").stat().st_mtime
    if path.is_file() and path.stat().st_mtime > tested_at:
        found = null_to_nan(read_json(path, "delete it, and it is made again"))
        if list(found) == names:
            return found
    found = predict_unknown(folder, metrics, names)
    write_json(path, found)
    return found


def predict_unknown(
    folder: str | Path, metrics: dict[str, Any], names: list[str]
) -> dict[str, dict[str, float]]:
    """Let a run score each of these distortions, and measure how well it finds them.

    Returns {name: {"auroc" of the log-likelihood, "auroc_of_type_head", "flagged": the share below
    the threshold, "srcc" inside}}. The type head says "unknown" by a small largest probability
    (Hendrycks and Gimpel, "A baseline for detecting misclassified and out-of-distribution examples
    in neural networks", ICLR 2017).
    """
    run = load_run(folder, metrics["checkpoint"])
    references = tested_dataset(run, metrics).references
    seed = metrics["test"]["seed"]
    log_likelihoods, confidences = read_columns(folder, "log_likelihood", "type_probability")
    found = {}
    for name in names:
        dataset = DistortedImageDataset(references, (name,), 1, seed, "test", redistort=False)
        distorted = (dataset.labels.main_type == 0).nonzero()[:, 0]
        quality = dataset.labels.quality[distorted].double().numpy()
        predictions = run.predict(dataset.images(distorted))
        probabilities = predictions.type_probabilities
        has_type_head = probabilities.size > 0
        found[name] = {
            "auroc": auroc(log_likelihoods, predictions.log_likelihoods),
            "auroc_of_type_head": auroc(confidences, probabilities.max(1))
            if has_type_head
            else np.nan,
            "flagged": float(predictions.unknown.mean()),
            "srcc": srcc(quality, predictions.qualities),
        }
    return found


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    """Return the chance that an unknown image's value is below a known one's."""
    values = np.concatenate([known, unknown]).astype(np.float32)
    is_unknown = np.arange(len(values)) >= len(known)
    return float(roc_auc_score(is_unknown, -values))


if __name__ == "__main__":
    run_script(main, parse_args)
