"""benchmarks.throughput at a tiny size, and that both sides do the same work."""

import json

import pytest
import torch

from benchmarks import throughput
from tests.helpers import run_script
from utils.device import has_bfloat16

CPU = torch.device("cpu")
TINY = (
    "--image_size 16 --batch_size 4 --steps 1 --rounds 1 --no-compile --images 40 "
    "--photographs 2 --device cpu --output out"
)


@pytest.fixture(scope="module")
def result(module_folder):
    """The printed lines and the numbers of a tiny run."""
    status, output, problem = run_script("benchmarks.throughput", TINY.split(), module_folder)
    assert status == 0, output + problem
    numbers = json.loads((module_folder / "out" / "throughput.json").read_text())
    return output.splitlines(), numbers


@pytest.mark.slow
def test_every_way_of_a_step_has_a_row(result):
    lines, numbers = result
    rates = {name: row["images_per_second"] for name, row in numbers["training"].items()}

    assert len(rates) == (4 if has_bfloat16(CPU) else 2)
    for name, rate in rates.items():
        start = f"| {name} | {rate:.1f} | {rate / min(rates.values()):.2f} |"
        assert any(line.startswith(start) for line in lines)


@pytest.mark.slow
def test_prediction_is_timed_at_both_sizes(result):
    lines, numbers = result

    tiles = {name: row["tiles"] for name, row in numbers["prediction"].items()}
    assert tiles == {"16×16": 1, "480×320": 20 * 30}
    for name, row in numbers["prediction"].items():
        share = f"| {row['predict'] / row['network']:.0%} |"
        assert any(line.startswith(f"| {name} |") and line.endswith(share) for line in lines)


@pytest.mark.slow
def test_the_file_says_what_was_timed(result):
    _, numbers = result

    assert numbers["command"] == f"python -m benchmarks.throughput {TINY}"
    assert numbers["backbone"] == "resnet18"
    assert numbers["batch_size"] == 4


@pytest.mark.parametrize(
    "native, trained", [(True, "bfloat16, channels last"), (False, "float32, channels last")]
)
def test_the_last_way_is_trainings(monkeypatch, native, trained):
    monkeypatch.setattr(throughput, "has_bfloat16", lambda device: native)

    ways = throughput.ways_on(CPU, compiled=False)

    assert list(ways)[-1] == f"{trained} (training's way)"
    assert len(ways) == (4 if native else 2)


def test_trainings_way_is_timed_compiled_too():
    ways = throughput.ways_on(CPU, compiled=True)

    *_, training, compiled = ways.values()
    assert compiled == {**training, "compiled": True}
