"""Write the tables of README.md and docs/ from the files in results/: python -m docs.make_tables

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. NAME is a file of results/,
perhaps with the part of it that the table shows: `full_command:quality`. `levels` is the table of
the default eight distortions, from the registry, and `kadid_levels` that of KADID-10k's.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ablations import human_cells, quality_maps, tables, whole_images
from distortions.registry import DISTORTIONS, LEVELS, select_types
from evaluation.report import IN_POINTS, spread
from evaluation.results import METRIC_TITLES

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/*.md")
HEADER = ("command", "commit", "machine", "date", "versions")
MARKED = re.compile(r"(<!-- table: ([\w:]+) -->\n).*?(<!-- end -->)", re.DOTALL)
LEVEL_TABLES = {"levels": "default", "kadid_levels": "kadid"}  # which --distortions each shows
NAMED_VERSIONS = ("python", "torch", "numpy", "opencv", "albumentations", "kornia")
LIBRARIES = {
    "albumentations": "albumentations",
    "kornia": "kornia",
    "opencv_loop": "OpenCV in a loop",
}
CLUSTER_TITLES = {
    "active": "active clusters, of {}",
    "effective": "effective number of clusters",
    "nmi": "NMI with the types and pristine",
    "ari": "ARI",
    "purity": "purity",
}


def main() -> None:
    """Write every table anew."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        page.write_text(with_tables(text), encoding="utf-8")


def pages() -> list[Path]:
    """Return the pages that may hold tables."""
    return [page for pattern in PAGES for page in sorted(ROOT.glob(pattern))]


def with_tables(text: str) -> str:
    """Return a page's text with every table written anew."""
    return MARKED.sub(lambda match: match[1] + table(match[2]) + match[3], text)


def table(name: str) -> str:
    """Return a table in Markdown, with its caption."""
    if name in LEVEL_TABLES:
        return "\n".join(level_lines(select_types(LEVEL_TABLES[name]))) + "\n"
    file, _, part = name.partition(":")
    result = read_result(ROOT / "results" / f"{file}.json")
    lines = PARTS[part](result) if part else markdown(result["columns"], result["rows"])
    return "\n".join([*lines, "", caption(result)]) + "\n"


def read_result(path: Path) -> dict[str, Any]:
    """Read a file of results/, and require its header."""
    result = json.loads(path.read_text(encoding="utf-8"))
    missing = [field for field in HEADER if field not in result]
    if missing:
        raise ValueError(f"{path} has no {missing[0]!r}; a result needs {', '.join(HEADER)}")
    return result


def caption(result: dict[str, Any]) -> str:
    """Return the line below a table: how, by which code, on what and when it was made."""
    made = [f"`{result['command']}`"]
    if "seeds" in result:
        plural = "seeds" if len(result["seeds"]) > 1 else "seed"
        made.append(f"{plural} {', '.join(map(str, result['seeds']))}")
    made.append(f"commit {result['commit'][:7]}")
    machine = result["machine"]
    if isinstance(machine, dict):
        machine = machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores"
    made.append(machine)
    named = [name for name in NAMED_VERSIONS if name in result["versions"]]
    made += [f"{name} {result['versions'][name]}" for name in named]
    made.append(result["date"])
    title = f"{result['title']}. " if "title" in result else ""
    return f"*{title}{', '.join(made)}.*"


def quality_lines(result: dict[str, Any]) -> list[str]:
    """Return the measures of quality, mean ± std over runs."""
    runs = result["runs"]
    rows = []
    for name, title in METRIC_TITLES.items():
        digits = 1 if name in IN_POINTS else 3
        everything = spread([run[name] for run in runs], digits)
        distorted = spread([run["without_pristine"][name] for run in runs], digits)
        rows.append([title, everything, distorted])
    return markdown(["", "all images", "without pristine"], rows)


def type_lines(result: dict[str, Any]) -> list[str]:
    """Return SRCC inside each type, from the best to the worst."""
    runs = result["runs"]
    values = {}
    for name in runs[0]["by_type"]:
        values[name] = [run["by_type"][name]["srcc"] for run in runs]
    order = sorted(values, key=lambda name: -sum(values[name]))
    return markdown(["SRCC inside", ""], [[f"`{name}`", spread(values[name])] for name in order])


def cluster_lines(result: dict[str, Any]) -> list[str]:
    """Return the measures of clusters."""
    runs = result["runs"]
    clusters = len(runs[0]["clusters"]["names"])
    rows = []
    for name, title in CLUSTER_TITLES.items():
        digits = 1 if name in ("active", "effective") else 3
        rows.append(
            [title.format(clusters), spread([run["clusters"][name] for run in runs], digits)]
        )
    worst = min(run["worst_change_at_refit"] for run in runs)
    rows.append(["worst change of validation SRCC over a refit epoch", f"{worst:+.3f}"])
    if all("late_stability" in run for run in runs):
        shares = [run["late_stability"] for run in runs]
        rows.append(["share of images that keep their cluster at a late refit", spread(shares)])
    return markdown(["clusters", ""], rows)


def speed_lines(result: dict[str, Any]) -> list[str]:
    """Return how many times as long other libraries take, by size and number of threads."""
    rows = []
    for case in result["cases"]:
        height, width = case["size"]
        plural = "s" if case["threads"] > 1 else ""
        cells = [f"{case['compared'][library]['times_as_fast']:.2f}" for library in LIBRARIES]
        rows.append([f"{height}×{width}, {case['threads']} thread{plural}", *cells])
    return markdown(["", *LIBRARIES.values()], rows)


def people_lines(result: dict[str, Any]) -> list[str]:
    """Return each of KADID-10k's types with people's opinions and a run's predictions."""
    return human_cells.type_lines(result["opinions"], result["runs"])


PARTS = {
    "quality": quality_lines,
    "types": type_lines,
    "clusters": cluster_lines,
    "speed": speed_lines,
    "ablations": lambda result: tables.quality_table(result["ablations"], result["against"]),
    "people": lambda result: human_cells.measure_lines(result["runs"]),
    "people_types": people_lines,
    "whole": lambda result: whole_images.measure_lines(result["runs"]),
    "whole_types": lambda result: whole_images.level_lines(result["runs"]),
    "maps": lambda result: quality_maps.summarize(result["runs"]),
}


def level_lines(types: Iterable[str]) -> list[str]:
    """Return the parameter of each of these distortions at each level."""
    rows = []
    for name in types:
        entry = DISTORTIONS[name]
        for i, values in enumerate(entry.tables):
            direction = f", {entry.directions[i]}" if entry.directions else ""
            title = f"`{name}`{direction}"
            numbers = [f"{value:g}" for value in values]
            rows.append([title, f"{entry.worst_quality:g}", entry.parameter, *numbers])
    columns = ["type", "worst quality", "parameter", *(f"{level:g}" for level in LEVELS)]
    return markdown(columns, rows)


def markdown(columns: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


if __name__ == "__main__":
    main()
