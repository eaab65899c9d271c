"""Every message says its way out, or has a heading in docs/troubleshooting.md."""

import re

import pytest

from tests.docs.messages import ELLIPSIS, collect
from tests.helpers import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
HEADINGS = [line for line in PAGE.splitlines() if line.startswith("### ")]
QUOTED = [words for heading in HEADINGS for words in re.findall(r'"([^"]+)"', heading)]
# What tells a user what to do. "expected" and "must be" name what would be right.
WORDS = (
    "add|choose|correct|delete|divide|did you mean|do not|end with|expected|export|give|go on|"
    "install|leave it out|look for|lower|make that|move it|must be|name every|put|read a file by|"
    "save it|start|takes|test it|there are|train|try|unpack|use|wait|write"
)
# The last two end with what would be right.
WAYS_OUT = re.compile(
    rf"\b({WORDS})\b|run: |--overwrite|--resume|is none of|needs --|is not …$|; …$"
)
MESSAGES = collect()
# These are put together from sentences that have their own way out.
PUT_TOGETHER = ("--distortions: …", "--experiment_name … …")
# Messages of other programs, which are passed on, and titles of the page for other questions.
FOREIGN = ("No space left on device", "Permission denied", "Read-only file system")
FOREIGN += ("image file is truncated",)


def phrases(text):
    """Return the parts of a text between what is only known when it is given."""
    return [part.strip(" ;.,()") for part in text.split(ELLIPSIS) if len(part.strip(" ;.,()")) > 3]


def is_heading_of(words, text):
    """Tell whether all parts of a heading's words stand in a text, in their order."""
    place = 0
    text = " ".join(text.split())
    for part in phrases(words):
        place = text.find(part, place)
        if place < 0:
            return False
    return bool(phrases(words))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.place)
def test_a_message_says_its_way_out_or_has_a_heading(message):
    says_it = WAYS_OUT.search(message.text)
    is_made_elsewhere = not phrases(message.text) or message.text in PUT_TOGETHER

    has_heading = any(is_heading_of(words, message.text) for words in QUOTED)

    assert says_it or has_heading or is_made_elsewhere, message.text


@pytest.mark.parametrize("words", QUOTED)
def test_a_heading_has_words_that_the_program_says(words):
    source = []
    for path in [*ROOT.glob("*.py"), *ROOT.glob("*/*.py")]:
        if path.parent.name not in ("tests", "ablations", "benchmarks"):
            # Strings that are broken over lines are one string.
            text = path.read_text(encoding="utf-8")
            source.append(re.sub(r'"\s*\n\s*f?r?"', "", text))
    joined = "\n".join(source)

    for part in phrases(words):
        assert part in joined or words in FOREIGN or re.search(_pattern(part), joined), part


def _pattern(part):
    """Return a pattern of the part with any value of an f-string or number in it."""
    return re.sub(r"\\?\b\d+\b", r"[^\\n]{1,60}?", re.escape(part))


def test_most_messages_were_collected():
    assert len(MESSAGES) > 80
    assert len({message.text for message in MESSAGES}) > 75


def test_a_message_without_either_is_found():
    assert not WAYS_OUT.search("it is wrong")
    assert not any(is_heading_of(words, "it is wrong") for words in QUOTED)
