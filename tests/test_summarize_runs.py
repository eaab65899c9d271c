"""The table over runs, and the file of its numbers, from folders with made-up numbers."""

import json

import pytest

import summarize_runs
from distortions.registry import DISTORTION_TYPES
from evaluation.results import METRIC_TITLES
from utils.errors import UserError

SCORES = (0.5, 0.75)  # of seeds 0 and 1
HEADER = ["title", "command", "commit", "machine", "date", "versions", "seeds"]


def write_run(folder, seed, score, digest="same", refit=True):
    """Write what a run leaves, as far as summarize_runs reads it; every measure is the score."""
    measures = dict.fromkeys(METRIC_TITLES, score)
    metrics = {
        "run": folder.name,
        "checkpoint": "best",
        "epoch": 2,
        "trained_on": "folder a",
        "references": "folder a",
        "test_references": 4,
        "photographs": 4,
        "digest": digest,
        "images": 24,
        **measures,
        "without_pristine": measures,
        "by_type": {name: {"srcc": score} for name in DISTORTION_TYPES},
        "clusters": dict.fromkeys(("active", "effective", "nmi", "ari", "purity"), score),
        "figures": ["tsne.png"],
        "test": {"references": "/home/someone/a", "samples": 4},
    }
    config = {
        "seed": seed,
        "references": "/home/someone/a",
        "data_root": "/home/someone/data",
        "epochs": 2,
        "versions": {"python": "3.11.7", "torch": f"2.{seed}"},
        "git_commit": "abc",
    }
    early = {"epoch": 0, "srcc": 0.1, "refit": refit, "kept": 0.0}
    late = {"epoch": 1, "srcc": score, "refit": refit, "kept": score}
    log = [early, late]

    (folder / "visualizations").mkdir(parents=True)
    (folder / "visualizations" / "metrics.json").write_text(json.dumps(metrics))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return str(folder)


def summarize(folders, *flags):
    summarize_runs.main(summarize_runs.parse_args([*folders, *flags]))


@pytest.fixture
def folders(tmp_path):
    return [write_run(tmp_path / f"seed{i}", i, score) for i, score in enumerate(SCORES)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results" / "full.json"


def test_the_file_gives_the_printed_table(folders, path, capsys):
    summarize(folders, f"--output={path}")

    printed = capsys.readouterr().out.splitlines()
    runs = json.loads(path.read_text())["runs"]
    assert [run["srcc"] for run in runs] == list(SCORES)
    for lines in (summarize_runs.quality_lines, summarize_runs.cluster_lines):
        assert set(lines(runs)) <= set(printed)
    assert set(summarize_runs.type_lines(runs)) <= set(printed)
    assert "| SRCC | 0.625 ± 0.177 | 0.625 ± 0.177 |" in printed


def test_the_file_says_how_it_was_made(folders, path):
    summarize(folders, f"--output={path}")

    result = json.loads(path.read_text())
    assert list(result) == [*HEADER, "runs"]
    assert result["seeds"] == [0, 1]
    assert result["machine"].keys() == {"processor", "cores", "threads", "gpu"}


def test_commit_and_versions_are_those_of_training(folders, path):
    """Each once, where runs differ."""
    summarize(folders, f"--output={path}")

    result = json.loads(path.read_text())
    assert result["commit"] == "abc"
    assert result["versions"] == {"python": "3.11.7", "torch": "2.0, 2.1"}


def test_the_file_holds_flags_but_no_paths_of_a_machine(folders, path):
    summarize(folders, f"--output={path}")

    result = json.loads(path.read_text())
    assert [run["config"]["epochs"] for run in result["runs"]] == [2, 2]
    assert "/home/someone" not in json.dumps(result["runs"])


def test_the_worst_change_at_a_refit_is_of_each_run(folders, path, capsys):
    summarize(folders, f"--output={path}")

    runs = json.loads(path.read_text())["runs"]
    assert [run["worst_change_at_refit"] for run in runs] == pytest.approx([0.4, 0.65])
    assert "over a refit epoch | +0.400 |" in capsys.readouterr().out


def test_a_run_without_refits_has_no_worst_change(tmp_path, path, capsys):
    folder = write_run(tmp_path / "none", 0, 0.5, refit=False)

    summarize([folder], f"--output={path}")

    assert json.loads(path.read_text())["runs"][0]["worst_change_at_refit"] is None
    assert "refit epoch" not in capsys.readouterr().out


def test_stability_is_that_of_the_second_half_of_training(folders, path, capsys):
    summarize(folders, "--output", str(path))

    runs = json.loads(path.read_text())["runs"]
    assert [run["late_stability"] for run in runs] == list(SCORES)
    assert "keep their cluster at a late refit | 0.625 ± 0.177 |" in capsys.readouterr().out


def test_a_run_without_refits_has_no_stability(tmp_path, path, capsys):
    folder = write_run(tmp_path / "seed0", 0, 0.5, refit=False)

    summarize([folder], "--output", str(path))

    assert json.loads(path.read_text())["runs"][0]["late_stability"] is None
    assert "late refit" not in capsys.readouterr().out


def test_without_output_nothing_is_written(folders, tmp_path):
    before = sorted(tmp_path.rglob("*"))

    summarize(folders)

    assert sorted(tmp_path.rglob("*")) == before


def test_runs_of_different_tests_write_nothing(folders, tmp_path, path):
    other = write_run(tmp_path / "other", 2, 0.5, digest="other")

    with pytest.raises(UserError, match="different images"):
        summarize([*folders, other], f"--output={path}")

    assert not path.exists()


def test_a_run_that_is_named_twice_is_no_second_seed(folders):
    with pytest.raises(UserError, match="name every run once"):
        summarize([*folders, f"{folders[0]}/config.json"])
