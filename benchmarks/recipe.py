"""What each part of the recipe is worth: named arms, trained over seeds on the same images and judged on the same test.

Choose settings by this on images of your own that no reported figure is made of: every row is a look at the test.

    python benchmarks/recipe.py --references path/to/images --arms main --seeds 0 1 2 --jobs 2
    python benchmarks/recipe.py --references path/to/images --arms both parts --seeds 0 1 --epochs 15 --name short
    python benchmarks/recipe.py --references path/to/images --arms both --flags="--train_samples 4000" --name ceiling
    python benchmarks/recipe.py --quick

--list shows the arms. A run lands in experiments/<name>_<arm>_seed<seed>; the same command again goes on where it
stopped and trains nothing twice. At the end: <output>/<name>.md, a table, <name>.json, its numbers, <name>.png.
"""

import argparse
import json
import multiprocessing
import os
import shlex
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the project's modules

import numpy as np
import torch
from arms import ARMS, GROUPS, WITHOUT
from classical import gather_classical
from judge import gather, gather_type_head, judge_unknown, late_refits, paired_difference
from tqdm import tqdm

import plots
import test_with_viz
import train_with_distortions
from command_line import MAX_SEED, HelpFormatter, run_script, whole
from errors import UserError
from models.checkpoint import write_json
from models.mixture import Mixture
from references import resolve_source
from report import spread
from run_folder import changes_at_refits, changes_of_srcc, read_log, read_metrics

FIGURES = "visualizations"
TEST_FLAGS = {"samples": "test_samples", "distortions_per_image": "distortions_per_image"}
QUICK_ARMS, QUICK_SEEDS, QUICK_EPOCHS, QUICK_TEST = ["redrawn_plain", "both"], [0, 1], 2, 24
SET_HERE = "experiment_name", "references", "seed", "data_root", "image_size", "epochs"
OWN_NAMES = {"experiment_name": "name", "seed": "seeds"}
QUICK_FLAGS = "--train_samples 16 --val_samples 4 --distortions_per_image 2 --n_clusters 3 --refit_interval 1"
QUALITY_COLUMNS = {
    "srcc": "SRCC",
    "srcc_without_pristine": "without pristine",
    "weakest": "inside the weakest type",
}
CLUSTER_COLUMNS = {
    "nmi": "NMI with the types",
    "stability": "ARI between seeds",
    "unknown": "AUROC of unknown types",
    "active": "active",
    "effective": "effective number",
    "own": "types with their own",
    "least_lift": "least share in the best cluster / base rate",
}
ONE_DIGIT = ("active", "effective", "own", "least_lift")
FIGURE_COLUMNS = {
    "srcc_without_pristine": "SRCC without pristine",
    "nmi": "NMI of clusters and types",
    "unknown": "AUROC of unknown types",
}
OTHER_ROWS = {
    "type_head": "the choices of redrawn_type's type head, as clusters",
    "brisque_svr": "BRISQUE's 36 features, support-vector regressor",
    "niqe_like": "distance of these features from pristine ones, untrained",
}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    add = parser.add_argument
    add("--arms", nargs="+", default=["main"], help=f"names of arms, or of groups: {', '.join(GROUPS)}")
    add("--seeds", nargs="+", type=whole(0, MAX_SEED), default=[0, 1, 2], help="each arm is trained with each of them")
    add("--epochs", type=whole(1), default=50, help="of every arm; the refit interval shrinks in proportion")
    add("--references", default="auto", help="as for train_with_distortions.py")
    add("--data_root", default="data", help="as for train_with_distortions.py")
    add("--image_size", type=whole(8), default=32, help="as for train_with_distortions.py")
    add("--flags", default="", help='further flags of train_with_distortions.py for every arm: --flags="--no-amp"')
    add("--test_samples", type=whole(2), default=1017, help="held-out references, at most")
    add("--against", default="both", help="the arm that the others are compared with, if it is among them")
    add("--classical", type=whole(0), default=0, metavar="IMAGES",
        help="add rows for BRISQUE's features with a regressor trained on so many redrawn images, and for a distance "
        "from pristine images")  # fmt: skip
    add("--jobs", type=whole(1), default=1, help="runs at the same time, which share the processor's cores")
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
        parser.error(f"--flags: recipe.py sets --{own[0]} itself, by --{OWN_NAMES.get(own[0], own[0])}")
    if args.quick:
        args.arms, args.seeds, args.epochs, args.test_samples = QUICK_ARMS, QUICK_SEEDS, QUICK_EPOCHS, QUICK_TEST
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
        rows |= gather_classical(folders_of(args, args.against if against else arms[0]), args.classical)
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
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // args.jobs)))  # of each process
    spawn = multiprocessing.get_context("spawn")
    bar = tqdm(total=len(tasks), initial=len(tasks) - len(todo), desc="runs", unit="run")
    with bar, ProcessPoolExecutor(args.jobs, mp_context=spawn, max_tasks_per_child=1) as pool:
        running = {pool.submit(run_arm, args, *task): task for task in todo}
        try:
            for done in as_completed(running):
                arm, seed = running[done]
                if done.exception() is not None:
                    log = folder_of(args, arm, seed) / "recipe.log"
                    raise UserError(f"{arm}, seed {seed}: {done.exception()}; see {log}") from done.exception()
                bar.write(f"{arm}, seed {seed}: {in_short(read_metrics(folder_of(args, arm, seed)))}")
                bar.update()
        except BaseException:  # an interruption too
            bar.write("stopping; runs that have begun and were not interrupted come to their end first")
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
    flags = {name: value for name, value in flags.items() if name not in ("folder", *train_with_distortions.ANY_TIME)}
    patches = {target: getattr(value, "__name__", value) for target, value in ARMS[arm].patches.items()}
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
    return [*(f"--{name}={value}" for name, value in shared.items()), *shlex.split(args.flags), *shlex.split(own)]


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
        test_with_viz.main(test_with_viz.parse_args([f"--experiment={folder}", *test, "--skip_tsne"]))
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
    quality = f"SRCC {tested['srcc']:.3f}, {tested['without_pristine']['srcc']:.3f} without pristine"
    return f"{quality}; NMI {clusters['nmi']:.3f}, {clusters['active']} active clusters"


def write_results(rows, args):
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    trained = [name for name in rows if name in ARMS]
    tested = read_metrics(folder_of(args, trained[0], args.seeds[0]))
    about = {"references": tested["references"], "test_references": tested["test_references"], "epochs": args.epochs,
             "seeds": args.seeds, "image_size": args.image_size, "flags": args.flags}  # fmt: skip
    left_out = [name for name in trained if name in WITHOUT]
    tables = [quality_table(rows, args), cluster_table(rows), refit_table(trained, args), own_table(rows, trained)]
    tables += [left_out_table(left_out, args)] * bool(left_out)
    text = "\n".join("\n".join([*lines, ""]) for lines in tables)
    print(f"\n{text}")
    files = {suffix: folder / f"{args.name}.{suffix}" for suffix in ("md", "json", "png")}
    files["md"].write_text(text, encoding="utf-8")
    numbers = {name: {key: value for key, value in row.items() if key != "tested"} for name, row in rows.items()}
    write_json(files["json"], {**about, "arms": numbers})
    columns = {title: values_of(rows, name) for name, title in FIGURE_COLUMNS.items()}
    seeds = ", ".join(map(str, args.seeds))
    subtitle = f"{args.epochs} epochs, seeds {seeds}, {tested['images']} held-out images from {tested['references']}"
    plots.plot_arms(list(rows), columns, subtitle).savefig(files["png"], dpi=100)
    print("\n".join(map(str, files.values())))


def quality_table(rows, args):
    judged = {name: row for name, row in rows.items() if "srcc" in row["runs"][0]}
    differences = [difference_cell(row["difference"]) for row in judged.values()]
    cells = zip(*names_and_whats(judged), *cells_of(judged, QUALITY_COLUMNS), differences)
    against = f"without pristine, less `{args.against}`'s: over seeds [95 % over test images]"
    return markdown(["arm", "what it is", *QUALITY_COLUMNS.values(), against], cells)


def cluster_table(rows):
    clustered = {name: row for name, row in rows.items() if "nmi" in row["runs"][0]}
    cells = zip(*names_and_whats(clustered), *cells_of(clustered, CLUSTER_COLUMNS))
    return markdown(["clusters of", "what it is", *CLUSTER_COLUMNS.values()], cells)


def names_and_whats(rows):
    """(names, what each is)"""
    return [f"`{name}`" for name in rows], [ARMS[name].what if name in ARMS else OTHER_ROWS[name] for name in rows]


def cells_of(rows, columns):
    """[a column's cells, one a row]: mean ± std over seeds."""
    return [[cell(values, 1 if name in ONE_DIGIT else 3) for values in values_of(rows, name)] for name in columns]


def markdown(titles, rows):
    """The lines of a table."""
    return [f"| {' | '.join(row)} |" for row in (titles, ["---"] * len(titles), *rows)]


def values_of(rows, name):
    """[the values of one column, a list for each row]."""
    if name == "stability":
        return [[row[name]] for row in rows.values()]
    values = [[run.get(name, np.nan) for run in row["runs"]] for row in rows.values()]
    return [[len(own) if isinstance(own, list) else own for own in of_arm] for of_arm in values]


def cell(values, digits):
    return "–" if np.isnan(values).all() else spread(values, digits)


def difference_cell(difference):
    if difference is None:
        return ""
    each, (low, high) = np.array(difference["each"]), difference["interval"]
    spread_of_seeds = f" ± {each.std(ddof=1):.3f}" if len(each) > 1 else ""
    return f"{each.mean():+.3f}{spread_of_seeds} [{low:+.3f}, {high:+.3f}]"


def refit_table(arms, args):
    """A row an arm: what its refits cost and kept. Where the cluster loss has no weight, refits change nothing in the
    training: redrawn_type is the same run without refits."""
    titles = ("refits of", "worst change of validation SRCC", "mean change, less `redrawn_type`'s in the same epochs",
              "share of images kept, second half: mean (least)",
              "log-likelihood less a fresh fit's, nats an image: mean (least)")  # fmt: skip
    lines = []
    for arm in arms:
        folders = folders_of(args, arm)
        changes = [changes_at_refits(folder) for folder in folders]
        if not any(changes):
            continue
        extra = extra_changes(changes, folders_of(args, "redrawn_type")) if "redrawn_type" in arms else []
        kept, gaps = (sum(of_runs, []) for of_runs in zip(*[late_refits(folder, args.epochs) for folder in folders]))
        worst = min(change for of_run in changes for change in of_run.values())
        mean = f"{np.mean(extra):+.4f}" if extra else "–"
        lines.append([f"`{arm}`", f"{worst:+.4f}", mean, mean_and_least(kept, ".3f"), mean_and_least(gaps, "+.3f")])
    return markdown(titles, lines)


def extra_changes(changes, folders):
    """The changes at refits [{epoch: change} of each seed] less those of other runs in the same epochs."""
    others = [changes_of_srcc(folder) for folder in folders]
    return [ours[epoch] - theirs[epoch] for ours, theirs in zip(changes, others) for epoch in ours]


def left_out_table(arms, args):
    """A row an arm that was trained without a type: what it makes of that type."""
    lines = []
    for arm in arms:
        name = arm.removeprefix("without_")
        runs = [judge_unknown(folder)[name] for folder in folders_of(args, arm)]
        flagged = spread([100 * run["flagged"] for run in runs], 1)
        lines.append(
            [f"`{name}`", spread([run["auroc"] for run in runs]), flagged, spread([run["srcc"] for run in runs])]
        )
    return markdown(["trained without", "AUROC of its images", "flagged, %", "SRCC inside"], lines)


def mean_and_least(values, form):
    return f"{np.mean(values):{form}} ({min(values):{form}})" if values else "–"


def own_table(rows, arms):
    """A row an arm: in how many seeds each type had a cluster of its own."""
    types = list(dict.fromkeys(name for arm in arms for run in rows[arm]["runs"] for name in run["lifts"]))
    counts = [[sum(name in run["own"] for run in rows[arm]["runs"]) for name in types] for arm in arms]
    lines = [[f"`{arm}`", *map(str, of_arm)] for arm, of_arm in zip(arms, counts)]
    return markdown([f"own cluster, of {len(rows[arms[0]]['runs'])} seeds", *types], lines)


if __name__ == "__main__":
    run_script(main, parse_args)
