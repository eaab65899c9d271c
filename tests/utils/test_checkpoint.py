import json
import os
import pickle

import pytest
import torch

from utils.checkpoint import FORMAT, load_checkpoint, load_states, save_checkpoint
from utils.errors import Damaged, UserError
from utils.files import write_json


def test_a_checkpoint_comes_back_as_it_was_and_loads_with_weights_only(tmp_path):
    state = {
        "model": {"w": torch.randn(3, 4)},
        "config": {"lr": 1e-3, "types": ["a"], "pretrained": None},
        "epoch": 3,
    }
    save_checkpoint(tmp_path / "c.pt", state)
    again = torch.load(tmp_path / "c.pt", weights_only=True)
    assert (
        torch.equal(again["model"]["w"], state["model"]["w"]) and again["config"] == state["config"]
    )
    assert load_checkpoint(tmp_path / "c.pt")["epoch"] == 3


def test_an_interrupted_write_leaves_the_old_checkpoint_readable(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"epoch": 1})

    def die(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, {"epoch": 2})
    assert load_checkpoint(path)["epoch"] == 1


def test_a_full_disk_is_an_oserror_that_names_the_file(tmp_path):
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path / 'c.pt'}'"):
        (tmp_path / "c.pt.tmp").symlink_to("/dev/full")
        save_checkpoint(tmp_path / "c.pt", {"w": torch.zeros(100_000)})


def test_flipped_bytes_and_cuts_are_found_wherever_they_are(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"w": torch.ones(1), "epoch": 3})
    whole = path.read_bytes()
    for at in [*range(0, len(whole) - 40, 7), *range(len(whole) - 40, len(whole))]:
        for damaged in (whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], whole[:at]):
            path.write_bytes(damaged)
            with pytest.raises(Damaged):
                load_checkpoint(path)


def test_the_checkpoint_before_is_kept(tmp_path):
    path, previous = tmp_path / "c.pt", tmp_path / "c.prev.pt"
    for epoch in range(3):
        save_checkpoint(path, {"epoch": epoch}, previous)
    assert [load_checkpoint(each)["epoch"] for each in (path, previous)] == [2, 1]
    assert sorted(os.listdir(tmp_path)) == ["c.prev.pt", "c.pt"]


def test_damaged_foreign_and_hostile_files_are_refused(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"w": torch.randn(1000)})
    whole = path.read_bytes()

    class Hostile:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "was_run"),))

    torch.save({"format": FORMAT, "config": Hostile()}, tmp_path / "hostile.pt")
    torch.save({"format": 99}, tmp_path / "future.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps({"a": 1}))
    for name in ("hostile", "cut", "text", "pickle"):
        with pytest.raises(ValueError, match="is not a checkpoint of this project, or is damaged"):
            load_checkpoint(tmp_path / f"{name}.pt")
    for name in ("future", "list"):
        with pytest.raises(
            ValueError, match=f"has checkpoint format (99|None), this code reads {FORMAT}"
        ):
            load_checkpoint(tmp_path / f"{name}.pt")
    assert not (tmp_path / "was_run").exists()


def test_json_is_written_whole(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, float("nan")]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1, None]}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_state_that_does_not_fit_is_told_with_its_file(tmp_path):
    layer = torch.nn.Linear(2, 2)
    for saved in ({}, {"model": {}}, {"model": torch.nn.Linear(3, 2).state_dict()}):
        with pytest.raises(
            UserError,
            match=r"last.pt: its model does not fit this code's; go on with the code that",
        ):
            load_states({"model": layer}, saved, tmp_path / "last.pt")
    load_states(
        {"model": layer}, {"model": torch.nn.Linear(2, 2).state_dict()}, tmp_path / "last.pt"
    )
