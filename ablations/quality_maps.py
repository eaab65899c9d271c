"""How well quality maps find the part of a photograph that is distorted.

    python -m ablations.quality_maps --experiment resnet18_distorted --references path/to/photos
    python -m ablations.quality_maps --experiment NAME --references photos --gallery maps.jpg

One half, one quarter or a disc of each held-out photograph is distorted. AUROC is the chance that
a pixel inside it has a lower quality in Run.quality_map than one outside: 0.5 is guessing.
Several experiments, such as seeds, give mean ± std.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from ablations.photographs import choose_photographs, load_photograph, write_numbers
from benchmarks.timing import markdown
from distortions.apply import apply_distortion
from evaluation.map_figure import plot_quality_maps
from evaluation.report import spread
from models import Run, load_run
from references.photos import PHOTOS, load_photo, photos_of_split
from references.reading import shrink
from references.sources import resolve_source
from utils.cli import int_in_range, make_parser, run_script
from utils.drawing import default_style, save_figure
from utils.errors import UserError
from utils.runs import find_run

TYPES = ("gaussian_blur", "gaussian_noise", "jpeg_compression", "pixelation")
LEVELS = (0.6, 0.8, 1.0)
SHAPES = ("half", "quarter", "disc")
EVERY = 4  # of so many rows and columns of pixels, one is counted


class Case(NamedTuple):
    """A photograph of which a part is distorted."""

    image: np.ndarray  # (H, W, 3) uint8
    is_distorted: np.ndarray  # (H, W) bool
    type: str
    level: float
    shape: str


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--experiment", nargs="+", required=True, help="names or folders of runs of these types")
    add("--references", required=True, help="a folder of photographs with a test part, or 'photos'")
    add("--images", type=int_in_range(1), default=12, help="photographs, at most")
    add("--seed", type=int_in_range(0), default=0, help="of the places and of the distortions")
    add("--device", default="auto", help="as for train_with_distortions.py")
    add("--output", help="a JSON file for the numbers")
    add("--gallery", help="draw one case of each photograph to this image file, measure nothing")
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Measure maps and print a table, or draw some."""
    folders = [find_run(text) for text in args.experiment]
    runs = [load_run(folder, device=args.device) for folder in folders]
    for run, folder in zip(runs, folders):
        check_types(run, folder.name)
    photographs = held_out_photographs(runs, args.references, args.images)
    if args.gallery:
        draw_gallery(runs[0], photographs, args.seed, args.gallery)
        return
    measured = [measure(run, photographs, args.seed) for run in runs]
    print("\n".join(summarize(measured)))
    if args.output:
        numbers = {"photographs": len(photographs), "seed": args.seed, "runs": measured}
        write_numbers(args.output, folders, numbers, runs[0].device)


def check_types(run: Run, name: str) -> None:
    """Raise UserError, with the run's name, where it was not trained on these types."""
    missing = sorted(set(TYPES) - set(run.config["types"]))
    if missing:
        raise UserError(
            f"--experiment {name}: the run was not trained on {', '.join(missing)}, which maps are "
            "measured with; give another run"
        )


def held_out_photographs(runs: Sequence[Run], references: str, count: int) -> list[np.ndarray]:
    """Return at most so many photographs (H, W, 3) uint8 that no run was trained on.

    Their shorter side is the runs' working size at most.
    """
    working_size = min(run.config["working_size"] for run in runs)
    source, _ = resolve_source(references, "data")
    if source == "photos":
        chosen = set(range(len(PHOTOS)))
        for run in runs:
            if run.config["references"] == "photos":
                chosen &= set(photos_of_split("test", run.config["data_seed"]))
        return [shrink(load_photo(i), working_size) for i in sorted(chosen)[:count]]
    paths = choose_photographs(runs, references, count)
    return [load_photograph(path, working_size).numpy() for path in paths]


def measure(run: Run, photographs: list[np.ndarray], seed: int) -> list[dict[str, Any]]:
    """Return {"type", "level", "shape", "auroc"}: the mean over photographs of each kind."""
    values = defaultdict(list)
    count = len(photographs) * len(TYPES) * len(LEVELS) * len(SHAPES)
    with tqdm(total=count, desc="maps", unit="image", leave=False) as bar:
        for i, photograph in enumerate(photographs):
            for case in all_cases(photograph, (seed, i)):
                quality = run.quality_map(case.image).quality
                kind = (case.type, case.level, case.shape)
                values[kind].append(auroc(case.is_distorted, quality))
                bar.update()
    return [
        {"type": type_, "level": level, "shape": shape, "auroc": float(np.mean(of_kind))}
        for (type_, level, shape), of_kind in values.items()
    ]


def all_cases(photograph: np.ndarray, seeds: tuple[int, ...]) -> Iterator[Case]:
    """Yield a photograph with every type, level and shape, at places drawn from the seeds."""
    rng = np.random.default_rng(seeds)
    for name in TYPES:
        for level in LEVELS:
            for shape in SHAPES:
                yield distort_part(photograph, name, level, shape, rng)


def distort_part(
    photograph: np.ndarray, name: str, level: float, shape: str, rng: np.random.Generator
) -> Case:
    """Distort a part of a photograph (H, W, 3); rng draws its place."""
    height, width = photograph.shape[:2]
    is_distorted = draw_part(height, width, shape, rng)
    distorted, _ = apply_distortion(photograph, name, level, seed=int(rng.integers(2**31)))
    image = np.where(is_distorted[..., None], np.asarray(distorted), photograph)
    return Case(image, is_distorted, name, level, shape)


def draw_part(height: int, width: int, shape: str, rng: np.random.Generator) -> np.ndarray:
    """Return (H, W) bool: a half, a quarter in a corner, or a disc anywhere inside.

    The disc's radius is a quarter to a third of the shorter side.
    """
    rows, columns = np.mgrid[:height, :width]
    if shape == "disc":
        radius = rng.uniform(1 / 4, 1 / 3) * min(height, width)
        top = rng.uniform(radius, height - radius)
        left = rng.uniform(radius, width - radius)
        return (rows - top) ** 2 + (columns - left) ** 2 < radius**2
    is_upper = (rows < height // 2) == bool(rng.integers(2))
    is_left = (columns < width // 2) == bool(rng.integers(2))
    if shape == "quarter":
        return is_upper & is_left
    return is_upper if rng.integers(2) else is_left


def auroc(is_distorted: np.ndarray, quality: np.ndarray) -> float:
    """Return the chance that a distorted pixel's quality is below another's, (H, W) each."""
    labels = is_distorted[::EVERY, ::EVERY].ravel()
    return float(roc_auc_score(labels, -quality[::EVERY, ::EVERY].ravel()))


def summarize(measured: Sequence[list[dict[str, Any]]]) -> list[str]:
    """Return a table of mean AUROC: a line for each type, columns for shapes and levels.

    measured holds what `measure` returned for each run. The first column is mean ± std over runs.
    """
    columns: list[dict[str, Any]] = [{}]
    columns += [{"shape": shape} for shape in SHAPES]
    columns += [{"level": level} for level in LEVELS]
    lines = []
    for name in (*TYPES, None):
        of_type = {} if name is None else {"type": name}
        of_runs = [
            [mean_auroc(rows, {**of_type, **column}) for rows in measured] for column in columns
        ]
        cells = [spread(of_runs[0]), *(f"{np.mean(values):.3f}" for values in of_runs[1:])]
        lines.append([name or "all", *cells])
    titles = ["AUROC", "all", *SHAPES, *(f"level {level}" for level in LEVELS)]
    return markdown(titles, lines)


def mean_auroc(rows: list[dict[str, Any]], values: dict[str, Any]) -> float:
    """Return the mean of the rows that have these values."""
    return float(np.mean([row["auroc"] for row in rows if values.items() <= row.items()]))


def draw_gallery(run: Run, photographs: list[np.ndarray], seed: int, path: str) -> None:
    """Draw a case of each photograph, with a type, level and shape of its own."""
    images = []
    regions = []
    captions = []
    maps = []
    for i, photograph in enumerate(tqdm(photographs, desc="maps", unit="image", leave=False)):
        name = TYPES[i % len(TYPES)]
        shape = SHAPES[i % len(SHAPES)]
        level = LEVELS[(i + 1) % len(LEVELS)]
        case = distort_part(photograph, name, level, shape, np.random.default_rng((seed, i)))
        images.append(case.image)
        regions.append(case.is_distorted)
        maps.append(run.quality_map(case.image))
        captions.append(f"{name.replace('_', ' ')}, level {level}, in a {shape}")
    with default_style():
        figure = plot_quality_maps(images, maps, captions, regions=regions)
    save_figure(figure, path)
    print(path)


if __name__ == "__main__":
    run_script(main, parse_args)
