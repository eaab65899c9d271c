"""A run's folder: what may be replaced, when, and what comes back."""

import json
from types import SimpleNamespace

import pytest
from torch import nn

from evaluation.results import read_log
from training import checkpointing
from training.checkpointing import create_run, ensure_new_run, has_checkpoint, open_run, restore_log
from utils.checkpoint import load_checkpoint
from utils.errors import Damaged
from utils.files import append_line

PLACES = {"references": "photos", "data_root": "data", "references_name": "crops"}
CONFIG = {"digest": "0123", "lr": 1, **PLACES}


def fill(folder):
    """Leave a finished run, a test of it, and a note of the user's in the folder."""
    create_run(folder, CONFIG)
    for epoch in range(3):
        append_line(folder / "log.jsonl", {"epoch": epoch, "srcc": float("nan")})
    for name in ("last.pt", "last.prev.pt", "best.pt", "best.pt.tmp", "notes.txt"):
        (folder / name).write_text(name)
    (folder / "visualizations").mkdir()


def make_state(weight=0.0):
    """Return what OpenRun needs of a TrainingState: a model of one weight, and its average."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, weight)
    mixture = nn.Linear(1, 1)
    return SimpleNamespace(
        ema_model=model, mixture=mixture, parts=lambda: {"model": model, "ema": model}
    )


def open_folder(folder, **options):
    settings = {"resume": False, "overwrite": False, "save_interval": 0, **options}
    return open_run(folder, CONFIG, ("digest",), **settings)


def test_a_new_folder_is_no_run(tmp_path):
    ensure_new_run(tmp_path / "new")


@pytest.mark.parametrize("name", checkpointing.RUN_FILES)
def test_a_part_of_a_run_is_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("")

    with pytest.raises(ValueError, match="holds a run already; --resume goes on"):
        ensure_new_run(tmp_path)


def test_a_new_run_keeps_files_that_are_not_a_runs(tmp_path):
    fill(tmp_path)

    create_run(tmp_path, {"lr": 2})

    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "notes.txt"}
    assert json.loads((tmp_path / "config.json").read_text()) == {"lr": 2}


@pytest.mark.parametrize("victim", ("log.jsonl", "last.pt", "last.prev.pt", "best.pt"))
def test_a_kill_while_replacing_leaves_nothing_to_resume(tmp_path, monkeypatch, victim):
    fill(tmp_path)
    unlink = type(tmp_path).unlink

    def dying_unlink(path, missing_ok=False):
        if path.name == victim:
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    monkeypatch.setattr(type(tmp_path), "unlink", dying_unlink)
    with pytest.raises(KeyboardInterrupt):
        create_run(tmp_path, {"lr": 2})

    assert not (tmp_path / "config.json").exists()


def test_a_kill_while_beginning_again_leaves_it_to_resume(tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.setattr(checkpointing, "remove_temporary", lambda folder: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        create_run(tmp_path, CONFIG, resume=True)

    assert json.loads((tmp_path / "config.json").read_text()) == CONFIG


def test_either_checkpoint_is_enough_to_go_on(tmp_path):
    fill(tmp_path)
    assert has_checkpoint(tmp_path)

    (tmp_path / "last.pt").unlink()
    assert has_checkpoint(tmp_path)


def test_a_long_run_without_its_checkpoint_is_refused(tmp_path):
    fill(tmp_path)
    (tmp_path / "last.pt").unlink()
    (tmp_path / "last.prev.pt").unlink()

    with pytest.raises(ValueError, match="has no last.pt to go on from; --overwrite starts"):
        has_checkpoint(tmp_path)


def test_a_run_at_its_beginning_has_no_checkpoint(tmp_path):
    create_run(tmp_path, CONFIG)

    assert not has_checkpoint(tmp_path)


def test_a_best_epoch_waits_for_the_next_write_as_it_was(tmp_path, monkeypatch):
    """Epochs of ten seconds, saved every fifteen; the second and the fourth are the best."""
    now = 0
    monkeypatch.setattr(checkpointing.time, "monotonic", lambda: now)
    state = make_state()
    written = []

    with open_folder(tmp_path, save_interval=15) as run:
        for epoch in range(5):
            now = 10 * epoch
            nn.init.constant_(state.ema_model.weight, epoch + 1)
            run.log({"epoch": epoch})
            run.save(state, is_best=epoch in (1, 3), is_last=epoch == 4)
            found = {}
            for name in ("last", "best"):
                if (tmp_path / f"{name}.pt").exists():
                    checkpoint = load_checkpoint(tmp_path / f"{name}.pt")
                    found[name] = (checkpoint["epoch"], checkpoint["model"]["weight"].item())
            written.append(found)

    assert written == [
        {"last": (0, 1)},
        {"last": (0, 1)},
        {"last": (2, 3), "best": (1, 2)},
        {"last": (2, 3), "best": (1, 2)},
        {"last": (4, 5), "best": (3, 4)},
    ]


def test_only_last_pt_holds_what_a_run_needs_to_go_on(tmp_path):
    with open_folder(tmp_path) as run:
        run.log({"epoch": 0})
        run.save(make_state(), is_best=True, is_last=True)

    assert load_checkpoint(tmp_path / "last.pt")["log"] == [{"epoch": 0}]
    assert load_checkpoint(tmp_path / "last.pt")["training"].keys() == {"model", "ema"}
    assert load_checkpoint(tmp_path / "best.pt").keys().isdisjoint({"log", "training"})


def test_a_resumed_run_gets_state_and_log_back(tmp_path):
    with open_folder(tmp_path) as run:
        run.log({"epoch": 0, "srcc": float("nan")})
        run.save(make_state(weight=7.0), is_best=True, is_last=False)
    state = make_state()

    with open_folder(tmp_path, resume=True) as run:
        run.restore(state)

        assert run.epochs_done == 1
        assert run.lines == [{"epoch": 0, "srcc": None}]
    assert state.ema_model.weight.item() == 7


def test_other_references_are_not_resumed(tmp_path):
    with open_folder(tmp_path) as run:
        run.log({"epoch": 0})
        run.save(make_state(), is_best=True, is_last=False)
    other = {**CONFIG, "digest": "4567"}
    options = {"resume": True, "overwrite": False, "save_interval": 0}

    changed = pytest.raises(ValueError, match="the references in photos are not those that")
    with changed, open_run(tmp_path, other, ("digest",), **options):
        raise AssertionError("it was opened")


def test_a_second_process_is_refused(tmp_path):
    refused = pytest.raises(ValueError, match="is being trained by another process")
    with open_folder(tmp_path), refused, open_folder(tmp_path, overwrite=True):
        raise AssertionError("it was opened")


def test_the_log_is_json_with_null_for_nan(tmp_path):
    fill(tmp_path)

    assert read_log(tmp_path) == [{"epoch": epoch, "srcc": None} for epoch in range(3)]


@pytest.mark.parametrize("damage", ("half a line more", "cut", "another start", "empty"))
def test_a_damaged_log_is_put_back(tmp_path, damage):
    fill(tmp_path)
    log = tmp_path / "log.jsonl"
    lines = read_log(tmp_path)
    whole = log.read_bytes()
    damaged = {
        "half a line more": whole + b'{"epoch": 3, "sr',
        "cut": whole[:-9],
        "another start": b"\xff" + whole,
        "empty": b"",
    }

    log.write_bytes(damaged[damage])
    restore_log(tmp_path, lines)

    assert log.read_bytes() == whole


def test_epochs_that_are_trained_again_are_counted(tmp_path, capsys):
    fill(tmp_path)
    lines = read_log(tmp_path)

    restore_log(tmp_path, lines[:1])

    assert read_log(tmp_path) == lines[:1]
    expected = f"going on from {tmp_path / 'last.pt'}, epoch 1; epochs trained again: 2\n"
    assert capsys.readouterr().out == expected


def test_half_a_last_line_is_left_out(tmp_path):
    fill(tmp_path)
    log = tmp_path / "log.jsonl"

    log.write_bytes(log.read_bytes() + b'{"epoch": 3, "sr')

    assert [line["epoch"] for line in read_log(tmp_path)] == [0, 1, 2]


@pytest.mark.parametrize(
    "line, message",
    (
        (b'{"epoch": 3, "sr\n', r"damaged in line 4 .* --experiment_name run --resume"),
        (b"5\n", "in line 4 .no dict of values"),
    ),
)
def test_a_damaged_line_is_named(tmp_path, line, message):
    folder = tmp_path / "run"
    folder.mkdir()
    fill(folder)
    log = folder / "log.jsonl"

    log.write_bytes(log.read_bytes() + line)

    with pytest.raises(Damaged, match=message):
        read_log(folder)
