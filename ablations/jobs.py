"""Train and test the runs of ablations, several at a time, each in a process of its own."""

import argparse
import json
import multiprocessing
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from tqdm import tqdm

import test_with_viz
import train_with_distortions
from ablations.unknown import measure_unknown
from ablations.variants import ABLATIONS
from evaluation.results import read_log, read_metrics
from models.mixture import Mixture
from training.config import FREE_FLAGS
from utils.errors import UserError
from utils.files import append_line, write_json

REFIT_INTERVAL_SHARE = 0.2  # of the epochs, between refits


def folders_of(args: argparse.Namespace, name: str) -> list[Path]:
    """Return the folders of an ablation's runs, one for each seed."""
    return [folder_of(args, name, seed) for seed in args.seeds]


def folder_of(args: argparse.Namespace, name: str, seed: int) -> Path:
    """Return the folder of one run of an ablation."""
    return Path("experiments") / f"{args.name}_{name}_seed{seed}"


def train_all(jobs: Sequence[tuple[str, int]], args: argparse.Namespace) -> None:
    """Train and test the ablations and seeds that are not there yet."""
    to_do = [job for job in jobs if not is_done(args, *job)]
    os.environ.setdefault("OMP_NUM_THREADS", str(threads_per_job(args)))  # of each process
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(to_do), desc="runs", unit="run")
    pool = ProcessPoolExecutor(args.jobs, mp_context=process_context(), max_tasks_per_child=1)
    with bar, pool:
        running = {pool.submit(run_ablation, args, *job): job for job in to_do}
        try:
            for done in as_completed(running):
                name, seed = running[done]
                folder = folder_of(args, name, seed)
                problem = done.exception()
                if problem is not None:
                    log = folder / "ablation.log"
                    raise UserError(f"{name}, seed {seed}: {problem}; see {log}") from problem
                srcc = read_metrics(folder)["srcc"]
                bar.write(f"{name}, seed {seed}: SRCC {srcc:.3f}")
                bar.update()
        except BaseException:  # an interruption too
            bar.write("stopping; runs that have begun come to their end first")
            pool.shutdown(cancel_futures=True)
            raise


def process_context() -> multiprocessing.context.BaseContext:
    """Return how processes begin: forked from one that has the slow imports behind it.

    Where that is not safe, or not there, each imports for itself.
    """
    if sys.platform in ("darwin", "win32"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def threads_per_job(args: argparse.Namespace) -> int:
    """Return how many threads torch gets in each process, unless the user has said so."""
    if "OMP_NUM_THREADS" in os.environ:
        return torch.get_num_threads()
    return max(1, (os.cpu_count() or 1) // args.jobs)


def is_done(args: argparse.Namespace, name: str, seed: int) -> bool:
    """Tell whether a run was trained, tested, and tested on unknown distortions.

    Raises UserError if it was trained with other flags, or by something else.
    """
    folder = folder_of(args, name, seed)
    if not (folder / "config.json").is_file():
        return False
    wanted = describe(args, name, seed)
    description = folder / "ablation.json"
    if not description.is_file() or json.loads(description.read_bytes()) != wanted:
        raise UserError(
            f"{folder} was trained with other flags, or by another script or version; "
            "give another --name, or remove it"
        )
    visualizations = folder / "visualizations"
    if not all((visualizations / name).is_file() for name in ("metrics.json", "unknown.json")):
        return False
    metrics = read_metrics(folder)
    tested = {name: metrics["test"].get(name) for name in wanted["test"]}
    return metrics["checkpoint"] == "best" and tested == wanted["test"]


def describe(args: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """Return all that decides the numbers of a run, but for the code, as plain JSON."""
    ablation = ABLATIONS[name]
    flags = vars(train_with_distortions.parse_args(training_flags(args, name, seed)))
    default = train_with_distortions.parse_args(training_flags(args, "both", seed))
    ignored = ("folder", *FREE_FLAGS)
    return {
        "flags": {flag: value for flag, value in flags.items() if flag not in ignored},
        "recipe": asdict(ablation.recipe),
        "dataset": ablation.dataset_class.__name__,
        "test": {  # the same for all ablations, whatever they are trained on
            "references": args.references,
            "data_root": args.data_root,
            "seed": default.data_seed,
            "samples": args.test_samples,
            "distortions_per_image": default.distortions_per_image,
        },
    }


def training_flags(args: argparse.Namespace, name: str, seed: int) -> list[str]:
    """Return the command line of one run. The ablation's flags come last, so they win."""
    interval = max(1, round(REFIT_INTERVAL_SHARE * args.epochs))
    own = ABLATIONS[name].flags.format(half=max(1, interval // 2), double=2 * interval)
    return [
        f"--experiment_name={folder_of(args, name, seed).name}",
        f"--references={args.references}",
        f"--data_root={args.data_root}",
        f"--image_size={args.image_size}",
        f"--epochs={args.epochs}",
        f"--refit_interval={interval}",
        f"--seed={seed}",
        *shlex.split(args.flags),
        *shlex.split(own),
    ]


def run_ablation(args: argparse.Namespace, name: str, seed: int) -> None:
    """Train one run, or go on with it, and test it. What it prints goes to ablation.log."""
    ablation = ABLATIONS[name]
    folder = folder_of(args, name, seed)
    folder.mkdir(parents=True, exist_ok=True)
    description = describe(args, name, seed)
    test = description["test"]
    flags = training_flags(args, name, seed)
    if (folder / "config.json").is_file():
        flags.append("--resume")
    with ExitStack() as stack:
        log = stack.enter_context(open(folder / "ablation.log", "a", encoding="utf-8"))
        stack.enter_context(redirect_stdout(log))
        stack.enter_context(redirect_stderr(log))
        write_json(folder / "ablation.json", description)
        stack.enter_context(patch.object(Mixture, "refit", recording_refit(folder)))
        train_with_distortions.main(
            train_with_distortions.parse_args(flags), ablation.recipe, ablation.dataset_class
        )
        test_flags = [
            f"--experiment={folder}",
            f"--test_samples={test['samples']}",
            f"--distortions_per_image={test['distortions_per_image']}",
            "--test_part=held_out",
            "--skip_tsne",
        ]
        test_with_viz.main(test_with_viz.parse_args(test_flags))
        measure_unknown(folder)


def recording_refit(folder: Path) -> Callable[[Mixture, np.ndarray, int], None]:
    """Return Mixture.refit that also appends a line to refits.jsonl.

    It holds the share of images that kept their cluster, and the mean log-likelihood beside that
    of a fit from scratch to the same embeddings.
    """
    refit = Mixture.refit

    def refit_and_record(mixture: Mixture, embeddings: np.ndarray, seed: int) -> None:
        was_fitted = bool(mixture.fitted)
        refit(mixture, embeddings, seed)
        n_clusters = "auto" if mixture.auto else len(mixture.weights)
        from_scratch = Mixture(n_clusters, embeddings.shape[1], mixture.covariance)
        refit(from_scratch, embeddings, seed)
        line = {
            "epoch": len(read_log(folder)),
            "kept": mixture.label_stability.item() if was_fitted else None,
            "log_likelihood": mean_log_likelihood(mixture, embeddings),
            "fresh_log_likelihood": mean_log_likelihood(from_scratch, embeddings),
        }
        append_line(folder / "refits.jsonl", line)

    return refit_and_record


def mean_log_likelihood(mixture: Mixture, embeddings: np.ndarray) -> float:
    """Return the mean over embeddings (N, D), in nats an image."""
    points = torch.from_numpy(embeddings).to(mixture.means.device)
    return mixture.log_joint(points).logsumexp(1).mean().item()
