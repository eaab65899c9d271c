"""Files are complete or not there, and JSON holds nan as null."""

import errno
import json
import math
import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT
from utils import files
from utils.errors import Damaged

WAY_OUT = "start again"


def write_bytes(content):
    return lambda file: file.write(content)


def test_a_written_file_leaves_no_temporary(tmp_path):
    files.write_atomically(tmp_path / "a", write_bytes(b"new"))

    assert (tmp_path / "a").read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_the_previous_file_is_kept_if_named(tmp_path):
    (tmp_path / "a").write_bytes(b"old")

    files.write_atomically(tmp_path / "a", write_bytes(b"new"), previous=tmp_path / "a.prev")

    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "a.prev").read_bytes() == b"old"


def test_the_first_file_has_no_previous(tmp_path):
    files.write_atomically(tmp_path / "a", write_bytes(b"new"), previous=tmp_path / "a.prev")

    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    (tmp_path / "a").write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/a'"):
        files.write_atomically(tmp_path / "a", fail, previous=tmp_path / "a.prev")

    assert (tmp_path / "a").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_full_device_is_named():
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        files.append_line("/dev/full", {})


LOCKS = """
import sys
from utils.files import try_lock
with open(sys.argv[1], "a") as file:
    print(try_lock(file))
"""


def test_a_lock_is_held_by_one_process(tmp_path):
    command = [sys.executable, "-c", LOCKS, tmp_path / "lock"]
    results = []

    with open(tmp_path / "lock", "a") as lock:
        results.append(files.try_lock(lock))
        results.append(subprocess.check_output(command, cwd=ROOT, text=True))
    results.append(subprocess.check_output(command, cwd=ROOT, text=True))

    assert results == [True, "False\n", "True\n"]


def test_without_locks_there_is_a_warning(tmp_path, monkeypatch, capsys):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)

    with open(tmp_path / "lock", "a") as lock:
        assert files.try_lock(lock)

    assert "cannot be locked against other processes (No locks" in capsys.readouterr().out


@pytest.mark.parametrize("code, is_ignored", ((errno.EINVAL, True), (errno.EIO, False)))
def test_folders_that_cannot_sync_are_ignored(tmp_path, monkeypatch, code, is_ignored):
    """Some network file systems refuse this; a disk's error is still raised."""

    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)

    if is_ignored:
        files.fsync_folder(tmp_path)
    else:
        with pytest.raises(OSError):
            files.fsync_folder(tmp_path)


def test_json_survives_a_round_trip(tmp_path):
    value = {"a": [1.5, {"b": math.nan}], "c": "ä"}

    files.write_json(tmp_path / "a.json", value)
    found = files.read_json(tmp_path / "a.json", WAY_OUT)

    assert found == {"a": [1.5, {"b": None}], "c": "ä"}
    assert (tmp_path / "a.json").read_bytes().endswith(b"}\n")
    assert math.isnan(files.null_to_nan(found)["a"][1]["b"])


@pytest.mark.parametrize("content", (b'{"a": 1', b"\xff\xfe{", b"[1, 2]", b"[" * 100_000))
def test_damaged_json_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)

    with pytest.raises(Damaged, match=r"a\.json is damaged \(.*\); start again$"):
        files.read_json(tmp_path / "a.json", WAY_OUT)


def test_json_without_a_key_is_refused(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": 1})

    with pytest.raises(Damaged, match=r"has no 'b', so another version wrote it; start again$"):
        files.read_json(tmp_path / "a.json", WAY_OUT, keys=["a", "b"])


@pytest.fixture
def log(tmp_path):
    """A file of two lines."""
    for epoch in range(2):
        files.append_line(tmp_path / "log.jsonl", {"epoch": epoch, "srcc": math.nan})
    return tmp_path / "log.jsonl"


def test_lines_are_appended(log):
    lines = [json.loads(line) for line in log.read_text().splitlines()]

    assert lines == [{"epoch": 0, "srcc": None}, {"epoch": 1, "srcc": None}]
    assert files.read_lines(log, WAY_OUT) == lines


def test_a_missing_file_has_no_lines(tmp_path):
    assert files.read_lines(tmp_path / "log.jsonl", WAY_OUT) == []


def test_a_last_line_cut_short_is_left_out(log):
    os.truncate(log, log.stat().st_size - 3)

    assert files.read_lines(log, WAY_OUT) == [{"epoch": 0, "srcc": None}]


@pytest.mark.parametrize("line", (b'{"epoch":', b"[1, 2]", b"\xff"))
def test_a_damaged_line_is_refused(log, line):
    with open(log, "ab") as file:
        file.write(line + b"\n")

    with pytest.raises(Damaged, match=r"is damaged in line 3 \(.*\); start again$"):
        files.read_lines(log, WAY_OUT)
