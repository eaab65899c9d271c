"""The ablations as users run them, at a tiny size."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from ablations import jobs, run
from ablations.ceiling import color_differences
from ablations.variants import ABLATIONS, GROUPS
from evaluation.results import read_columns
from tests.helpers import run_script
from utils.files import null_to_nan

TINY = "--train_samples=16 --val_samples=4 --distortions_per_image=3 --n_clusters=3"


def run_module(command, folder, status=0):
    """Run a module of ablations by its command line: (stdout, stderr)."""
    name, *flags = shlex.split(command)
    ended, output, problem = run_script(f"ablations.{name}", flags, folder)
    assert ended == status, output + problem
    return output, problem


@pytest.fixture(scope="module")
def quick(module_folder):
    """The folder of two ablations with two seeds each."""
    folder = module_folder / "quick"
    folder.mkdir()
    run_module("run --quick --jobs 2 --classical 200 --output results", folder)
    return folder


@pytest.fixture(scope="module")
def changed(module_folder):
    """The folder of three ablations that change the dataset, the recipe, or the types."""
    folder = module_folder / "changed"
    folder.mkdir()
    run_module(
        "run --ablations old_approach adamw without_contrast --seeds 0 --epochs 1 --jobs 2 "
        f"--references photos --test_samples 6 --name tiny --output results --flags='{TINY}'",
        folder,
    )
    return folder


def read_numbers(folder, name="quick"):
    return json.loads((folder / "results" / f"{name}.json").read_text())


def read_json(path):
    return json.loads(path.read_text())


@pytest.mark.slow
def test_every_ablation_has_numbers_for_each_seed(quick):
    numbers = read_numbers(quick)

    rows = numbers["ablations"]
    assert list(rows) == ["redrawn_plain", "both", "brisque_svr", "niqe_like"]
    assert [run["seed"] for run in rows["both"]["runs"]] == numbers["seeds"] == [0, 1]
    assert numbers["test_references"] == 24


@pytest.mark.slow
def test_the_numbers_say_how_they_were_made(quick):
    numbers = read_numbers(quick)

    expected = "python -m ablations.run --quick --jobs 2 --classical 200 --output results"
    assert numbers["command"] == expected
    assert numbers.keys() >= {"commit", "machine", "date", "versions"}


@pytest.mark.slow
def test_seeds_are_compared_pair_by_pair(quick):
    rows = read_numbers(quick)["ablations"]
    plain = [run["srcc_without_pristine"] for run in rows["redrawn_plain"]["runs"]]
    both = [run["srcc_without_pristine"] for run in rows["both"]["runs"]]

    assert rows["both"]["difference"] is None
    gained = rows["redrawn_plain"]["difference"]["each"]
    assert gained == pytest.approx(np.subtract(plain, both).tolist())


@pytest.mark.slow
def test_the_tables_have_a_row_for_each_ablation(quick):
    lines = (quick / "results" / "quick.md").read_text().splitlines()
    quality = lines[: lines.index("")]
    clusters = lines[len(quality) + 1 :][:4]

    names = [line.split("|")[1].strip(" `") for line in quality]
    assert names == ["ablation", "---", *read_numbers(quick)["ablations"]]
    assert len({line.count("|") for line in quality}) == 1
    names = [line.split("|")[1].strip(" `") for line in clusters]
    assert names == ["clusters of", "---", "redrawn_plain", "both"]


@pytest.mark.slow
def test_the_tables_come_from_the_numbers_alone(quick):
    numbers = null_to_nan(read_numbers(quick))
    rows = numbers["ablations"]
    for row in rows.values():
        if np.isscalar(row["difference"]):
            row["difference"] = None

    tables = run.make_tables(rows, numbers["against"])

    text = (quick / "results" / "quick.md").read_text()
    assert "\n".join("\n".join([*lines, ""]) for lines in tables) == text


@pytest.mark.slow
def test_the_figure_is_drawn(quick):
    assert (quick / "results" / "quick.png").stat().st_size > 10_000


@pytest.mark.slow
def test_refits_are_recorded(quick):
    text = (quick / "experiments" / "quick_both_seed0" / "refits.jsonl").read_text()
    first, *others = [json.loads(line) for line in text.splitlines()]

    assert first["epoch"] == 1
    assert first["kept"] is None
    assert first["log_likelihood"] == first["fresh_log_likelihood"]
    assert [line["epoch"] for line in others] == [2, 2]  # those of last.pt and best.pt
    # The embeddings have hardly changed. A best epoch before the first refit has no clusters yet.
    kept = [line["kept"] for line in others if line["kept"] is not None]
    assert min(kept) >= 0.9


@pytest.mark.slow
def test_the_same_command_again_trains_nothing(quick):
    paths = list(quick.glob("experiments/*/visualizations/metrics.json"))
    before = [path.stat().st_mtime for path in paths]

    run_module("run --quick --output results", quick)

    assert len(paths) == 4
    assert [path.stat().st_mtime for path in paths] == before


@pytest.mark.slow
@pytest.mark.parametrize("changes", ["other flags", "no description"])
def test_other_runs_are_not_taken_for_these(quick, changes):
    """Those of an earlier version, which left arm.json, have no description."""
    description = quick / "experiments" / "quick_both_seed0" / "ablation.json"
    before = description.read_text()
    flags = "--flags=--no-amp" if changes == "other flags" else ""
    if changes == "no description":
        description.rename(description.with_name("arm.json"))

    _, problem = run_module(f"run --quick {flags} --output results", quick, status=1)
    description.write_text(before)

    assert "was trained with other flags, or by another script or version" in problem
    assert "give another --name" in problem
    assert "Traceback" not in problem


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"checkpoint": "last"}, {"samples": 23}])
def test_a_run_tested_otherwise_is_not_done(quick, monkeypatch, change):
    monkeypatch.chdir(quick)
    args = run.parse_args(["--quick"])
    path = Path("experiments/quick_both_seed0/visualizations/metrics.json")
    before = path.read_text()
    metrics = json.loads(before)
    assert jobs.is_done(args, "both", 0)

    (metrics["test"] if "samples" in change else metrics).update(change)
    path.write_text(json.dumps(metrics))
    done = jobs.is_done(args, "both", 0)
    path.write_text(before)

    assert not done


@pytest.mark.slow
def test_a_run_tested_otherwise_is_tested_again(quick):
    path = quick / "experiments" / "quick_both_seed0" / "visualizations" / "metrics.json"
    before = read_json(path)
    path.write_text(json.dumps({**before, "checkpoint": "last"}))

    run_module("run --quick --output results", quick)

    assert read_json(path) == before


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--name a/b", "leave out slashes"),
        ("--against main", "--against 'main' is no ablation"),
        ("--flags=--seed=5", "ablations.run sets --seed itself, by --seeds"),
        ("--flags=--preset=photographs", "ablations set the recipe, so give a preset's flags"),
        ("--ablations both nothing", "'nothing' is no ablation or group of ablations"),
    ],
)
def test_flags_that_would_mislead_are_refused(capsys, flags, message):
    with pytest.raises(SystemExit):
        run.parse_args(flags.split())

    assert message in capsys.readouterr().err


def test_other_training_images_have_the_same_test():
    args = run.parse_args(["--references", "photos"])

    both = jobs.describe(args, "both", 0)
    more = jobs.describe(args, "per_image_8", 0)

    assert both["test"] == more["test"]
    assert both["flags"] != more["flags"]


def test_refits_follow_the_number_of_epochs():
    args = run.parse_args(["--epochs", "15"])

    assert "--refit_interval=3" in jobs.training_flags(args, "both", 0)
    assert jobs.training_flags(args, "refit_double", 0)[-2:] == ["--refit_interval", "6"]


def test_the_list_names_every_ablation_and_group(capsys):
    run.main(run.parse_args(["--list"]))

    output = capsys.readouterr().out
    for name in (*ABLATIONS, *GROUPS):
        assert name in output


@pytest.mark.slow
def test_a_changed_part_is_in_the_runs_configuration(changed):
    config = read_json(changed / "experiments" / "tiny_adamw_seed0" / "config.json")

    assert config["recipe"]["optimizer"] == "adamw"


@pytest.mark.slow
def test_a_type_that_was_left_out_has_its_row(changed):
    lines = (changed / "results" / "tiny.md").read_text().splitlines()
    row = next(line for line in lines if line.startswith("| `contrast`"))

    assert 0 <= float(row.split("|")[2]) <= 1


@pytest.mark.slow
def test_ablations_of_the_same_types_have_the_same_test(changed):
    digests = {}
    for path in changed.glob("experiments/*/visualizations/metrics.json"):
        digests[path.parent.parent.name] = read_json(path)["digest"]

    without_contrast = digests.pop("tiny_without_contrast_seed0")
    assert without_contrast not in digests.values()
    assert len(digests) == 2
    assert len(set(digests.values())) == 1


@pytest.mark.slow
def test_a_run_that_fails_is_named_with_its_log(tmp_path):
    command = "run --quick --flags=--n_clusters=500 --output results"

    _, problem = run_module(command, tmp_path, status=1)

    assert "seed 0: --n_clusters 500 needs at least 500 training images" in problem
    assert "ablation.log" in problem


@pytest.mark.slow
def test_unknown_distortions_have_a_row_each(quick):
    folders = "experiments/quick_both_seed0 experiments/quick_both_seed1"

    output, _ = run_module(f"unknown {folders}", quick)

    names = [line.split("`")[1] for line in output.splitlines()[2:]]
    assert names == ["rain", "fog", "lens_distortion", "chromatic_aberration"]


@pytest.mark.slow
def test_the_old_approach_is_held_against_ours(changed):
    folders = [f"experiments/tiny_{name}_seed0" for name in ("old_approach", "adamw")]

    output, _ = run_module("old_approach --old {} --ours {}".format(*folders), changed)

    table = [line for line in output.splitlines() if line.startswith("|")]
    rows = [[float(cell) for cell in line.split("|")[2:4]] for line in table[2:]]
    for folder, (_, on_ours) in zip(folders, rows):
        metrics = read_json(changed / folder / "visualizations" / "metrics.json")
        assert on_ours == pytest.approx(metrics["without_pristine"]["srcc"], abs=6e-4)
    assert rows[0] != rows[1]


@pytest.mark.slow
def test_confusions_of_a_type_add_up_to_all(quick):
    output, _ = run_module("ceiling experiments/quick_both_seed0", quick)

    rows = [line for line in output.splitlines() if line.startswith("| jpeg_compression |")]
    shares = [float(cell) for cell in rows[1].split("|")[2:-1]]
    assert sum(shares) == pytest.approx(100, abs=3)
    assert "color_saturation, less" in output
    assert "ΔE" in output


@pytest.mark.slow
def test_pristine_images_have_no_colour_difference(quick):
    folder = quick / "experiments" / "quick_both_seed0"
    (types,) = read_columns(folder, "type")

    differences = color_differences(folder)

    assert (differences[types == "pristine"] == 0).all()
    assert (differences[types == "brightness"] > 3).all()


@pytest.mark.slow
def test_confusions_need_a_type_head(quick):
    _, problem = run_module("ceiling experiments/quick_redrawn_plain_seed0", quick, status=1)

    assert "has no type head" in problem
