import json

import pytest

import run_folder


def fill(folder):
    """A folder with a finished run, a test of it, and a note of the user's."""
    run_folder.start(folder, {"lr": 1})
    for epoch in range(3):
        run_folder.append_log(folder, {"epoch": epoch, "srcc": float("nan")})
    for name in ("last.pt", "best.pt", "notes.txt"):
        (folder / name).write_text(name)
    (folder / "visualizations").mkdir()


def test_a_run_is_refused_whole_or_in_part(tmp_path):
    run_folder.refuse_to_mix(tmp_path / "new")
    for name in run_folder.RUN_FILES:
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        (folder / name).write_text("")
        with pytest.raises(ValueError, match="holds a run already; --resume goes on"):
            run_folder.refuse_to_mix(folder)


def test_start_leaves_the_new_configuration_and_what_is_not_a_runs(tmp_path):
    fill(tmp_path)
    run_folder.start(tmp_path, {"lr": 2})
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "notes.txt"}
    assert json.loads((tmp_path / "config.json").read_text()) == {"lr": 2}


@pytest.mark.parametrize("victim", ("log.jsonl", "last.pt", "best.pt"))
def test_a_kill_while_a_run_is_replaced_leaves_nothing_to_resume(tmp_path, monkeypatch, victim):
    fill(tmp_path)
    unlink = type(tmp_path).unlink

    def dying_unlink(path, missing_ok=False):
        if path.name == victim:
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    monkeypatch.setattr(type(tmp_path), "unlink", dying_unlink)
    with pytest.raises(KeyboardInterrupt):
        run_folder.start(tmp_path, {"lr": 2})
    assert not (tmp_path / "config.json").exists()


def test_a_run_without_its_checkpoint_is_restarted_only_at_its_beginning(tmp_path):
    fill(tmp_path)
    assert run_folder.has_begun(tmp_path)
    (tmp_path / "last.pt").unlink()
    with pytest.raises(ValueError, match="has no last.pt to go on from; --overwrite starts the run anew"):
        run_folder.has_begun(tmp_path)
    run_folder.start(tmp_path, {"lr": 2})
    assert not run_folder.has_begun(tmp_path)


def test_the_log_is_json_and_is_trimmed_to_the_checkpoint(tmp_path):
    fill(tmp_path)
    log = tmp_path / "log.jsonl"
    log.write_text(log.read_text() + '{"epoch": 3, "sr')
    assert [line["epoch"] for line in run_folder.read_log(tmp_path)] == [0, 1, 2]
    run_folder.trim_log(tmp_path, 2)
    assert [json.loads(line) for line in log.read_text().splitlines()] == [{"epoch": e, "srcc": None} for e in (0, 1)]
    with pytest.raises(ValueError, match="has 2 lines for 3 epochs"):
        run_folder.trim_log(tmp_path, 3)
