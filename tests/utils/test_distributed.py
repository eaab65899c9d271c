"""Two processes against one: the same sums, batch norm, gradients, mixture and scores."""

import contextlib
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn

import train_with_distortions as script
from evaluation.metrics import cluster_measures
from models import quality_net
from training import checkpointing, loop
from utils import distributed
from utils.errors import UserError

pytestmark = pytest.mark.distributed

ROOT = Path(__file__).resolve().parent.parent.parent
COUNT = 2
TINY = "--references photos --image_size 16 --train_samples 24 --val_samples 8 --distortions_per_image 3 --epochs 3 --batch_size 40 --refit_interval 1 --n_clusters 3 --device cpu --no-amp"  # fmt: skip


def in_two_processes(function, folder):
    """[what function() returns in each process]"""
    torch.multiprocessing.spawn(_run, (function, str(folder)), COUNT)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(COUNT)]


def _run(rank, function, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=COUNT)
    torch.save(function(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def numbers():
    order = torch.arange(7)
    mine = distributed.shard_indices(7)
    return {
        "shares": distributed.shard(order),
        "total": distributed.all_reduce_sum(torch.tensor([1.0, 2.0 + distributed.get_rank()])),
        "gathered": distributed.all_gather(10.0 * mine[:, None], 7),
        "weight": float(distributed.batch_share(3 - distributed.get_rank(), "cpu")),
    }


def test_shares_totals_and_pieces_of_two_processes(tmp_path):
    first, second = in_two_processes(numbers, tmp_path)
    assert first["shares"].tolist() == [0, 2, 4, 6] and second["shares"].tolist() == [1, 3, 5]
    assert (first["weight"], second["weight"]) == pytest.approx((0.6, 0.4))
    for found in (first, second):
        assert found["total"].tolist() == [2, 5]
        assert found["gathered"].flatten().tolist() == [0, 10, 20, 30, 40, 50, 60]


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 1)
    )


def step():
    """Gradients and statistics of a step in which the processes share 11 images."""
    model = distributed.share_batch_norm(network()).train()
    images = torch.randn(11, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    mine = distributed.shard(torch.arange(11))
    (model(images[mine]).square().mean() * distributed.batch_share(len(mine), "cpu")).backward()
    distributed.total_gradients(model)
    return {"gradients": [p.grad for p in model.parameters()], "state": model.state_dict()}


def test_batch_norm_and_gradients_of_two_processes_are_those_of_one(tmp_path):
    alone = step()
    for shared in in_two_processes(step, tmp_path):
        for ours, theirs in zip(shared["gradients"], alone["gradients"]):
            assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)
        for name, value in alone["state"].items():
            assert torch.allclose(shared["state"][name], value, rtol=1e-4, atol=1e-6), name


class Stop(Exception):
    pass


def smooth_network():
    """A ResNet without kinks. At a ReLU's zero, or where two pixels tie in max-pool, float32's rounding decides, and a
    single unit that falls to the other side moves the gradients of the first layers by some thousandths."""
    original = quality_net._make_backbone

    def backbone(*args):
        network = original(*args)
        for parent in list(network.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.ReLU):
                    setattr(parent, name, nn.SiLU())
        network.maxpool = nn.AvgPool2d(3, stride=2, padding=1)
        return network

    return patch.object(quality_net, "_make_backbone", backbone)


def gradients_of_first_step(folder):
    """What the optimizer meets in the first step of the script, by parameter."""
    met = {}

    def start(model, *others):
        state = loop.create_state(model, *others)

        def stop():
            met.update((name, parameter.grad) for name, parameter in model.named_parameters())
            raise Stop

        state.optimizer.step = stop
        return state

    flags = f"--experiment_name first_{distributed.get_world_size()} {TINY}".split()
    with smooth_network(), contextlib.chdir(folder), contextlib.suppress(Stop):
        with patch.object(script, "create_state", start):
            script.main(script.parse_args(flags))
    return met


def test_the_first_gradients_of_two_processes_are_those_of_one(tmp_path):
    alone = gradients_of_first_step(tmp_path)
    assert len(alone) > 60
    for shared in in_two_processes(partial(gradients_of_first_step, tmp_path), tmp_path):
        for name, gradient in alone.items():
            assert (shared[name] - gradient).norm() <= 1e-4 * gradient.norm(), name


def run(folder, name):
    """The script with steps too small to blow rounding up. Returns the mixtures that it fitted, and the clusters of the
    validation images whenever it looked at them."""
    mixtures, clusters = [], []

    def descent(model, lr, weight_decay):
        return torch.optim.SGD(model.parameters(), lr)

    def refit(mixture, *others):
        loop.refit(mixture, *others)
        mixtures.append({key: value.clone() for key, value in mixture.state_dict().items()})

    def measure(found, *others):
        clusters.append(found)
        return cluster_measures(found, *others)

    flags = f"--experiment_name {name} {TINY} --lr 1e-4".split()
    with smooth_network(), contextlib.chdir(folder), patch.object(loop, "Muon", descent):
        with patch.object(script, "refit", refit), patch.object(loop, "cluster_measures", measure):
            script.main(script.parse_args(flags))
    return mixtures, clusters


def test_two_processes_have_one_mixture_and_the_scores_of_a_single_one(tmp_path):
    _, clusters = run(tmp_path, "one")
    (first, shared_clusters), (second, _) = in_two_processes(
        partial(run, tmp_path, "two"), tmp_path
    )
    assert len(first) >= 3
    for ours, theirs in zip(first, second):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)
    logs = [
        (tmp_path / "experiments" / name / "log.jsonl").read_text().splitlines()
        for name in ("one", "two")
    ]
    for alone, shared in zip(*[[json.loads(line) for line in log] for log in logs], strict=True):
        assert shared.keys() == alone.keys()
        for name in alone.keys() - {"images_per_second", "active_clusters", "nmi", "kept"}:
            assert shared[name] == pytest.approx(alone[name], abs=2e-3), name
    assert len(clusters) >= 2
    for alone, shared in zip(clusters, shared_clusters, strict=True):
        assert (
            np.mean(alone == shared) >= 0.9
        )  # rounding may move an image on a border, and the measures with it


def end_of(function):
    """The name of the exception that a process leaves the function with."""
    try:
        function()
    except (UserError, SystemExit) as end:
        return type(end).__name__


def refit_that_fails():
    def fail(*args):
        raise UserError("the mixture cannot be fitted")

    with patch.object(loop, "predict", lambda *args: (None, None)):
        loop.refit(
            SimpleNamespace(refit=fail), None, range(4), SimpleNamespace(seed=0, gmm_samples=4)
        )


def lock(folder):
    with checkpointing.locked(folder):
        pass


def test_where_the_first_fails_at_what_it_does_alone_the_other_ends_silently(tmp_path):
    with checkpointing.locked(tmp_path):
        for function in (refit_that_fails, partial(lock, tmp_path)):
            assert in_two_processes(partial(end_of, function), tmp_path) == [
                "UserError",
                "SystemExit",
            ]
            (tmp_path / "meet").unlink(missing_ok=True)


def torchrun(folder, *flags):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={COUNT}",
    ]
    command += [f"--log-dir={folder / 'logs'}", ROOT / "train_with_distortions.py", *flags]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_torchrun_trains_one_run_that_a_single_process_goes_on_with(tmp_path):
    flags = f"--experiment_name shared {TINY}".split()
    done = torchrun(tmp_path, *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch   1/3") == 1 and done.stdout.count("best.pt:") == 1
    again = [sys.executable, ROOT / "train_with_distortions.py", *flags, "--resume"]
    assert subprocess.run(again, cwd=tmp_path, capture_output=True).returncode == 0


def test_where_the_first_fails_there_is_one_line(tmp_path):
    done = torchrun(tmp_path, *f"--experiment_name lost {TINY} --references nowhere".split())
    assert done.returncode and done.stderr.count("nowhere: no such folder") == 1
    assert "[rank" not in done.stderr


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    done = torchrun(tmp_path, *f"--experiment_name odd {TINY} --batch_size 21".split())
    assert done.returncode and "must be a multiple of 2" in done.stderr
    assert not (tmp_path / "experiments").exists()
