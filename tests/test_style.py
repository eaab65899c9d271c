"""The limits that the code's style keeps, as `python -m tests.style_counts` counts."""

import pytest

from tests.style_counts import GROUPS, MAX_COMPREHENSIONS, MAX_UNPACKING, Counts, count_groups

CODE = "product", "ablations", "benchmarks"


@pytest.mark.parametrize("group", GROUPS)
def test_no_line_is_too_long(group):
    assert count_groups(group).long_lines == []


@pytest.mark.parametrize("groups", [("product",), ("product", "ablations")])
def test_few_assignments_unpack(groups):
    assert count_groups(*groups).unpacking_share <= MAX_UNPACKING


@pytest.mark.parametrize("groups", [("product",), ("product", "ablations")])
def test_comprehensions_are_few(groups):
    assert count_groups(*groups).comprehensions_per_100_lines <= MAX_COMPREHENSIONS


@pytest.mark.parametrize("group", GROUPS)
def test_only_matrices_keep_their_format(group):
    assert count_groups(group).skips == []


@pytest.mark.parametrize("group", CODE)
def test_public_functions_are_annotated(group):
    assert count_groups(group).unannotated == []


def count(text: str) -> Counts:
    counts = Counts()
    counts.add(text, "a.py")
    return counts


def test_long_lines_are_counted_but_for_urls():
    counts = count(f"# {'x' * 98}\n# {'x' * 99}\n# https://{'x' * 99}\n")

    assert counts.lines == 3
    assert counts.long_lines == ["a.py:2"]


def test_unpacking_assignments_are_counted():
    counts = count("a, b = 1, 2\n[c] = [3]\nd: int = 4\ne = f = 5, 6\n")

    assert counts.unpacking_share == 0.5


def test_comprehensions_are_counted():
    counts = count("[x for x in y]\n{x for x in y}\n{x: x for x in y}\nlist(x for x in y)\n")

    assert counts.comprehensions_per_100_lines == 100


def test_a_skipped_format_is_counted_but_on_matrices():
    counts = count(
        "a = 1,  2  # fmt: skip\nm = [[1, 2],\n     [3, 4]]  # fmt: skip\n'# fmt: skip'\n"
    )

    assert counts.skips == ["a.py:1"]


@pytest.mark.parametrize(
    "line, missing",
    [
        ("def f(a: int) -> int: ...", False),
        ("def f(a) -> int: ...", True),
        ("def f(a: int): ...", True),
        ("def f(*a) -> int: ...", True),
        ("def _f(a): ...", False),
        ("class _A:\n def f(self): ...", False),
        ("class A:\n def f(self) -> int: ...", False),
        ("class A:\n def f(self): ...", True),
        ("class A:\n def __init__(self, a: int): ...", False),
        ("class A:\n def __init__(self, a): ...", True),
        ("class A:\n def __len__(self): ...", True),
        ("def f() -> int:\n def g(a): ...", False),
    ],
)
def test_missing_annotations_are_found(line, missing):
    assert bool(count(line + "\n").unannotated) == missing
