"""A tested run's numbers as lines of text, from what metrics.json holds."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.results import LEAST_IMAGES, METRIC_TITLES

IN_POINTS = ("rmse", "mae")  # measures in points of quality, shown with one digit
AGREEMENT_TITLES = {"nmi": "NMI", "ari": "ARI", "purity": "purity"}


def table(metrics: dict[str, Any]) -> list[str]:
    """Return lines: the measures with intervals, each type, each cluster, and unknown images."""
    return [
        *_heading(metrics),
        "",
        *_measure_lines(metrics),
        "",
        *_type_lines(metrics["by_type"]),
        *_not_measured_lines(metrics.get("types_not_measured")),
        "",
        *_cluster_lines(metrics["clusters"]),
        "",
        _unknown_line(metrics.get("unknown")),
    ]


def _heading(metrics):
    run = f"{metrics['run']} ({metrics['checkpoint']}.pt, epoch {metrics['epoch']})"
    references = f"{metrics['test_references']} held-out references, {metrics['references']}"
    return [
        f"{run}, trained on {metrics['trained_on']}",
        f"{metrics['images']} images of {references}",
        f"in brackets: 95 % bootstrap intervals over {_resampled(metrics)}",
    ]


def _resampled(metrics):
    """Name what the bootstrap resampled: references, or the photographs that they are crops of."""
    photographs = metrics["photographs"]
    if photographs == metrics["test_references"]:
        return "references"
    return f"the {photographs} photographs that they are crops of"


def _measure_lines(metrics):
    lines = [f"{'':22}{'all images':28}without pristine"]
    for name, title in METRIC_TITLES.items():
        if name not in metrics:
            continue  # tested before there was this measure
        everything = _with_interval(metrics, name)
        distorted = _with_interval(metrics["without_pristine"], name)
        lines.append(f"{title:22}{everything:28}{distorted}")
    return lines


def _type_lines(by_type):
    width = max(22, *(len(name) + 2 for name in by_type)) if by_type else 22
    lines = [f"{'type':{width}}{'SRCC':>7}{'RMSE':>8}{'images':>9}"]
    for name, row in by_type.items():
        measures = f"{_number(row['srcc']):>7}{_number(row['rmse'], 1):>8}"
        lines.append(f"{name:{width}}{measures}{row['images']:>9}")
    return lines


def _not_measured_lines(names):
    """Return a line on types that are not in the table; none where there are no such types."""
    if not names:
        return []
    return [f"not shown, with fewer than {LEAST_IMAGES} images: {', '.join(names)}"]


def _cluster_lines(clusters):
    names = clusters["names"]
    counts = (
        f"{clusters['active']} of {len(names)} clusters active, "
        f"effective number {clusters['effective']:.1f}"
    )
    agreement = "  ".join(
        f"{title} {_number(clusters[name])}" for name, title in AGREEMENT_TITLES.items()
    )
    lines = [f"{counts};  with the true types: {agreement}"]
    for k, name in enumerate(names):
        lines.append(f"  cluster {k}: {name}")
    return lines


def _unknown_line(unknown):
    if unknown is None:
        return "tested before unknown distortions were flagged: test it again"
    threshold = unknown["log_likelihood_below"]
    if threshold is None or math.isnan(threshold):
        return "unknown distortions are not flagged: the run has not been trained to its end"
    flagged = 100 * unknown["flagged"]
    return (
        f"{flagged:.1f} % of these images are flagged as an unknown distortion "
        f"(log-likelihood below {threshold:.1f})"
    )


def _with_interval(measures, name):
    digits = 1 if name in IN_POINTS else 3
    low, high = measures[f"{name}_interval"]
    interval = f"[{_number(low, digits)}, {_number(high, digits)}]"
    return f"{_number(measures[name], digits)} {interval}"


def _number(value, digits=3):
    is_missing = value is None or math.isnan(value)
    return "–" if is_missing else f"{value:.{digits}f}"


def spread(values: Sequence[float | None], digits: int = 3) -> str:
    """Return 'mean ± sample standard deviation'; of one value, the value."""
    numbers = np.array([np.nan if value is None else value for value in values], float)
    mean = f"{numbers.mean():.{digits}f}"
    if len(numbers) == 1:
        return mean
    return f"{mean} ± {numbers.std(ddof=1):.{digits}f}"
