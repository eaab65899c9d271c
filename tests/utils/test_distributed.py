"""Two processes against one: the same sums, batch norm, gradients, mixture and scores."""

import contextlib
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn

import train_with_distortions as script
from evaluation.clusters import cluster_measures
from models import quality_net
from training import checkpointing, loop
from training.config import Recipe
from utils import distributed
from utils.errors import UserError

pytestmark = pytest.mark.distributed

ROOT = Path(__file__).resolve().parent.parent.parent
WORLD_SIZE = 2
TINY = (
    "--references photos --image_size 16 --train_samples 24 --val_samples 8 "
    "--distortions_per_image 3 --epochs 3 --batch_size 40 --refit_interval 1 --n_clusters 3 "
    "--device cpu --no-amp"
).split()
# What differs between one process and two although the training is the same: the speed, and
# measures that a single image on the border between two clusters changes.
LOOSE_COLUMNS = {"images_per_second", "active_clusters", "nmi", "kept"}


def in_two_processes(function, folder):
    """Return [what function() returns in each of two processes]."""
    torch.multiprocessing.spawn(_run_in_process, (function, str(folder)), WORLD_SIZE)
    results = []
    for rank in range(WORLD_SIZE):
        results.append(torch.load(folder / f"{rank}.pt", weights_only=False))
    return results


def _run_in_process(rank, function, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=WORLD_SIZE)
    torch.save(function(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def share_seven_values():
    own_indices = distributed.shard_indices(7)
    return {
        "shard": distributed.shard(torch.arange(7)).tolist(),
        "sum": distributed.all_reduce_sum(torch.tensor([1.0, 2.0 + distributed.get_rank()])),
        "gathered": distributed.all_gather(10.0 * own_indices[:, None], 7),
        "batch_share": float(distributed.batch_share(3 - distributed.get_rank(), "cpu")),
    }


def test_shards_sums_and_pieces_of_two_processes(tmp_path):
    first, second = in_two_processes(share_seven_values, tmp_path)

    assert first["shard"] == [0, 2, 4, 6]
    assert second["shard"] == [1, 3, 5]
    assert first["batch_share"] == pytest.approx(0.6)
    assert second["batch_share"] == pytest.approx(0.4)
    for result in (first, second):
        assert result["sum"].tolist() == [2, 5]
        assert result["gathered"].flatten().tolist() == [0, 10, 20, 30, 40, 50, 60]


def compare_values_of_processes():
    distributed.require_equal("the same", "digest")
    try:
        distributed.require_equal(distributed.get_rank(), "references")
    except UserError as problem:
        return str(problem)


def test_different_values_of_processes_are_refused(tmp_path):
    messages = in_two_processes(compare_values_of_processes, tmp_path)

    for rank, message in enumerate(messages):
        assert message == (
            f"process {rank} found other references than another process; "
            "do not change the folder while a run starts"
        )
    assert len(messages) == 2


def broadcast_a_layer():
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, distributed.get_rank() + 1.0)
    distributed.broadcast_state(layer)
    return layer.weight.detach()


def test_all_processes_get_the_main_ones_state(tmp_path):
    for weight in in_two_processes(broadcast_a_layer, tmp_path):
        assert (weight == 1).all()


def take_a_step():
    """Return the gradients and statistics of a step in which the processes share 11 images."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 1)
    )
    distributed.convert_batch_norm(model, torch.device("cpu"))
    parallel_model = distributed.wrap_model(model).train()
    images = torch.randn(11, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    own_rows = distributed.shard(torch.arange(11))
    scale = distributed.batch_share(len(own_rows), "cpu") * distributed.get_world_size()
    (scale * parallel_model(images[own_rows]).square().mean()).backward()
    return {
        "gradients": {name: value.grad for name, value in model.named_parameters()},
        "state": model.state_dict(),
    }


def test_batch_norm_and_gradients_are_a_single_ones(tmp_path):
    alone = take_a_step()

    for shared in in_two_processes(take_a_step, tmp_path):
        for part in ("gradients", "state"):
            assert shared[part].keys() == alone[part].keys()
            for name, value in alone[part].items():
                assert torch.allclose(shared[part][name], value, rtol=1e-4, atol=1e-6), name


class StopTraining(Exception):
    pass


def smooth_network():
    """Patch the network by one without kinks.

    At a ReLU's zero, or where two pixels tie in max-pool, float32's rounding decides. A single
    unit that falls to the other side moves the gradients of the first layers by some thousandths.
    """
    make_backbone = quality_net._make_backbone

    def make_smooth_backbone(*args):
        network = make_backbone(*args)
        for parent in list(network.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.ReLU):
                    setattr(parent, name, nn.SiLU())
        network.maxpool = nn.AvgPool2d(3, stride=2, padding=1)
        return network

    return patch.object(quality_net, "_make_backbone", make_smooth_backbone)


def gradients_of_the_first_step(folder):
    """Return what the optimizer meets in the script's first step: {parameter: gradient}."""
    gradients = {}

    def create_state(model, *others):
        state = loop.create_state(model, *others)

        def stop():
            for name, parameter in model.named_parameters():
                gradients[name] = parameter.grad
            raise StopTraining

        state.optimizer.step = stop
        return state

    args = script.parse_args(["--experiment_name", f"first_{distributed.get_world_size()}", *TINY])
    args.folder = folder / args.folder
    with (
        smooth_network(),
        patch.object(script, "create_state", create_state),
        contextlib.suppress(StopTraining),
    ):
        script.main(args, recipe=Recipe(rank_loss_weight=0.2))
    return gradients


@pytest.mark.slow
def test_first_gradients_are_those_of_one_process(tmp_path):
    alone = gradients_of_the_first_step(tmp_path)
    assert len(alone) > 60

    for shared in in_two_processes(partial(gradients_of_the_first_step, tmp_path), tmp_path):
        for name, gradient in alone.items():
            assert (shared[name] - gradient).norm() <= 1e-4 * gradient.norm(), name


def train_by_small_steps(folder, name):
    """Run the script with steps too small to amplify rounding.

    Returns the mixtures that it fitted, and the clusters of the validation images whenever they
    were measured.
    """
    mixtures = []
    clusters = []

    def gradient_descent(model, lr, weight_decay):
        return torch.optim.SGD(model.parameters(), lr)

    def refit(mixture, *others):
        loop.refit(mixture, *others)
        mixtures.append({key: value.clone() for key, value in mixture.state_dict().items()})

    def measure(found, *others):
        clusters.append(found)
        return cluster_measures(found, *others)

    args = script.parse_args(["--experiment_name", name, *TINY, "--lr", "1e-4"])
    args.folder = folder / args.folder
    with (
        smooth_network(),
        patch.dict(loop.OPTIMIZERS, {"gradient descent": gradient_descent}),
        patch.object(script, "refit", refit),
        patch.object(loop, "cluster_measures", measure),
    ):
        script.main(args, recipe=Recipe(optimizer="gradient descent", rank_loss_weight=0.2))
    return mixtures, clusters


def read_log(folder, name):
    lines = (folder / "experiments" / name / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def trained(module_folder):
    """Train once by one process and once by two: {name: (mixtures, clusters)}, and the logs."""
    one = train_by_small_steps(module_folder, "one")
    first, second = in_two_processes(
        partial(train_by_small_steps, module_folder, "two"), module_folder
    )
    return {
        "one": one,
        "first of two": first,
        "second of two": second,
        "logs": (read_log(module_folder, "one"), read_log(module_folder, "two")),
    }


@pytest.mark.slow
def test_two_processes_have_one_mixture(trained):
    first_mixtures, _ = trained["first of two"]
    second_mixtures, _ = trained["second of two"]

    assert len(first_mixtures) >= 3
    for first, second in zip(first_mixtures, second_mixtures, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)


@pytest.mark.slow
def test_scores_of_two_processes_are_those_of_one(trained):
    log_of_one, log_of_two = trained["logs"]

    for alone, shared in zip(log_of_one, log_of_two, strict=True):
        assert shared.keys() == alone.keys()
        for name in alone.keys() - LOOSE_COLUMNS:
            assert shared[name] == pytest.approx(alone[name], abs=2e-3), name


@pytest.mark.slow
def test_clusters_of_two_processes_are_those_of_one(trained):
    """Rounding may move an image on a border."""
    _, clusters_of_one = trained["one"]
    _, clusters_of_two = trained["first of two"]

    assert len(clusters_of_one) >= 2
    for alone, shared in zip(clusters_of_one, clusters_of_two, strict=True):
        assert np.mean(alone == shared) >= 0.9


def how_it_ends(function):
    """Return the name of the exception that ends the function in this process."""
    try:
        function()
    except (UserError, SystemExit) as end:
        return type(end).__name__


class UnfittableMixture:
    def refit(self, embeddings, seed):
        raise UserError("the mixture cannot be fitted")


def refit_in_vain():
    with patch.object(loop, "predict", lambda *args: (None, None)):
        loop.refit(UnfittableMixture(), None, range(4), {"seed": 0, "gmm_samples": 4})


def lock_in_vain(folder):
    with checkpointing._lock_folder(folder):
        pass


def test_others_end_silently_where_a_refit_fails(tmp_path):
    ends = in_two_processes(partial(how_it_ends, refit_in_vain), tmp_path)

    assert ends == ["UserError", "SystemExit"]


def test_others_end_silently_where_the_folder_is_locked(tmp_path):
    with checkpointing._lock_folder(tmp_path):
        ends = in_two_processes(partial(how_it_ends, partial(lock_in_vain, tmp_path)), tmp_path)

    assert ends == ["UserError", "SystemExit"]


def torchrun(folder, *flags):
    """Train by two processes that torchrun starts, and return how that ended."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={WORLD_SIZE}",
        f"--log-dir={folder / 'logs'}",
        ROOT / "train_with_distortions.py",
        *flags,
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_a_single_process_resumes_a_run_of_torchrun(tmp_path):
    flags = ["--experiment_name", "shared", *TINY]
    done = torchrun(tmp_path, *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch   1/3") == 1
    assert done.stdout.count("best.pt:") == 1

    command = [sys.executable, ROOT / "train_with_distortions.py", *flags, "--resume"]
    resumed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert resumed.returncode == 0, resumed.stderr


@pytest.mark.slow
def test_where_the_main_process_fails_there_is_one_line(tmp_path):
    done = torchrun(tmp_path, "--experiment_name", "lost", *TINY, "--references", "nowhere")

    assert done.returncode
    assert done.stderr.count("nowhere: no such folder") == 1
    assert "[rank" not in done.stderr


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    done = torchrun(tmp_path, "--experiment_name", "odd", *TINY, "--batch_size", "21")

    assert done.returncode
    assert "must be a multiple of 2" in done.stderr
    assert not (tmp_path / "experiments").exists()
