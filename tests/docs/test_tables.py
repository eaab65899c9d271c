"""The tables of README.md and docs/ are those of results/ and of the registry."""

import re

import pytest

from distortions.registry import DISTORTION_TYPES, DISTORTIONS, select_types
from docs import make_tables

RESULTS = sorted((make_tables.ROOT / "results").glob("*.json"))


def read(page):
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", make_tables.pages(), ids=lambda page: page.name)
def test_making_the_tables_again_changes_nothing(page):
    assert make_tables.with_tables(read(page)) == read(page)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_result_says_how_it_was_made(path):
    result = make_tables.read_result(path)

    assert re.fullmatch(r"[0-9a-f]{7,40}(\+changes)?", result["commit"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", result["date"])
    assert result["versions"]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_result_stands_in_a_page(path):
    names = re.findall(r"<!-- table: (\w+)", "".join(map(read, make_tables.pages())))

    assert path.stem in names


def test_a_changed_number_is_noticed():
    page = "<!-- table: levels -->\n| 1 |\n<!-- end -->"

    assert make_tables.with_tables(page) != page


def test_a_result_without_its_header_is_refused(tmp_path):
    (tmp_path / "bare.json").write_text('{"command": "python x.py", "rows": []}')

    with pytest.raises(ValueError, match="has no 'commit'"):
        make_tables.read_result(tmp_path / "bare.json")


def test_the_docs_have_the_registrys_levels():
    page = read(make_tables.ROOT / "docs" / "distortions.md")

    for name in (*DISTORTION_TYPES, *select_types("kadid")):
        rows = re.findall(rf"^\| `{name}`.*$", page, re.MULTILINE)
        numbers = [
            tuple(map(float, re.findall(r"(?<=\| )-?[\d.e-]+(?= \|)", row)[1:])) for row in rows
        ]
        assert numbers == [tuple(map(float, table)) for table in DISTORTIONS[name].tables]
