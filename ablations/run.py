"""What each part of the recipe is worth: named arms, trained over seeds on the same images and judged on the same test.

Choose settings by this on images of your own that no reported figure is made of: every row is a look at the test.

    python -m ablations.run --references path/to/images --arms main --seeds 0 1 2 --jobs 2
    python -m ablations.run --references path/to/images --arms both parts --seeds 0 1 --epochs 15 --name short
    python -m ablations.run --references path/to/images --arms both --flags="--train_samples 4000" --name ceiling
    python -m ablations.run --quick

--list shows the arms. A run lands in experiments/<name>_<arm>_seed<seed>; the same command again goes on where it
stopped and trains nothing twice. At the end: <output>/<name>.md, a table, <name>.json, its numbers, <name>.png.
"""

import argparse
import json
import os
import shlex
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import torch
from tqdm import tqdm

import test_with_viz
import train_with_distortions
from ablations.arms import ARMS, GROUPS, WITHOUT
from ablations.classical import gather_classical
from ablations.judge import gather, gather_type_head, judge_unknown, paired_difference
from ablations.tables import (
    FIGURE_COLUMNS,
    cluster_table,
    left_out_table,
    own_table,
    quality_table,
    refit_table,
    values_of,
)
from evaluation import plots
from models.mixture import Mixture
from references.sources import resolve_source
from tests.helpers import preloaded_context as preloaded
from training.checkpointing import read_log, read_metrics
from utils.cli import MAX_SEED, HelpFormatter, int_in_range, run_script
from utils.errors import UserError
from utils.files import write_json

FIGURES = "visualizations"
TEST_FLAGS = {"samples": "test_samples", "distortions_per_image": "distortions_per_image"}
QUICK_ARMS, QUICK_SEEDS, QUICK_EPOCHS, QUICK_TEST = ["redrawn_plain", "both"], [0, 1], 2, 24
SET_HERE = "experiment_name", "references", "seed", "data_root", "image_size", "epochs"
OWN_NAMES = {"experiment_name": "name", "seed": "seeds"}
QUICK_FLAGS = (
    "--train_samples 16 --val_samples 4 --distortions_per_image 2 --n_clusters 3 --refit_interval 1"
)


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add(
        "--arms",
        nargs="+",
        default=["main"],
        help=f"names of arms, or of groups: {', '.join(GROUPS)}",
    )
    add(
        "--seeds",
        nargs="+",
        type=int_in_range(0, MAX_SEED),
        default=[0, 1, 2],
        help="each arm is trained with each of them",
    )
    add(
        "--epochs",
        type=int_in_range(1),
        default=50,
        help="of every arm; the refit interval shrinks in proportion",
    )
    add("--references", default="auto", help="as for train_with_distortions.py")
    add("--data_root", default="data", help="as for train_with_distortions.py")
    add("--image_size", type=int_in_range(8), default=32, help="as for train_with_distortions.py")
    add(
        "--flags",
        default="",
        help='further flags of train_with_distortions.py for every arm: --flags="--no-amp"',
    )
    add("--test_samples", type=int_in_range(2), default=1017, help="held-out references, at most")
    add(
        "--against",
        default="both",
        help="the arm that the others are compared with, if it is among them",
    )
    add("--classical", type=int_in_range(0), default=0, metavar="IMAGES",
        help="add rows for BRISQUE's features with a regressor trained on so many redrawn images, and for a distance "
        "from pristine images")  # fmt: skip
    add(
        "--jobs",
        type=int_in_range(1),
        default=1,
        help="runs at the same time, which share the processor's cores",
    )
    add("--name", default="recipe", help="begins the names of runs and files")
    add("--output", default="benchmarks/results", help="folder of the table, numbers and figure")
    add("--quick", action="store_true",
        help="two arms, two seeds, two epochs of a tiny size, named 'quick': shows that everything works")  # fmt: skip
    add("--list", action="store_true", help="show the arms and stop")
    args = parser.parse_args(argv)
    unknown = [name for name in args.arms if name not in {**ARMS, **GROUPS}]
    if unknown:
        parser.error(f"{unknown[0]!r} is no arm or group of arms; --list shows them")
    if args.against not in ARMS:
        parser.error(f"--against {args.against!r} is no arm; --list shows them")
    if Path(args.name).name != args.name:
        parser.error(f"--name {args.name!r} begins the names of folders; leave out slashes")
    flags = [flag.split("=")[0] for flag in shlex.split(args.flags)]
    own = [name for name in SET_HERE if f"--{name}" in flags]
    if own:
        parser.error(
            f"--flags: recipe.py sets --{own[0]} itself, by --{OWN_NAMES.get(own[0], own[0])}"
        )
    if args.quick:
        args.arms, args.seeds, args.epochs, args.test_samples = (
            QUICK_ARMS,
            QUICK_SEEDS,
            QUICK_EPOCHS,
            QUICK_TEST,
        )
        args.name, args.references, args.flags = "quick", "photos", f"{QUICK_FLAGS} {args.flags}"
    args.seeds = list(dict.fromkeys(args.seeds))
    return args


def main(args):
    if args.list:
        print("\n".join(f"{name:28}{arm.what}" for name, arm in ARMS.items()))
        print("\n".join(f"group {name}: {', '.join(arms)}" for name, arms in GROUPS.items()))
        return
    args.references, warning = resolve_source(args.references, args.data_root)
    if warning:
        print(f"warning: {warning}")
    arms = list(dict.fromkeys(arm for name in args.arms for arm in GROUPS.get(name, [name])))
    train_all([(arm, seed) for seed in args.seeds for arm in arms], args)
    rows = {arm: gather(folders_of(args, arm)) for arm in arms}
    if "redrawn_type" in rows:
        rows["type_head"] = gather_type_head(folders_of(args, "redrawn_type"))
    against = rows.get(args.against)
    if args.classical:
        rows |= gather_classical(
            folders_of(args, args.against if against else arms[0]), args.classical
        )
    for row in rows.values():
        compared = against and row is not against and row["digest"] == against["digest"]
        row["difference"] = paired_difference(row, against) if compared else None
    write_results(rows, args)


def folders_of(args, arm):
    return [folder_of(args, arm, seed) for seed in args.seeds]


def folder_of(args, arm, seed):
    return Path("experiments") / f"{args.name}_{arm}_seed{seed}"


def train_all(tasks, args):
    """Train and test what is not there yet, several at a time, each in a process of its own."""
    todo = [task for task in tasks if not is_done(args, *task)]
    os.environ.setdefault(
        "OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // args.jobs))
    )  # of each process
    bar = tqdm(total=len(tasks), initial=len(tasks) - len(todo), desc="runs", unit="run")
    with bar, ProcessPoolExecutor(args.jobs, mp_context=preloaded(), max_tasks_per_child=1) as pool:
        running = {pool.submit(run_arm, args, *task): task for task in todo}
        try:
            for done in as_completed(running):
                arm, seed = running[done]
                if done.exception() is not None:
                    log = folder_of(args, arm, seed) / "recipe.log"
                    raise UserError(
                        f"{arm}, seed {seed}: {done.exception()}; see {log}"
                    ) from done.exception()
                bar.write(
                    f"{arm}, seed {seed}: {in_short(read_metrics(folder_of(args, arm, seed)))}"
                )
                bar.update()
        except BaseException:  # an interruption too
            bar.write(
                "stopping; runs that have begun and were not interrupted come to their end first"
            )
            pool.shutdown(cancel_futures=True)
            raise


def is_done(args, arm, seed):
    """Whether this run was trained, tested and judged. Raises UserError if with other flags, or by something else."""
    folder, wanted = folder_of(args, arm, seed), described(args, arm, seed)
    if not (folder / "config.json").is_file():
        return False
    arm_file, metrics, judged = (
        folder / name for name in ("arm.json", f"{FIGURES}/metrics.json", f"{FIGURES}/unknown.json")
    )
    if not arm_file.is_file() or json.loads(arm_file.read_text()) != wanted:
        raise UserError(
            f"{folder} was trained with other flags, or by another script; give another --name, or remove it"
        )
    if not (metrics.is_file() and judged.is_file()):
        return False
    tested = read_metrics(folder)
    return tested["checkpoint"] == "best" and tested["test"] == wanted["test"]


def described(args, arm, seed):
    """What a run of an arm is, as plain JSON: everything that decides its numbers, but for the code."""
    flags = vars(train_with_distortions.parse_args(training_flags(args, arm, seed)))
    flags = {
        name: value
        for name, value in flags.items()
        if name not in ("folder", *train_with_distortions.ANY_TIME)
    }
    patches = {
        target: getattr(value, "__name__", value) for target, value in ARMS[arm].patches.items()
    }
    shared = train_with_distortions.parse_args(training_flags(args, "both", seed))
    test = {"references": args.references, "data_root": args.data_root, "seed": shared.data_seed,
            "samples": args.test_samples, "distortions_per_image": shared.distortions_per_image}  # fmt: skip
    return {"flags": flags, "patches": patches, "test": test}


def training_flags(args, arm, seed):
    """The command line of one run. Flags of the arm come last: they win."""
    interval = max(1, round(10 * args.epochs / 50))
    shared = {"experiment_name": folder_of(args, arm, seed).name, "references": args.references, "seed": seed,
              "data_root": args.data_root, "image_size": args.image_size, "epochs": args.epochs,
              "refit_interval": interval}  # fmt: skip
    own = ARMS[arm].flags.format(half=max(1, interval // 2), double=2 * interval)
    return [
        *(f"--{name}={value}" for name, value in shared.items()),
        *shlex.split(args.flags),
        *shlex.split(own),
    ]


def run_arm(args, arm, seed):
    """Train (or go on with), test and judge one run, under the arm's patches; its words go to recipe.log."""
    folder, flags = folder_of(args, arm, seed), training_flags(args, arm, seed)
    folder.mkdir(parents=True, exist_ok=True)
    begun = (folder / "config.json").is_file()
    with ExitStack() as stack:
        log = stack.enter_context(open(folder / "recipe.log", "a", encoding="utf-8"))
        stack.enter_context(redirect_stdout(log))
        stack.enter_context(redirect_stderr(log))
        what = described(args, arm, seed)
        write_json(folder / "arm.json", what)
        for target, value in ARMS[arm].patches.items():
            stack.enter_context(patch(target, value))
        stack.enter_context(patch.object(Mixture, "refit", watched_refit(folder)))
        train_with_distortions.main(train_with_distortions.parse_args(flags + ["--resume"] * begun))
        test = [f"--{flag}={what['test'][name]}" for name, flag in TEST_FLAGS.items()]
        test_with_viz.main(
            test_with_viz.parse_args([f"--experiment={folder}", *test, "--skip_tsne"])
        )
        judge_unknown(folder)


def watched_refit(folder):
    """Mixture.refit, that also writes down the share of images that kept their cluster, and the mean log-likelihood
    beside that of a fresh fit to the same embeddings: a line of refits.jsonl."""
    refit = Mixture.refit

    def refit_and_watch(mixture, embeddings, seed):
        before = mixture.assign(embeddings) if mixture.fitted else None
        refit(mixture, embeddings, seed)
        fresh = Mixture("auto" if mixture.auto else len(mixture.weights), embeddings.shape[1])
        refit(fresh, embeddings, seed)
        points = torch.from_numpy(embeddings)
        kept = None if before is None else float((before == mixture.assign(embeddings)).mean())
        values = {"epoch": len(read_log(folder)), "kept": kept} | {
            name: fitted.log_joint(points.to(fitted.means.device)).logsumexp(1).mean().item()
            for name, fitted in (("log_likelihood", mixture), ("fresh_log_likelihood", fresh))
        }
        with open(folder / "refits.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    return refit_and_watch


def in_short(tested):
    clusters = tested["clusters"]
    quality = (
        f"SRCC {tested['srcc']:.3f}, {tested['without_pristine']['srcc']:.3f} without pristine"
    )
    return f"{quality}; NMI {clusters['nmi']:.3f}, {clusters['active']} active clusters"


def write_results(rows, args):
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    trained = [name for name in rows if name in ARMS]
    tested = read_metrics(folder_of(args, trained[0], args.seeds[0]))
    about = {"references": tested["references"], "test_references": tested["test_references"], "epochs": args.epochs,
             "seeds": args.seeds, "image_size": args.image_size, "flags": args.flags}  # fmt: skip
    folders = {name: folders_of(args, name) for name in trained}
    left_out = {
        name.removeprefix("without_"): runs for name, runs in folders.items() if name in WITHOUT
    }
    tables = [
        quality_table(rows, args.against),
        cluster_table(rows),
        refit_table(folders, args.epochs),
    ]
    tables += [own_table(rows, trained)] + [left_out_table(left_out)] * bool(left_out)
    text = "\n".join("\n".join([*lines, ""]) for lines in tables)
    print(f"\n{text}")
    files = {suffix: folder / f"{args.name}.{suffix}" for suffix in ("md", "json", "png")}
    files["md"].write_text(text, encoding="utf-8")
    numbers = {
        name: {key: value for key, value in row.items() if key != "tested"}
        for name, row in rows.items()
    }
    write_json(files["json"], {**about, "arms": numbers})
    columns = {title: values_of(rows, name) for name, title in FIGURE_COLUMNS.items()}
    seeds = ", ".join(map(str, args.seeds))
    subtitle = f"{args.epochs} epochs, seeds {seeds}, {tested['images']} held-out images from {tested['references']}"
    plots.plot_arms(list(rows), columns, subtitle).savefig(files["png"], dpi=100)
    print("\n".join(map(str, files.values())))


if __name__ == "__main__":
    run_script(main, parse_args)
