"""A tested run's numbers as lines of text, from what metrics.json holds."""

import math

import numpy as np

TITLES = {
    "srcc": "SRCC",
    "plcc": "PLCC",
    "plcc_logistic": "PLCC, logistic",
    "krcc": "KRCC",
    "rmse": "RMSE",
    "mae": "MAE",
}
# What every version's metrics.json has to have to be shown.
METRICS = ("run", "checkpoint", "epoch", "trained_on", "references", "test_references", "photographs", "digest",
           "images", *TITLES, "without_pristine", "by_type", "clusters", "figures")  # fmt: skip


def table(metrics):
    """Lines: the measures with their 95 % intervals, with and without pristine images; each type; each cluster."""
    lines = [
        f"{metrics['run']} ({metrics['checkpoint']}.pt, epoch {metrics['epoch']}), trained on {metrics['trained_on']}",
        f"{metrics['images']} images of {metrics['test_references']} held-out references, {metrics['references']}",
        f"in brackets: 95 % bootstrap intervals over {_groups(metrics)}",
        "",
        f"{'':22}{'all images':28}without pristine",
    ]
    for name, title in TITLES.items():
        cells = [_with_interval(row, name) for row in (metrics, metrics["without_pristine"])]
        lines.append(f"{title:22}{cells[0]:28}{cells[1]}")
    lines += ["", f"{'type':22}{'SRCC':>7}{'RMSE':>8}{'images':>9}"]
    for name, row in metrics["by_type"].items():
        lines.append(
            f"{name:22}{_number(row['srcc']):>7}{_number(row['rmse'], 1):>8}{row['images']:>9}"
        )
    clusters = metrics["clusters"]
    active, effective = (
        f"{clusters['active']} of {len(clusters['names'])}",
        f"{clusters['effective']:.1f}",
    )
    counts = f"{active} clusters active, effective number {effective}"
    agreement = "  ".join(
        f"{title} {_number(clusters[name])}"
        for name, title in (("nmi", "NMI"), ("ari", "ARI"), ("purity", "purity"))
    )
    lines += ["", f"{counts};  with the true types: {agreement}"]
    lines += [f"  cluster {k}: {name}" for k, name in enumerate(clusters["names"])]
    return lines + ["", _unknown(metrics.get("unknown"))]


def _unknown(unknown):
    if unknown is None:
        return "tested before unknown distortions were flagged: test it again"
    if unknown["log_likelihood_below"] is None or math.isnan(unknown["log_likelihood_below"]):
        return "unknown distortions are not flagged: the run has not been trained to its end"
    threshold, flagged = unknown["log_likelihood_below"], 100 * unknown["flagged"]
    return f"flagged as an unknown distortion, log-likelihood below {threshold:.1f}: {flagged:.1f} % of these images"


def _groups(metrics):
    """What the bootstrap resampled: references, or the photographs that they are crops of."""
    photographs, references = metrics["photographs"], metrics["test_references"]
    return (
        "references"
        if photographs == references
        else f"the {photographs} photographs that they are crops of"
    )


def _with_interval(row, name):
    digits = 1 if name in ("rmse", "mae") else 3
    low, high = row[f"{name}_interval"]
    return f"{_number(row[name], digits)} [{_number(low, digits)}, {_number(high, digits)}]"


def _number(value, digits=3):
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def spread(values, digits=3):
    """'mean ± sample standard deviation'; of one value, the value."""
    values = np.array([np.nan if value is None else value for value in values], float)
    deviation = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{deviation}"
