"""What becomes of each odd file is what tests/stress/folder_zoo.py has written down."""

import os

import pytest

from references.sources import load_training_references
from tests.stress import folder_zoo
from tests.stress.folder_zoo import READ, ZOO


@pytest.fixture(scope="module")
def zoo(module_folder):
    """Build the folder of all kinds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(module_folder)  # a socket's path is short
        folder_zoo.build(module_folder / "zoo")
    return module_folder / "zoo"


@pytest.mark.parametrize("kind", ZOO, ids=lambda kind: ascii(os.fsdecode(kind.name))[1:40])
def test_each_kind_ends_as_it_should(zoo, kind):
    outcome = folder_zoo.outcome_of(zoo, kind)

    assert folder_zoo.is_expected(kind, outcome), outcome


def test_the_zoo_has_sixty_kinds():
    assert len(ZOO) >= 60
    assert len({kind.name for kind in ZOO}) == len(ZOO)


def test_the_folder_as_a_whole_is_read(zoo, capsys):
    usable = sum(kind.outcome == READ for kind in ZOO) - 2  # one is a copy, one links to another

    with pytest.raises(ValueError, match="references, but folder zoo has"):
        load_training_references(str(zoo), 500, 1, 32, "none", 0)

    output = capsys.readouterr().out
    assert usable > 60
    assert "Traceback" not in output
    for words in ("copies of others", "links to folders are not followed"):
        assert words in output
