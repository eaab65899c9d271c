"""The tables of recipe.py: lines of markdown from what judge.py gathers."""

from itertools import chain

import numpy as np

from ablations.arms import ARMS
from ablations.judge import judge_unknown, late_refits
from evaluation.report import spread
from training.checkpointing import changes_at_refits, changes_of_srcc, read_log

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
    "own": "classes that lead a cluster",
    "least_lift": "least share in the best cluster / base rate",
}
ONE_DIGIT = ("active", "effective", "own", "least_lift")
FIGURE_COLUMNS = {
    "srcc_without_pristine": "SRCC without pristine",
    "nmi": "NMI of clusters and types",
    "unknown": "AUROC of unknown types",
}
OTHER_ROWS = {
    "type_head": "the choices of redrawn_type's type head, as clusters",
    "brisque_svr": "BRISQUE's 36 features, support-vector regressor",
    "niqe_like": "distance of these features from pristine ones, untrained",
}


def quality_table(rows, against):
    judged = {name: row for name, row in rows.items() if "srcc" in row["runs"][0]}
    differences = [difference_cell(row["difference"]) for row in judged.values()]
    cells = zip(*names_and_whats(judged), *cells_of(judged, QUALITY_COLUMNS), differences)
    compared = f"without pristine, less `{against}`'s: over seeds [95 % over test images]"
    return markdown(["arm", "what it is", *QUALITY_COLUMNS.values(), compared], cells)


def cluster_table(rows):
    clustered = {name: row for name, row in rows.items() if "nmi" in row["runs"][0]}
    cells = zip(*names_and_whats(clustered), *cells_of(clustered, CLUSTER_COLUMNS))
    return markdown(["clusters of", "what it is", *CLUSTER_COLUMNS.values()], cells)


def names_and_whats(rows):
    """(names, what each is)"""
    return [f"`{name}`" for name in rows], [
        ARMS[name].what if name in ARMS else OTHER_ROWS[name] for name in rows
    ]


def cells_of(rows, columns):
    """[a column's cells, one a row]: mean ± std over seeds."""
    return [
        [cell(values, 1 if name in ONE_DIGIT else 3) for values in values_of(rows, name)]
        for name in columns
    ]


def markdown(titles, rows):
    """The lines of a table."""
    return [f"| {' | '.join(row)} |" for row in (titles, ["---"] * len(titles), *rows)]


def values_of(rows, name):
    """[the values of one column, a list for each row]."""
    if name == "stability":
        return [[row[name]] for row in rows.values()]
    values = [[run.get(name, np.nan) for run in row["runs"]] for row in rows.values()]
    return [[len(own) if isinstance(own, list) else own for own in of_arm] for of_arm in values]


def cell(values, digits):
    return "–" if np.isnan(values).all() else spread(values, digits)


def difference_cell(difference):
    if difference is None:
        return ""
    each, (low, high) = np.array(difference["each"]), difference["interval"]
    spread_of_seeds = f" ± {each.std(ddof=1):.3f}" if len(each) > 1 else ""
    return f"{each.mean():+.3f}{spread_of_seeds} [{low:+.3f}, {high:+.3f}]"


def refit_table(folders, epochs):
    """A row an arm of {arm: its folders}: what its refits cost and kept, and how far clusters ran empty between them,
    by a cluster loss or because embeddings moved. Where the cluster loss has no weight, refits change nothing in the
    training: redrawn_type is the same run without refits."""
    titles = ("refits of", "fewest active clusters of validation", "worst change of validation SRCC",
              "mean change, less `redrawn_type`'s in the same epochs",
              "share of images kept, second half: mean (least)",
              "log-likelihood less a fresh fit's, nats an image: mean (least)")  # fmt: skip
    lines = []
    for arm, runs in folders.items():
        changes = [changes_at_refits(run) for run in runs]
        if not any(changes):
            continue
        extra = extra_changes(changes, folders["redrawn_type"]) if "redrawn_type" in folders else []
        kept, gaps = (
            list(chain(*of_runs)) for of_runs in zip(*[late_refits(run, epochs) for run in runs])
        )
        worst = min(change for of_run in changes for change in of_run.values())
        mean = f"{np.mean(extra):+.4f}" if extra else "–"
        cost = str(fewest_active(runs)), f"{worst:+.4f}", mean
        lines.append([f"`{arm}`", *cost, mean_and_least(kept, ".3f"), mean_and_least(gaps, "+.3f")])
    return markdown(titles, lines)


def fewest_active(folders):
    """Of the epochs of these runs, after the first fit: the fewest clusters that are active in validation."""
    return min(
        line["active_clusters"]
        for run in folders
        for line in read_log(run)
        if "active_clusters" in line
    )


def extra_changes(changes, folders):
    """The changes at refits [{epoch: change} of each seed] less those of other runs in the same epochs."""
    others = [changes_of_srcc(folder) for folder in folders]
    return [ours[epoch] - theirs[epoch] for ours, theirs in zip(changes, others) for epoch in ours]


def left_out_table(folders):
    """A row a type of {type: folders of runs trained without it}: what they make of it."""
    lines = []
    for name, runs in folders.items():
        found = [judge_unknown(run)[name] for run in runs]
        flagged = spread([100 * one["flagged"] for one in found], 1)
        aurocs, srccs = (spread([one[measure] for one in found]) for measure in ("auroc", "srcc"))
        lines.append([f"`{name}`", aurocs, flagged, srccs])
    return markdown(["trained without", "AUROC of its images", "flagged, %", "SRCC inside"], lines)


def mean_and_least(values, form):
    return f"{np.mean(values):{form}} ({min(values):{form}})" if values else "–"


def own_table(rows, arms):
    """A row an arm: in how many seeds each class was the most frequent in the cluster that holds most of it."""
    types = list(
        dict.fromkeys(name for arm in arms for run in rows[arm]["runs"] for name in run["lifts"])
    )
    counts = [
        [sum(name in run["own"] for run in rows[arm]["runs"]) for name in types] for arm in arms
    ]
    lines = [[f"`{arm}`", *map(str, of_arm)] for arm, of_arm in zip(arms, counts)]
    return markdown([f"leads its cluster, of {len(rows[arms[0]]['runs'])} seeds", *types], lines)
