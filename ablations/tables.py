"""The tables of ablations.run: lines of Markdown from rows, as aggregate makes them.

They read no file, so they can be made again from the results' JSON.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ablations.unknown import unknown_cells
from ablations.variants import ABLATIONS
from benchmarks.timing import markdown
from evaluation.report import spread

Rows = dict[str, dict[str, Any]]  # {name: row}

QUALITY_COLUMNS = {
    "srcc": "SRCC",
    "srcc_without_pristine": "without pristine",
    "weakest": "inside the weakest type",
}
CLUSTER_COLUMNS = {
    "nmi": "NMI with the types",
    "stability": "ARI between seeds",
    "unknown": "AUROC of unknown types",
    "active": "active",
    "effective": "effective number",
    "own": "types that lead a cluster",
    "least_lift": "least share in the best cluster / base rate",
}
REFIT_TITLES = (
    "refits of",
    "fewest active clusters of validation",
    "worst change of validation SRCC",
    "mean change, less `redrawn_type`'s in the same epochs",
    "share of images kept, second half: mean (least)",
    "log-likelihood less a fit's from scratch, nats an image: mean (least)",
)
ONE_DIGIT = ("active", "effective", "own", "least_lift")
OTHER_ROWS = {
    "type_head": "the choices of redrawn_type's type head, as clusters",
    "brisque_svr": "BRISQUE's 36 features, support-vector regressor",
    "niqe_like": "distance of these features from pristine ones, untrained",
}


def quality_table(rows: Rows, against: str) -> list[str]:
    """Return a table of quality measures, and of differences from one ablation."""
    compared = f"without pristine, less `{against}`'s: over seeds [95 % over test images]"
    lines = []
    for name, row in rows.items():
        if "srcc" in row["runs"][0]:
            cells = measure_cells(row, QUALITY_COLUMNS)
            lines.append([*name_cells(name), *cells, difference_cell(row["difference"])])
    return markdown(["ablation", "what it is", *QUALITY_COLUMNS.values(), compared], lines)


def cluster_table(rows: Rows) -> list[str]:
    """Return a table of cluster measures."""
    lines = []
    for name, row in rows.items():
        if "nmi" in row["runs"][0]:
            lines.append([*name_cells(name), *measure_cells(row, CLUSTER_COLUMNS)])
    return markdown(["clusters of", "what it is", *CLUSTER_COLUMNS.values()], lines)


def name_cells(name: str) -> list[str]:
    """Return the cells that say what a row is."""
    known = name in ABLATIONS
    return [f"`{name}`", ABLATIONS[name].description if known else OTHER_ROWS[name]]


def measure_cells(row: dict[str, Any], columns: dict[str, str]) -> list[str]:
    """Return a row's cells: mean ± std over seeds."""
    cells = []
    for name in columns:
        values = values_of(row, name)
        is_missing = np.isnan(values).all()
        cells.append("–" if is_missing else spread(values, 1 if name in ONE_DIGIT else 3))
    return cells


def values_of(row: dict[str, Any], name: str) -> list[float]:
    """Return a measure of a row, for each seed; of a list its length, nan where it is missing."""
    if name == "stability":
        return [row[name]]
    values = [run.get(name, np.nan) for run in row["runs"]]
    return [len(value) if isinstance(value, list) else value for value in values]


def difference_cell(difference: dict[str, list[float]] | None) -> str:
    """Return a paired difference as text: mean ± std over seeds [interval]."""
    if difference is None:
        return ""
    each = np.array(difference["each"])
    low, high = difference["interval"]
    deviation = f" ± {each.std(ddof=1):.3f}" if len(each) > 1 else ""
    return f"{each.mean():+.3f}{deviation} [{low:+.3f}, {high:+.3f}]"


def refit_table(rows: Rows) -> list[str]:
    """Return a table of what refits cost and kept, and of how far clusters ran empty between them.

    Clusters run empty by a cluster loss, or because embeddings move. Where the cluster loss has no
    weight, refits change nothing in the training: redrawn_type is the same run without refits.
    """
    lines = []
    for name, row in rows.items():
        runs = row["runs"]
        if not any(run["refit_epochs"] for run in runs):
            continue
        worst = min(run["srcc_changes"][epoch - 1] for run in runs for epoch in run["refit_epochs"])
        extra = extra_changes(runs, rows["redrawn_type"]["runs"]) if "redrawn_type" in rows else []
        kept = [value for run in runs for value in run["late_kept"]]
        gaps = [value for run in runs for value in run["late_gaps"]]
        lines.append(
            [
                f"`{name}`",
                str(min(run["fewest_active"] for run in runs)),
                f"{worst:+.4f}",
                f"{np.mean(extra):+.4f}" if extra else "–",
                mean_and_least(kept, ".3f"),
                mean_and_least(gaps, "+.3f"),
            ]
        )
    return markdown(REFIT_TITLES, lines)


def extra_changes(runs: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> list[float]:
    """Return the changes at refits, less those of other runs in the same epochs."""
    extra = []
    for run, other in zip(runs, others):
        for epoch in run["refit_epochs"]:
            extra.append(run["srcc_changes"][epoch - 1] - other["srcc_changes"][epoch - 1])
    return extra


def mean_and_least(values: Sequence[float], form: str) -> str:
    """Return 'mean (least)' as text."""
    return f"{np.mean(values):{form}} ({min(values):{form}})" if values else "–"


def left_out_table(rows: Rows) -> list[str]:
    """Return a table of what runs make of the type that they, without_<type>, never saw."""
    lines = []
    for name, row in rows.items():
        left_out = name.removeprefix("without_")
        found = [run["unknown_by_type"][left_out] for run in row["runs"]]
        lines.append([f"`{left_out}`", *unknown_cells(found)])
    return markdown(["trained without", "AUROC of its images", "flagged, %", "SRCC inside"], lines)


def own_cluster_table(rows: Rows) -> list[str]:
    """Return a table: in how many seeds each type is the most frequent one of its main cluster."""
    seeds = max(len(row["runs"]) for row in rows.values())
    types = dict.fromkeys(
        name for row in rows.values() for run in row["runs"] for name in run["lifts"]
    )
    lines = []
    for ablation, row in rows.items():
        counts = [sum(name in run["own"] for run in row["runs"]) for name in types]
        lines.append([f"`{ablation}`", *map(str, counts)])
    return markdown([f"leads its cluster, of {seeds} seeds", *types], lines)
