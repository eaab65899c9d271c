"""What the benchmarks share: timing side by side, and the header of the files in results/."""

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import torch
from tqdm import tqdm

from training.config import git_commit
from utils.cli import command_line
from utils.device import describe_machine
from utils.files import write_json

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "pillow")


def median_seconds(
    candidates: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Time functions without arguments: {name: median seconds of a call}.

    A round calls each of them once, so that whatever else the machine does slows all of them. A
    round before the first one is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in tqdm(range(rounds + 1), desc="rounds", unit="round", leave=False):
        for name, function in candidates.items():
            wait_for(device)
            started = time.perf_counter()
            function()
            wait_for(device)
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def wait_for(device: torch.device | str) -> None:
    """Wait until a GPU has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def result_header(
    device: torch.device | str = "cpu", packages: Iterable[str] = ()
) -> dict[str, Any]:
    """Return how and where a result is made: the command, commit, machine, date and versions.

    packages are named beside PACKAGES and OpenCV.
    """
    versions = {name: version(name) for name in (*PACKAGES, *packages)}
    return {
        "command": command_line(),
        "commit": git_commit(),
        "machine": describe_machine(device),
        "date": date.today().isoformat(),
        "versions": {"python": platform.python_version(), "opencv": cv2.__version__, **versions},
    }


def write_result(
    folder: str | Path, name: str, header: dict[str, Any], numbers: dict[str, Any]
) -> None:
    """Write <folder>/<name>.json, the header first, and print where it is."""
    path = Path(folder) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**header, **numbers})
    print(f"\n{path}")


def markdown(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown; cells are text."""
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        lines.append(f"| {' | '.join(row)} |")
    return lines
