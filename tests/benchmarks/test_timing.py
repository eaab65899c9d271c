"""What the benchmarks share, and two times that the product has to keep."""

import subprocess
import sys
import time

import pytest
import torch

from benchmarks.timing import markdown, median_seconds, result_header
from tests.helpers import ROOT
from training.muon import ITERATIONS, orthogonalize

SCRIPTS = (
    "distorted_dataset",
    "train_with_distortions",
    "test_with_viz",
    "display_viz_english",
    "summarize_runs",
)
SLOW_IMPORTS = ("sklearn", "scipy.stats", "scipy.optimize", "matplotlib", "torchvision", "IPython")


def test_a_time_is_the_median_without_the_first_round():
    waits = iter((0.2, 0.01, 0.02, 0.1))
    candidates = {"sleep": lambda: time.sleep(next(waits)), "nothing": lambda: None}

    seconds = median_seconds(candidates, rounds=3)

    assert 0.02 <= seconds["sleep"] < 0.09
    assert seconds["nothing"] < 0.01


def test_a_header_says_how_where_and_when():
    header = result_header(packages=["kornia"])

    assert list(header) == ["command", "commit", "machine", "date", "versions"]
    assert header["machine"]["threads"] == torch.get_num_threads()
    assert header["versions"].keys() >= {"python", "torch", "numpy", "opencv", "kornia"}


def test_a_table_has_a_line_for_titles_rule_and_rows():
    lines = markdown(["a", "b"], [["1", "2"]])

    assert lines == ["| a | b |", "|---|---|", "| 1 | 2 |"]


def test_orthogonal_steps_take_a_few_matrix_products():
    """In bfloat16 where the CPU has none they would take over ten times as long."""
    matrix = torch.randn(128, 1152)

    def multiply():
        for _ in range(ITERATIONS):
            (matrix @ matrix.T) @ matrix

    candidates = {"step": lambda: orthogonalize(matrix), "products": multiply}
    seconds = median_seconds(candidates, rounds=9)

    assert seconds["step"] < 5 * seconds["products"]


@pytest.mark.slow
def test_help_waits_for_no_slow_import():
    found = f"[name for name in {SLOW_IMPORTS} if name in sys.modules]"
    code = f"import sys, {', '.join(SCRIPTS)}; print({found})"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert done.stdout.strip() == "[]", done
