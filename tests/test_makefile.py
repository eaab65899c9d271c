"""The Makefile's targets, as `make help` lists them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)", text, re.MULTILINE)[1].split()

    listed = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True).stdout

    assert [line.split()[1] for line in listed.splitlines()] == targets
    assert all(len(line.split()) > 2 for line in listed.splitlines())
    assert targets == re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE)
