"""benchmarks.training_loop at a tiny size, and that a bare epoch does a real one's work."""

import json

import pytest
import torch

import train_with_distortions as script
from benchmarks.training_loop import TIMED, BareEpoch, Spans, run_training
from models.inference import build
from models.quality_net import QualityNet
from tests.helpers import run_script
from training.checkpointing import OpenRun

TINY = (
    "--references=photos --image_size=16 --train_samples=8 --val_samples=4 "
    "--distortions_per_image=2 --n_clusters=3 --device=cpu"
)


@pytest.fixture(scope="module")
def result(module_folder):
    """The output and the numbers of a run of four tiny epochs."""
    flags = [f"--flags={TINY} --no-amp --refit_interval=3", "--epochs=4", "--output=out"]
    status, output, problem = run_script("benchmarks.training_loop", flags, module_folder)
    assert status == 0, output + problem
    return output, json.loads((module_folder / "out" / "training_loop.json").read_text())


@pytest.mark.slow
def test_what_the_loop_keeps_is_bare_over_real(result):
    output, numbers = result

    kept = numbers["kept"]["steps, validation and refits"]
    with_statistics = numbers["kept"]["the same and batch-norm statistics"]
    bare = numbers["bare_seconds"][1:]
    real = numbers["real_seconds"][1:]
    assert len(real) == len(bare) == 3
    assert kept == pytest.approx(sum(bare) / sum(real))
    assert kept < with_statistics
    assert f"| steps, validation and refits | {kept:.1%} |" in output


@pytest.mark.slow
def test_every_timed_function_has_its_share(result):
    output, numbers = result

    assert numbers["shares"].keys() == {title for title, _, _ in TIMED}
    assert sum(numbers["shares"].values()) == pytest.approx(1)
    assert "| a refit's fit |" in output


@pytest.mark.slow
def test_images_a_second_are_measured_but_not_told_of_a_cpu(result):
    output, numbers = result

    assert all(rate > 0 for rate in numbers["images_per_second"].values())
    assert "| distorting alone |" not in output


@pytest.mark.slow
def test_a_bare_epoch_has_a_real_ones_passes(tmp_path, monkeypatch):
    """Passes are compared by their mode, training or evaluation, and their number of images."""
    passes = []
    real = []
    bare = []
    forward = QualityNet.forward
    write_log = OpenRun.log

    def record(network, images):
        passes.append((network.training, len(images)))
        return forward(network, images)

    def end_epoch(run, line):
        write_log(run, line)
        real.append(sorted(passes))
        passes.clear()
        epoch = BareEpoch(build(run.config)[0], run.config, image_count=8 * 3)
        epoch.run(validation_images=4 * 3, refits=line["refit"])
        epoch.measure_bn_statistics()
        bare.append(sorted(passes))
        passes.clear()

    monkeypatch.setattr(QualityNet, "forward", record)
    name = "--experiment_name=bare"
    flags = [*TINY.split(), name, "--epochs=3", "--refit_interval=2", "--batch_size=10"]
    run_training(flags, [(OpenRun, "log", end_epoch)])

    assert len(real) == 3
    assert real == bare


@pytest.mark.parametrize("title, owner, name", TIMED)
def test_timed_functions_exist(title, owner, name):
    assert callable(getattr(owner, name)), title


def test_inner_time_is_not_counted_twice(monkeypatch):
    clock = iter((0.0, 1.0, 4.0, 10.0))  # the outer starts, the inner starts and ends, then it
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    spans = Spans(torch.device("cpu"))
    monkeypatch.setattr(script, "validate", lambda: None)
    monkeypatch.setattr(script, "validate", spans.timed("inner", script, "validate"))
    monkeypatch.setattr(script, "refit", lambda: script.validate())

    spans.timed("outer", script, "refit")()

    assert spans.seconds == {"inner": 3.0, "outer": 7.0}
