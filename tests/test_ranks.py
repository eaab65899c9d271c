"""Two processes against one: the same sums, batch norm, gradients, mixture and scores."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn

import ranks

COUNT = 2


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
    mine = ranks.part(7)
    return {
        "shares": ranks.share(order),
        "total": ranks.total(torch.tensor([1.0, 2.0 + ranks.rank()])),
        "gathered": ranks.gathered(10.0 * mine[:, None], 7),
        "first": ranks.from_first(lambda: {"rank": ranks.rank()}),
    }


def test_shares_totals_and_pieces_of_two_processes(tmp_path):
    first, second = in_two_processes(numbers, tmp_path)
    assert first["shares"].tolist() == [0, 2, 4, 6] and second["shares"].tolist() == [1, 3, 5]
    for found in (first, second):
        assert found["total"].tolist() == [2, 5] and found["first"] == {"rank": 0}
        assert found["gathered"].flatten().tolist() == [0, 10, 20, 30, 40, 50, 60]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 1))


def step():
    """Gradients and statistics of a step in which the processes share 10 images."""
    model, images = ranks.share_batch_norm(network()).train(), torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    mine = ranks.share(torch.arange(10)) if ranks.count() > 1 else torch.arange(10)
    (model(images[mine]).square().mean() * len(mine) / 10).backward()
    ranks.total_gradients(model)
    return {"gradients": [p.grad for p in model.parameters()], "state": model.state_dict()}


def test_batch_norm_and_gradients_of_two_processes_are_those_of_one(tmp_path):
    alone = step()
    for shared in in_two_processes(step, tmp_path):
        for ours, theirs in zip(shared["gradients"], alone["gradients"]):
            assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)
        for name, value in alone["state"].items():
            assert torch.allclose(shared["state"][name], value, rtol=1e-4, atol=1e-6), name
