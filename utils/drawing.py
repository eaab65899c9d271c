"""Titles and labels that fit their figure, in fonts that have their characters."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager, get_font

from utils.files import errors_name_file
from utils.images import printable

BASE_FONT = "DejaVu Sans"  # comes with matplotlib
# Fonts for other scripts, on common systems. Those that are installed are used after the base.
FALLBACK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "Hiragino Sans",
    "Malgun Gothic",
    "Arial Unicode MS",
    "Noto Sans Arabic",
    "Noto Sans Hebrew",
    "Noto Sans Devanagari",
    "Noto Emoji",
    "Segoe UI Emoji",
    "Symbola",
)
# Characters without a picture of their own, which join or select those beside them.
INVISIBLE = "\u200b\u200c\u200d\ufe0e\ufe0f"
TITLE_SIZE = 12  # points
SUBTITLE_SIZE = 8.5
MAX_LINES = 3  # of a title
AXIS_SHARE = 0.6  # of the figure's width: an axis has this at least, and so has its title
LONGEST_NAME = 60  # characters of a run's or a folder's name in a title
LONGEST_LABEL = 22  # characters of a type's name beside an axis or in a legend


@contextmanager
def default_style() -> Iterator[None]:
    """Draw and save by matplotlib's own settings, whatever the user's are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["font.family"] = list(font_families())
        yield


def save_figure(figure: Figure, path: str | Path, **options: Any) -> None:
    """Write a figure to a file of the kind that its name ends in. options: of Figure.savefig."""
    with default_style(), errors_name_file(path):
        figure.savefig(path, **{"dpi": 100, **options})


def set_titles(figure: Figure, title: str, subtitle: str) -> None:
    """Write a title and a subtitle in lines that fit the figure's width.

    Of a figure with one axis, the subtitle stands above that, small.
    """
    lines = wrap_to_width(figure, title, TITLE_SIZE)
    if len(figure.axes) == 1:
        small = wrap_to_width(figure, subtitle, SUBTITLE_SIZE, share=AXIS_SHARE)
        figure.axes[0].set_title("\n".join(small), fontsize=SUBTITLE_SIZE, color="#555555")
    else:
        lines += wrap_to_width(figure, subtitle, TITLE_SIZE)
    figure.suptitle("\n".join(lines), fontsize=TITLE_SIZE)


def shorten(text: str, length: int = LONGEST_LABEL) -> str:
    """Return text of at most this length that can be drawn: its middle gives way to '…'."""
    text = printable(text)
    if len(text) > length:
        head = (length - 1) // 2
        tail = length - 1 - head
        text = f"{text[:head]}…{text[len(text) - tail :]}"
    return drawable(text)


def drawable(text: str) -> str:
    """Return text as matplotlib draws it as it is: without mathematics and hidden labels.

    A character that no installed font has is written as an escape, such as \\u4e2d.
    """
    characters = []
    for character in text:
        if character in INVISIBLE:
            continue
        if character == "\n" or _has_glyph(character):
            characters.append(character)
        else:
            characters.append(character.encode("ascii", "backslashreplace").decode())
    drawn = "".join(characters).replace("$", r"\$")
    return f" {drawn}" if drawn.startswith("_") else drawn  # a legend leaves out "_name"


def wrap_to_width(figure: Figure, text: str, size: float, share: float = 0.95) -> list[str]:
    """Break text into at most MAX_LINES lines that take this share of the figure's width."""
    limit = share * figure.get_figwidth() * figure.dpi
    average = max(1.0, text_width(figure, text, size) / max(1, len(text)))
    characters = max(8, int(limit / average))
    while characters > 8:
        lines = textwrap.wrap(text, characters) or [""]
        if all(text_width(figure, line, size) <= limit for line in lines):
            break
        characters -= max(1, characters // 20)
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], f"{lines[MAX_LINES - 1][: characters - 1]}…"]
    return lines


def text_width(figure: Figure, text: str, size: float) -> float:
    """Return how wide a line of text is, in pixels of the figure."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    font = FontProperties(family=list(font_families()), size=size)
    width, _, _ = renderer.get_text_width_height_descent(text.replace(r"\$", "$"), font, False)
    return width


@cache
def font_families() -> tuple[str, ...]:
    """Return the base font and those of FALLBACK_FONTS that are installed."""
    installed = {entry.name for entry in fontManager.ttflist}
    return (BASE_FONT, *(name for name in FALLBACK_FONTS if name in installed))


@cache
def _characters_of(family):
    """Return the code points that a font has."""
    return frozenset(get_font(fontManager.findfont(family)).get_charmap())


def _has_glyph(character):
    return any(ord(character) in _characters_of(family) for family in font_families())
