import json

import pytest
import torch

from training import checkpointing
from utils.checkpoint import load_checkpoint
from utils.errors import Damaged


def fill(folder):
    """A folder with a finished run, a test of it, and a note of the user's."""
    checkpointing.start(folder, {"lr": 1})
    for epoch in range(3):
        checkpointing.append_log(folder, {"epoch": epoch, "srcc": float("nan")})
    for name in ("last.pt", "last.prev.pt", "best.pt", "best.pt.tmp", "notes.txt"):
        (folder / name).write_text(name)
    (folder / "visualizations").mkdir()


def test_a_run_is_refused_whole_or_in_part(tmp_path):
    checkpointing.refuse_to_mix(tmp_path / "new")
    for name in checkpointing.RUN_FILES:
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        (folder / name).write_text("")
        with pytest.raises(ValueError, match="holds a run already; --resume goes on"):
            checkpointing.refuse_to_mix(folder)


def test_start_leaves_the_new_configuration_and_what_is_not_a_runs(tmp_path):
    fill(tmp_path)
    checkpointing.start(tmp_path, {"lr": 2})
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "notes.txt"}
    assert json.loads((tmp_path / "config.json").read_text()) == {"lr": 2}


@pytest.mark.parametrize("victim", ("log.jsonl", "last.pt", "last.prev.pt", "best.pt"))
def test_a_kill_while_a_run_is_replaced_leaves_nothing_to_resume(tmp_path, monkeypatch, victim):
    fill(tmp_path)
    unlink = type(tmp_path).unlink

    def dying_unlink(path, missing_ok=False):
        if path.name == victim:
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    monkeypatch.setattr(type(tmp_path), "unlink", dying_unlink)
    with pytest.raises(KeyboardInterrupt):
        checkpointing.start(tmp_path, {"lr": 2})
    assert not (tmp_path / "config.json").exists()


def test_a_kill_while_a_resumed_run_begins_again_leaves_it_to_resume(tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.setattr(checkpointing, "remove_temporary", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        checkpointing.start(tmp_path, {"lr": 1}, resume=True)
    assert json.loads((tmp_path / "config.json").read_text()) == {"lr": 1}


def test_a_run_without_its_checkpoint_is_restarted_only_at_its_beginning(tmp_path):
    fill(tmp_path)
    assert checkpointing.has_begun(tmp_path)
    (tmp_path / "last.pt").unlink()
    assert checkpointing.has_begun(tmp_path)
    (tmp_path / "last.prev.pt").unlink()
    with pytest.raises(
        ValueError, match="has no last.pt to go on from; --overwrite starts the run anew"
    ):
        checkpointing.has_begun(tmp_path)
    checkpointing.start(tmp_path, {"lr": 2})
    assert not checkpointing.has_begun(tmp_path)


def test_a_best_epoch_waits_for_the_next_write_as_it_was(tmp_path, monkeypatch):
    """Epochs of ten seconds, saved every fifteen; the second and the fourth are the best so far."""
    weights, written = torch.zeros(1), []
    monkeypatch.setattr(checkpointing.time, "monotonic", lambda: now)
    saver = checkpointing.Saver(tmp_path, 15)
    for epoch, now in enumerate(range(0, 50, 10)):
        weights += 1
        saver.keep(
            {"epoch": epoch, "model": weights},
            {"log": [epoch]},
            best=epoch in (1, 3),
            final=epoch == 4,
        )
        found = {
            path.stem: load_checkpoint(path)
            for path in (tmp_path / "last.pt", tmp_path / "best.pt")
            if path.exists()
        }
        written.append(
            {name: (state["epoch"], state["model"].item()) for name, state in found.items()}
        )
    assert written == [
        {"last": (0, 1)},
        {"last": (0, 1)},
        {"last": (2, 3), "best": (1, 2)},
        {"last": (2, 3), "best": (1, 2)},
        {"last": (4, 5), "best": (3, 4)},
    ]
    assert load_checkpoint(tmp_path / "last.pt")["log"] == [4] and "log" not in load_checkpoint(
        tmp_path / "best.pt"
    )


def test_the_log_is_json_and_is_put_back_as_the_checkpoint_has_it(tmp_path, capsys):
    fill(tmp_path)
    log, lines = tmp_path / "log.jsonl", checkpointing.read_log(tmp_path)
    assert lines == [{"epoch": epoch, "srcc": None} for epoch in range(3)]
    written = log.read_bytes()
    for damaged in (written + b'{"epoch": 3, "sr', written[:-9], b"\xff" + written, b""):
        log.write_bytes(damaged)
        checkpointing.put_back_log(tmp_path, lines)
        assert log.read_bytes() == written
    capsys.readouterr()
    checkpointing.put_back_log(tmp_path, lines[:1])
    assert checkpointing.read_log(tmp_path) == lines[:1]
    assert (
        capsys.readouterr().out
        == f"going on from {tmp_path / 'last.pt'}, epoch 1; epochs trained again: 2\n"
    )


def test_half_a_last_line_is_left_out_and_a_damaged_one_is_named(tmp_path):
    fill(tmp_path)
    log = tmp_path / "log.jsonl"
    log.write_bytes(log.read_bytes() + b'{"epoch": 3, "sr')
    assert [line["epoch"] for line in checkpointing.read_log(tmp_path)] == [0, 1, 2]
    log.write_bytes(log.read_bytes() + b"\n")
    with pytest.raises(
        Damaged,
        match=rf"log.jsonl is damaged in line 4 .* --experiment_name {tmp_path.name} --resume",
    ):
        checkpointing.read_log(tmp_path)
    log.write_bytes(b"5\n")
    with pytest.raises(Damaged, match="in line 1 .no dict of values"):
        checkpointing.read_log(tmp_path)
