"""Whether a source file has changed since this Python process read it."""

import pytest

from distortions import sources_changed
from distortions.registry import DISTORTIONS, REFUSED, missing_type_hint, select_types
from distortions.sources_changed import explain_absence, stale_sources, stale_warning
from utils.errors import UserError

SNOW = """
@distortion(worst_quality=50)
@per_image
def snow(image, level, direction, rng):
    return image
"""


@pytest.fixture
def extra(tmp_path, monkeypatch):
    """Pretend that this file is distortions/extra.py, and that Python has just read it."""
    path = tmp_path / "distortions" / "extra.py"
    path.parent.mkdir()
    path.write_text("import numpy\n")
    monkeypatch.setattr(sources_changed, "_digests", {path: sources_changed._digest(path)})
    return path


def test_files_that_did_not_change_are_not_listed():
    assert stale_sources() == []
    assert stale_warning() == ""


def test_a_changed_file_is_listed(extra):
    extra.write_text("import numpy as np\n")

    assert stale_sources() == ["distortions/extra.py"]
    assert stale_warning().startswith("distortions/extra.py has changed since this Python process")


def test_a_file_with_a_new_date_is_not_listed(extra):
    extra.write_bytes(extra.read_bytes())
    extra.touch()

    assert stale_sources() == []


def test_a_deleted_file_is_not_listed(extra):
    extra.unlink()

    assert stale_sources() == []
    assert explain_absence("snow") == ""


def test_a_distortion_that_was_pasted_since_is_explained(extra):
    extra.write_text(extra.read_text() + SNOW)

    expected = (
        "unknown distortion 'snow'; distortions/extra.py has changed since this Python process "
        r"read it; restart Python \(in a notebook: restart the kernel, .* ! in place of %run\)$"
    )
    with pytest.raises(UserError, match=expected):
        select_types("rain,snow")


@pytest.mark.parametrize("text", ("# snow\n", "def snow(:\n", "def snowy(): pass\n", "\0"))
def test_a_change_that_does_not_explain_it_is_not_named(extra, text):
    extra.write_text(extra.read_text() + text)

    assert missing_type_hint("snow") == ""


def test_a_function_without_its_decorator_is_found(extra):
    extra.write_text("def snow(image, level, direction, rng): pass\n")

    assert missing_type_hint("snow") == (
        "; put @distortion(worst_quality=…) above `def snow` (distortions/extra.py, line 1)"
    )


def test_a_file_that_is_read_again_is_not_stale(extra):
    """As %autoreload does in a notebook."""
    before = dict(DISTORTIONS)
    extra.write_text("from distortions.registry import distortion, per_image\n" + SNOW)
    exec(compile(extra.read_text(), str(extra), "exec"), {"__name__": "distortions.extra"})

    assert stale_sources() == []

    DISTORTIONS.clear()
    DISTORTIONS.update(before)
    REFUSED.clear()


def test_a_helper_of_the_same_name_is_no_explanation():
    assert missing_type_hint("pixelate") == "; did you mean kadid_pixelate?"
