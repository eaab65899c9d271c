"""Files of tensors: whole or refused, whatever happened to them, and those of format 3."""

import io
import itertools
import os
import pickle
import signal
import time
import zlib
from dataclasses import asdict

import pytest
import torch

from tests.helpers import preloaded_context
from training.config import Recipe
from utils.checkpoint import (
    FORMAT,
    convert_config,
    convert_format_3,
    load_checkpoint,
    load_states,
    save_checkpoint,
)
from utils.errors import Damaged, UserError


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    weight = torch.randn(3, 4)
    config = {"lr": 1e-3, "types": ["a"], "pretrained": None}

    save_checkpoint(tmp_path / "c.pt", {"model": {"w": weight}, "config": config, "epoch": 3})
    loaded = load_checkpoint(tmp_path / "c.pt")

    assert torch.equal(loaded["model"]["w"], weight)
    assert loaded["config"] == config
    assert loaded["epoch"] == 3
    assert loaded["format"] == FORMAT


def test_an_interrupted_write_is_an_interruption(tmp_path, monkeypatch):
    """Torch raises a RuntimeError in its place."""
    calls = itertools.count()
    own_crc32 = zlib.crc32

    def interrupt(*args):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return own_crc32(*args)

    monkeypatch.setattr("utils.checkpoint.zlib.crc32", interrupt)

    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "c.pt", {"model": {"w": torch.randn(300, 400)}})

    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_loads_with_weights_only(tmp_path):
    """Nothing in it is a pickled class, so that a moved module breaks no saved run."""
    save_checkpoint(tmp_path / "c.pt", {"epoch": 3})

    assert torch.load(tmp_path / "c.pt", weights_only=True)["epoch"] == 3


def test_an_interrupted_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"epoch": 1})

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, {"epoch": 2})

    assert load_checkpoint(path)["epoch"] == 1


def test_a_full_disk_is_an_oserror_that_names_the_file(tmp_path):
    path = tmp_path / "c.pt"
    (tmp_path / "c.pt.tmp").symlink_to("/dev/full")

    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        save_checkpoint(path, {"w": torch.zeros(100_000)})


def test_flipped_bits_and_cuts_are_found_anywhere(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"w": torch.ones(1), "epoch": 3})
    whole = path.read_bytes()
    last = len(whole) - 40

    for at in (*range(0, last, 7), *range(last, len(whole))):
        flipped = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        for damaged in (flipped, whole[:at]):
            path.write_bytes(damaged)
            with pytest.raises(Damaged):
                load_checkpoint(path)


def test_the_checkpoint_before_is_kept(tmp_path):
    path = tmp_path / "c.pt"
    previous = tmp_path / "c.prev.pt"

    for epoch in range(3):
        save_checkpoint(path, {"epoch": epoch}, previous)

    assert load_checkpoint(path)["epoch"] == 2
    assert load_checkpoint(previous)["epoch"] == 1
    assert sorted(os.listdir(tmp_path)) == ["c.prev.pt", "c.pt"]


@pytest.mark.parametrize(
    "content", (b"", b"hello", pickle.dumps({"a": 1})), ids=("empty", "text", "pickle")
)
def test_foreign_files_are_refused(tmp_path, content):
    (tmp_path / "c.pt").write_bytes(content)

    with pytest.raises(Damaged, match="is not a checkpoint of this project, or is damaged"):
        load_checkpoint(tmp_path / "c.pt")


def test_a_checkpoint_that_is_cut_in_half_is_refused(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"w": torch.randn(1000)})
    os.truncate(path, path.stat().st_size // 2)

    with pytest.raises(Damaged, match="is not a checkpoint of this project, or is damaged"):
        load_checkpoint(path)


def test_a_file_with_code_is_refused_and_not_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was_run"),)

    torch.save({"format": FORMAT, "config": Hostile()}, tmp_path / "c.pt")

    with pytest.raises(Damaged, match="is not a checkpoint of this project, or is damaged"):
        load_checkpoint(tmp_path / "c.pt")
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    "content, version", (({"format": 99}, "99"), ({"format": 2}, "2"), ([1, 2], "None"))
)
def test_other_formats_are_refused_with_their_number(tmp_path, content, version):
    torch.save(content, tmp_path / "c.pt")

    message = f"has checkpoint format {version}, this code reads {FORMAT}"
    with pytest.raises(UserError, match=message):
        load_checkpoint(tmp_path / "c.pt")


@pytest.mark.parametrize(
    "saved",
    ({}, {"model": {}}, {"model": torch.nn.Linear(3, 2).state_dict()}),
    ids=("no model", "no weights", "another shape"),
)
def test_a_state_that_does_not_fit_names_its_file(tmp_path, saved):
    layer = torch.nn.Linear(2, 2)

    message = "last.pt: its model does not fit this code's; go on with the code that"
    with pytest.raises(UserError, match=message):
        load_states({"model": layer}, saved, tmp_path / "last.pt")


def test_a_state_that_fits_is_loaded(tmp_path):
    layer = torch.nn.Linear(2, 2)
    saved = torch.nn.Linear(2, 2)

    load_states({"model": layer}, {"model": saved.state_dict()}, tmp_path / "last.pt")

    assert torch.equal(layer.weight, saved.weight)


def make_format_3(is_last):
    """Return what a run of format 3 saved: best.pt, or last.pt with what it needs to go on."""
    checkpoint = {
        "format": 3,
        "config": {"lr": 1e-3, "stem": "small"},
        "reference_digests": ("0123", "4567"),
        "epoch": 4,
        "finished": False,
        "model": {"weight": torch.tensor([1.0, 2.0])},
        "mixture": {
            "means": torch.zeros(2, 3),
            "unknown_below": torch.tensor(-7.5, dtype=torch.float64),
            "kept": torch.tensor(0.9, dtype=torch.float64),
        },
    }
    if is_last:
        checkpoint["online"] = {"weight": torch.tensor([3.0, 4.0])}
        checkpoint["averaged"] = {"n_averaged": torch.tensor(12)}
        checkpoint["optimizer"] = {"step": 12}
        checkpoint["schedule"] = {"last_epoch": 12}
        checkpoint["log"] = [{"epoch": 0, "kept": 0.9}]
    return checkpoint


def write_format_3(path, checkpoint):
    """Write a file as the code of format 3 did: torch's, and four bytes of its CRC-32."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    content = buffer.getvalue()
    path.write_bytes(content + zlib.crc32(content).to_bytes(4, "big"))


def test_training_states_of_format_3_get_todays_names(tmp_path):
    old = make_format_3(is_last=True)
    write_format_3(tmp_path / "last.pt", old)

    loaded = load_checkpoint(tmp_path / "last.pt")

    assert loaded["format"] == FORMAT
    assert not {"online", "averaged", "optimizer", "schedule"} & loaded.keys()
    training = loaded["training"]
    assert training.keys() == {"model", "ema", "optimizer", "scheduler"}
    assert torch.equal(training["model"]["weight"], old["online"]["weight"])
    assert training["ema"] == old["averaged"]
    assert training["optimizer"] == old["optimizer"]
    assert training["scheduler"] == old["schedule"]


def test_buffers_of_a_format_3_mixture_get_todays_names():
    old = make_format_3(is_last=False)["mixture"]

    mixture = convert_format_3(make_format_3(is_last=False))["mixture"]

    assert mixture.keys() == {"means", "ood_threshold", "label_stability"}
    assert torch.equal(mixture["means"], old["means"])
    assert torch.equal(mixture["ood_threshold"], old["unknown_below"])
    assert torch.equal(mixture["label_stability"], old["kept"])


def test_what_a_format_3_run_keeps_is_not_renamed():
    """The log's columns, "kept" among them, are those of before."""
    old = make_format_3(is_last=True)

    converted = convert_format_3(old)

    for name in ("reference_digests", "epoch", "finished", "model", "log"):
        assert converted[name] is old[name]


def test_a_best_checkpoint_of_format_3_has_no_training(tmp_path):
    write_format_3(tmp_path / "best.pt", make_format_3(is_last=False))

    loaded = load_checkpoint(tmp_path / "best.pt")

    assert "training" not in loaded
    assert loaded["epoch"] == 4


def test_damage_of_a_format_3_file_is_found(tmp_path):
    path = tmp_path / "last.pt"
    write_format_3(path, make_format_3(is_last=True))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(Damaged, match="is not a checkpoint of this project, or is damaged"):
        load_checkpoint(path)


# What a configuration of before there were crops of photographs, and local types, did not say.
BEFORE_CROPS = {
    "preset": None,
    "crop": "whole",
    "working_size": 512,
    "crops_per_reference": 1,
    "local_types": [],
}


def test_a_format_3_config_gets_the_default_recipe():
    config = convert_config({"lr": 1e-3})

    expected = {"lr": 1e-3, "recipe": asdict(Recipe()), "git_commit": None, **BEFORE_CROPS}
    assert config == expected


def test_a_config_of_today_is_not_converted():
    recipe = asdict(Recipe(cutmix=False))
    config = {"lr": 1e-3, "recipe": recipe, "git_commit": "0123", **BEFORE_CROPS}

    assert convert_config(config) == config


def test_an_earlier_run_on_blocks_of_colour_knows_them_as_local():
    config = convert_config({"types": ["kadid_jpeg", "kadid_color_block"]})

    assert config["local_types"] == ["kadid_color_block"]


def test_a_recipe_of_an_earlier_version_is_completed(tmp_path):
    """Its part that is not there is what it was before it could be chosen."""
    save_checkpoint(tmp_path / "c.pt", {"config": {"recipe": {"flip": False}}})

    recipe = load_checkpoint(tmp_path / "c.pt")["config"]["recipe"]

    assert recipe["flip"] is False
    assert recipe["optimizer"] == "muon"


def interrupt_writes(folder):
    """Write a checkpoint many times, and interrupt it by a signal at another moment each time."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    state = {"model": {str(i): torch.zeros(300 * i) for i in range(40)}}
    started = time.perf_counter()
    save_checkpoint(folder / "c.pt", state)
    duration = time.perf_counter() - started
    for share in range(1, 60):
        try:
            signal.setitimer(signal.ITIMER_REAL, duration * share / 60)
            save_checkpoint(folder / "c.pt", state)
            time.sleep(duration)
        except KeyboardInterrupt:
            pass


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no such timers")
def test_an_interruption_never_aborts_the_process(tmp_path):
    """Torch's writer may outlive an interruption, and writes into the closed file then."""
    child = preloaded_context().Process(target=interrupt_writes, args=(tmp_path,))

    child.start()
    child.join()

    assert child.exitcode == 0
    load_checkpoint(tmp_path / "c.pt")
